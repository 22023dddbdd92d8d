"""A model of music and text that knows only pitch: its answers can be foreseen."""

import logging
import re
import sys
import time
import types
from pathlib import Path

import numpy as np
import soundfile
import torch

from muq_plugins.data.audio import read_audio
from muq_plugins.inference.space import latent_space, track_space

logger = logging.getLogger("muq_plugins.lobes.mulan.tones")

WIDTH = 24
LONGEST = 5000  # characters of a text
LOWEST = 110.0  # Hz; a value of a latent is a band of a third of an octave


class ToneModel:
    """Latents are spectra in thirds of octaves; texts name a pitch in Hz."""

    trained_on = "pure tones"

    def __init__(self, fingerprint="70e5", seconds=0.0, layer=None):
        self.layer = layer  # as if it were an encoder's
        self.fingerprint = fingerprint
        self.latent_width = WIDTH
        self.seconds = seconds  # that a file takes
        self.embedded = []

    @classmethod
    def from_pretrained(cls, source, device="cpu"):
        """Reads its fingerprint from a file, as the folder of a model would have it."""
        path = Path(source, "fingerprint")
        if not path.exists():
            raise FileNotFoundError(f"No trained MuQ-MuLan model in {source}.")
        return cls(path.read_text("utf-8"))

    def space(self, loudness=None):
        if self.layer is not None:
            return track_space(self.fingerprint, self.layer, loudness)
        return latent_space(self.fingerprint, loudness)

    def embed_file(self, path, loudness=None):
        self.embedded.append(Path(path).name)
        time.sleep(self.seconds)
        wav = read_audio(path, sample_rate=24000)
        power = torch.fft.rfft(wav).abs() ** 2
        pitch = torch.arange(len(power)) * 24000 / len(wav)
        band = (3 * torch.log2(pitch.clamp(min=1) / LOWEST)).round().clamp(0, WIDTH - 1)
        latent = torch.zeros(WIDTH).index_add(0, band.long(), power)
        return torch.nn.functional.normalize(latent, dim=0)[None]

    def embed_text(self, texts):
        if len(texts[0]) > LONGEST:
            logger.warning("The end of the text is left out.")
        latents = torch.zeros(len(texts), WIDTH)
        for latent, text in zip(latents, texts, strict=True):
            # Other texts are a little like every pitch.
            latent += 0.1
            for pitch in re.findall(r"\d+", text)[:9]:
                latent[round(3 * np.log2(float(pitch) / LOWEST)) % WIDTH] += 1
        return torch.nn.functional.normalize(latents, dim=1)


def write_tone(path, pitch, seconds=0.3):
    """Writes a sine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(24000 * seconds)) / 24000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * time), 24000)
    return path


def make_model(folder, fingerprint="70e5"):
    """The folder of a model that `ToneModel.from_pretrained` reads."""
    folder.mkdir(parents=True)
    (folder / "fingerprint").write_text(fingerprint, "utf-8")
    (folder / "config.json").write_text('{"kind": "muq_mulan"}', "utf-8")
    (folder / "model.safetensors").touch()
    return str(folder)


def use_tones(monkeypatch):
    """Lets the commands load `ToneModel` instead of MuQ-MuLan."""
    module = types.ModuleType("muq_plugins.inference.mulan")
    module.MuQMuLan = ToneModel
    monkeypatch.setitem(sys.modules, module.__name__, module)
