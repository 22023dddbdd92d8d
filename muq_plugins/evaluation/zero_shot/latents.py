"""Latents of texts, and of audio on disk: computed once for a model and its files.

The name of a file is a hash of the model's weights and of the recordings with their
sizes and times. So latents of another model, or of a changed recording, are never found
by mistake, and nothing has to be deleted by hand.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor
from tqdm import tqdm

from muq_plugins.data.atomic import replace_file
from muq_plugins.data.datasets.files import DatasetError

# Raised whenever a change of the code changes the latents.
FORMAT = 1
# Recordings in a file: what an interruption can cost.
CHUNK = 64


class AudioModel(Protocol):
    """What latents of recordings need of a model, such as `MuQMuLan`."""

    fingerprint: str

    def embed_file(self, path: str) -> Tensor:
        """Embeds a recording of any length.

        Arguments
        ---------
        path : str
            The file.

        Returns
        -------
        Tensor
            Its latent (latent_width,).
        """


class TextModel(Protocol):
    """What latents of texts need of a model, such as `MuQMuLan`."""

    def embed_text(self, texts: list[str]) -> Tensor:
        """Embeds texts.

        Arguments
        ---------
        texts : list of str
            The texts, however many.

        Returns
        -------
        Tensor
            Their latents (texts, latent_width).
        """


def text_latents(model: TextModel, texts: list[str]) -> np.ndarray:
    """Latents of texts as they are, to compare with those of `audio_latents`.

    Arguments
    ---------
    model : TextModel
        The model.
    texts : list of str
        The texts.

    Returns
    -------
    numpy.ndarray
        (texts, latent_width) float32.

    Example
    -------
    >>> import torch
    >>> class Lengths:
    ...     def embed_text(self, texts):
    ...         return torch.tensor([[len(text)] for text in texts])
    >>> text_latents(Lengths(), ["calm", "loud music"]).tolist()
    [[4.0], [10.0]]
    """
    return model.embed_text(texts).detach().float().cpu().numpy()


def audio_latents(
    model: AudioModel,
    files: Sequence[str | Path],
    folder: str | Path,
    progress: bool = False,
) -> np.ndarray:
    """Latents of recordings, computed where they are not kept already.

    How a recording becomes a latent is the model's: `MuQMuLan` cuts it into clips of
    its training length, completes the last one with the start, and takes the mean.

    Arguments
    ---------
    model : AudioModel
        The model.
    files : sequence of str
        The recordings.
    folder : str or pathlib.Path
        Where latents are kept; shared by all models and data sets.
    progress : bool
        Show a progress bar.

    Returns
    -------
    numpy.ndarray
        (files, latent_width) float32.

    Raises
    ------
    DatasetError
        If a recording is missing, or its latent is not finite.
    AudioError
        If a recording cannot be read.

    Example
    -------
    >>> import torch
    >>> class Sizes:
    ...     fingerprint = "sizes"
    ...     def embed_file(self, path):
    ...         return torch.tensor([float(os.stat(path).st_size)])
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.wav").write_bytes(b"12345")
    >>> audio_latents(Sizes(), [folder / "a.wav"], folder / "kept").tolist()
    [[5.0]]
    """
    parts = []
    for start in tqdm(range(0, len(files), CHUNK), disable=not progress, unit="chunk"):
        some = [str(file) for file in files[start : start + CHUNK]]
        path = Path(folder) / f"{_key(model, some)}.npy"
        if not path.is_file():
            latents = np.stack([_embed(model, file) for file in some])
            content = io.BytesIO()
            np.save(content, latents, allow_pickle=False)
            replace_file(path, content.getvalue())
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)


def _embed(model: AudioModel, file: str) -> np.ndarray:
    latent = model.embed_file(file).detach().float().cpu().numpy().reshape(-1)
    if not np.isfinite(latent).all():
        raise DatasetError(
            f"The latent of {file} is not finite: the model is broken, or the "
            "recording is."
        )
    return latent


def _key(model: AudioModel, files: list[str]) -> str:
    """A hash of all that the latents of these recordings depend on."""
    known = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError as error:
            raise DatasetError(
                f"{file} is not there: {error.strerror}. Restore it, or prepare the "
                "data again."
            ) from error
        known.append([file, status.st_size, status.st_mtime_ns])
    about = {"format": FORMAT, "model": model.fingerprint, "files": known}
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
