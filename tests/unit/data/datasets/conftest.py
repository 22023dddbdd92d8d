"""Audio for fixtures in the layout of published data sets."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def sounds(tmp_path):
    """Writes short recordings under the given names, and gives their folder."""

    def write(*names):
        for name in names:
            path = tmp_path / "audio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            wav = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
            form = {".au": "AU", ".mp3": "MP3"}.get(path.suffix, "WAV")
            soundfile.write(path, wav, 16000, format=form)
        return tmp_path / "audio"

    return write


def published(name):
    """The folder of a data set with its published annotations; skips without it."""
    if not (folder := os.environ.get("MUQ_MARBLE_DATA")):
        pytest.skip("MUQ_MARBLE_DATA is not set")
    if not (folder := Path(folder) / name).is_dir():
        pytest.skip(f"there is no {folder}")
    return folder


def spoil(path, change):
    """Takes a file away, replaces a text in it, or gives it another content."""
    if change is None:
        path.unlink()
    elif isinstance(change, tuple):
        path.write_text(path.read_text().replace(*change), encoding="utf-8")
    elif isinstance(change, np.ndarray):
        np.save(path, change)
    else:
        path.write_bytes(change)
