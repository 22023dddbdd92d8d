"""A real MuQ-MuLan that is too small to know anything, and music to use it on."""

import numpy as np
import soundfile
import torch

from muq_plugins.inference.mulan import save_mulan
from muq_plugins.inference.text_models import make_text_model
from muq_plugins.lobes import AudioTower, MuQEncoder, TextTower


def make_mulan(folder):
    """Saves an untrained model; returns its folder."""
    torch.manual_seed(0)
    texts = ["slow solo cello", "fast piano", "calm choir", "loud brass"] * 20
    source = make_text_model(folder / "text", texts, 300, 32, 2, 4, 64)
    text = TextTower.from_folder(source, latent_width=16, pretrained=False)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    audio = AudioTower(encoder, latent_width=16)
    return str(save_mulan(folder / "mulan", audio, text, clip_seconds=2))


def write_chord(path, seed):
    """Writes three seconds of a chord of three random pitches."""
    random = np.random.default_rng(seed)
    time = np.arange(3 * 24000) / 24000
    pitches = 110 * 2 ** (random.integers(0, 36, 3) / 12)
    wav = 0.1 * np.sin(2 * np.pi * pitches[:, None] * time).sum(axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, 24000)
    return path
