"""Latents of recordings are kept for one model and one state of the files."""

import os

import pytest
import torch

from muq_plugins.errors import UserError
from muq_plugins.evaluation.zero_shot.clips import CHUNK, audio_latents


class Sizes:
    """A model that hears the size of a file, and counts how often it is asked."""

    def __init__(self, fingerprint="sizes"):
        self.fingerprint, self.heard = fingerprint, []

    def embed_file(self, path):
        self.heard.append(path)
        return torch.tensor([float(os.stat(path).st_size), 1.0])


@pytest.fixture
def files(tmp_path):
    """More files than are kept together, each of another size."""
    paths = [tmp_path / f"{i:03}.wav" for i in range(CHUNK + 3)]
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * i)
    return paths


def test_latents_are_computed_once(files, tmp_path):
    first = audio_latents(Sizes(), files, tmp_path / "kept")
    assert first.shape == (CHUNK + 3, 2)
    assert first[:, 0].tolist() == list(range(CHUNK + 3))
    again = Sizes()
    assert (audio_latents(again, files, tmp_path / "kept") == first).all()
    assert again.heard == []


def test_an_interruption_costs_one_file_of_latents(files, tmp_path):
    class Breaks(Sizes):
        def embed_file(self, path):
            if path == str(files[-1]):
                raise KeyboardInterrupt
            return super().embed_file(path)

    with pytest.raises(KeyboardInterrupt):
        audio_latents(Breaks(), files, tmp_path / "kept")
    model = Sizes()
    audio_latents(model, files, tmp_path / "kept")
    assert model.heard == [str(path) for path in files[CHUNK:]]


def test_another_model_or_a_changed_file_is_heard_anew(files, tmp_path):
    audio_latents(Sizes(), files, tmp_path / "kept")
    other = Sizes("other")
    audio_latents(other, files, tmp_path / "kept")
    assert len(other.heard) == len(files)
    files[-1].write_bytes(b"changed")
    model = Sizes()
    assert audio_latents(model, files, tmp_path / "kept")[-1, 0] == len(b"changed")
    assert len(model.heard) == 3


def test_latents_that_are_no_numbers_are_not_kept(files, tmp_path):
    class Broken(Sizes):
        def embed_file(self, path):
            return torch.tensor([float("nan")])

    with pytest.raises(UserError, match="latent of .*000.wav is not finite"):
        audio_latents(Broken(), files, tmp_path / "kept")
    with pytest.raises(UserError, match="gone.wav is not there"):
        audio_latents(Sizes(), [tmp_path / "gone.wav"], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
