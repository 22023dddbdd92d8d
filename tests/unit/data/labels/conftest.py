"""A few seconds of music and a teacher small enough to label it in milliseconds."""

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.labels import LabelWindows, extract_labels
from muq_plugins.lobes import MuQEncoder, ResidualVQ, Target, TeacherFeatures

#: Seconds and sampling rate of the tracks: several windows, less than one, no frame.
TRACKS = [(3.3, 24000), (2.0, 44100), (0.5, 24000), (1.234, 22050), (0.03, 24000)]


def make_target(seed=0, layer=1, fingerprint="teacher", codebook_size=32):
    """A target on latents, with weights that depend on the seed."""
    torch.manual_seed(seed)
    encoder = MuQEncoder(16, num_layers=2, num_heads=2, ffn_width=32, conv_channels=2)
    # As a trained one has: fresh layers hardly look at the frames around.
    for parameter in encoder.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(2)
    return Target(
        TeacherFeatures(encoder, layer, fingerprint), ResidualVQ(16, 2, codebook_size)
    )


def make_windows(target):
    return LabelWindows.in_seconds(target, window=0.8, context=0.2)


@pytest.fixture
def target():
    return make_target()


@pytest.fixture
def windows(target):
    return make_windows(target)


@pytest.fixture
def manifest(tmp_path):
    return write_tracks(tmp_path)


def write_tracks(folder):
    """A manifest of tracks of chords and noise."""
    entries = {}
    for index, (seconds, rate) in enumerate(TRACKS):
        random = np.random.default_rng(index)
        time = np.arange(round(seconds * rate)) / rate
        wav = 0.05 * random.normal(size=len(time))
        for pitch in 220 * 2 ** (random.integers(0, 24, 40) / 12):
            begin = random.uniform(0, seconds)
            wav += 0.2 * np.sin(6.283 * pitch * time) * (abs(time - begin) < 0.1)
        path = folder / "music" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, wav, rate, subtype="PCM_16")
        entries[f"track{index}"] = {"wav": str(path), "duration": len(time) / rate}
    return entries


@pytest.fixture
def extract(target, windows, manifest):
    """Extracts the labels of all tracks into a folder, in shards of a track or two."""

    def run(folder, **changes):
        arguments = {"shard_minutes": 2.5 / 60, **changes}
        return extract_labels(folder, windows, manifest, **arguments)

    return run
