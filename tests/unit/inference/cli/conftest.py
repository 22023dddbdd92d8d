"""Tiny models, and music to use them on."""

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import LogMel, MuQEncoder, ResidualVQ, StackedFrames, Target


def save_model(folder, seed):
    """Saves a tiny MuQ with 3 hidden states."""
    torch.manual_seed(seed)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    return str(save_muq(folder, encoder))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "other", seed=1)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    torch.manual_seed(0)
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    return str(save_tokenizer(tmp_path_factory.mktemp("model") / "codes", target, ""))


@pytest.fixture
def write_wav():
    """Writes noise over a tone: ``write_wav(path, seconds, pitch)``."""

    def write(path, seconds, pitch=220.0, sample_rate=24000):
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * sample_rate)) / sample_rate
        noise = np.random.default_rng(len(time)).standard_normal(len(time))
        wav = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * noise
        soundfile.write(path, wav, sample_rate)
        return path

    return write


@pytest.fixture
def music(tmp_path, write_wav):
    """A folder with three files of unequal lengths."""
    write_wav(tmp_path / "music" / "a.wav", 1.5)
    write_wav(tmp_path / "music" / "deep" / "b.flac", 1.1, sample_rate=44100)
    write_wav(tmp_path / "music" / "deep" / "c.wav", 0.4)
    return tmp_path / "music"
