"""Tones, and an index of them."""

import pytest

from tests.unit.inference.tones import ToneModel, write_tone


@pytest.fixture
def music(tmp_path):
    """Four tones in two folders."""
    for name, pitch in (("a", 110), ("b", 220), ("deep/c", 440), ("deep/d", 880)):
        write_tone(tmp_path / "music" / f"{name}.wav", pitch)
    return tmp_path / "music"


@pytest.fixture
def model():
    return ToneModel()
