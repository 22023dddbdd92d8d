"""Shards: the files that labels are kept in.

A shard is some whole tracks. ``shard-00000.codes`` holds their codes one after
another, (frames, N) unsigned 16 bit, little-endian; ``shard-00000.latents``, if wanted,
the latents as 16-bit floats; ``shard-00000.json`` says which frames are whose, and is
written last: a shard is there once its JSON is.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from muq_plugins.data.jsonio import write_json
from muq_plugins.data.labels.description import READ_BYTES, AudioStamp, read_object
from muq_plugins.data.labels.errors import LabelError

CODES = np.dtype("<u2")
LATENTS = np.dtype("<f2")


@dataclasses.dataclass(frozen=True)
class Shard:
    """The name and the clips of a shard; there may be no files yet.

    Arguments
    ---------
    folder : Path
        The folder of the labels.
    number : int
        From 0.
    clips : list of str
        Ids in the manifest.

    Example
    -------
    >>> Shard(Path("labels"), 7, ["a"]).codes
    PosixPath('labels/shard-00007.codes')
    """

    folder: Path
    number: int
    clips: list[str]

    @property
    def name(self) -> str:
        """Its name, which is that of the work item as well."""
        return f"shard-{self.number:05d}"

    @property
    def codes(self) -> Path:
        """The file of codes."""
        return self.folder / f"{self.name}.codes"

    @property
    def latents(self) -> Path:
        """The file of latents."""
        return self.folder / f"{self.name}.latents"

    @property
    def index(self) -> Path:
        """The JSON file."""
        return self.folder / f"{self.name}.json"

    def load(self, width: int) -> dict[str, Any]:
        """Reads the index, and looks whether the codes have the size it says.

        Arguments
        ---------
        width : int
            Number of codebooks.

        Returns
        -------
        dict
            ``frames``, ``clips`` (id to first frame, frames and stamp of the audio),
            ``failures`` (id to reason) and the hashes of the files.

        Raises
        ------
        LabelError
            If a file is missing or has another size.
        """
        if not self.index.is_file():
            raise LabelError(
                f"{self.index} is missing: the labels are not complete. Run "
                "extract_labels.py again with the same settings; it does what is left."
            )
        index = read_object(self.index)
        check_size(self.codes, index["frames"] * width * CODES.itemsize)
        return index


def check_size(path: Path, expected: int) -> None:
    """Looks whether a file has its size.

    Arguments
    ---------
    path : Path
        The file.
    expected : int
        Bytes.

    Raises
    ------
    LabelError
        If it has not, or is missing.

    Example
    -------
    >>> check_size(Path("nowhere"), 3)
    Traceback (most recent call last):
    ...
    muq_plugins.data.labels.errors.LabelError: nowhere is missing: ...
    """
    remedy = (
        f"Delete {path.with_suffix('.json').name} beside it and run extract_labels.py "
        "again."
    )
    if not path.is_file():
        raise LabelError(f"{path} is missing: this shard is gone. {remedy}")
    size = path.stat().st_size
    if size != expected:
        raise LabelError(
            f"{path} has {size} bytes instead of {expected}: it is damaged. {remedy}"
        )


def plan_shards(folder: Path, manifest: dict, shard_minutes: float) -> list[Shard]:
    """Deals whole tracks out to shards, in the order of the manifest.

    Arguments
    ---------
    folder : Path
        The folder of the labels.
    manifest : dict
        Clip id to entry.
    shard_minutes : float
        A shard is full once it holds so much audio.

    Returns
    -------
    list of Shard
        Every clip once.

    Raises
    ------
    LabelError
        If ``shard_minutes`` is not above 0.

    Example
    -------
    >>> manifest = {name: {"duration": 40.0} for name in "abcde"}
    >>> [shard.clips for shard in plan_shards(Path("x"), manifest, 1)]
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    if shard_minutes <= 0:
        raise LabelError(f"shard_minutes is {shard_minutes}, but must be above 0.")
    shards, clips, seconds = [], [], 0.0
    for clip_id, entry in manifest.items():
        clips.append(clip_id)
        seconds += entry["duration"]
        if seconds >= 60 * shard_minutes:
            shards.append(Shard(folder, len(shards), clips))
            clips, seconds = [], 0.0
    if clips:
        shards.append(Shard(folder, len(shards), clips))
    return shards


class ShardWriter:
    """Writes a shard under temporary names, and gives it its name at once.

    Arguments
    ---------
    shard : Shard
        Which one.
    num_codebooks : int
        Columns of codes.
    latent_size : int or None
        Columns of latents; None stores none.
    """

    def __init__(self, shard: Shard, num_codebooks: int, latent_size: int | None):
        self.shard = shard
        self.frames = 0
        self.clips: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        token = uuid.uuid4().hex[:8]
        self._widths = {shard.codes: num_codebooks}
        if latent_size is not None:
            self._widths[shard.latents] = latent_size
        self._files = {
            path: open(path.with_name(f"{path.name}.{token}.partial"), "wb")
            for path in self._widths
        }

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error) -> None:
        for file in self._files.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def add(self, codes: np.ndarray, latents: np.ndarray) -> None:
        """Appends frames of the clip at hand.

        Arguments
        ---------
        codes : numpy.ndarray
            (frames, N).
        latents : numpy.ndarray
            (frames, size); dropped if latents are not wanted.
        """
        self._files[self.shard.codes].write(codes.astype(CODES).tobytes())
        if self.shard.latents in self._files:
            self._files[self.shard.latents].write(latents.astype(LATENTS).tobytes())

    def end_clip(self, clip_id: str, frames: int, samples: int, path: str) -> None:
        """Notes whose the frames since the last clip are.

        Arguments
        ---------
        clip_id : str
            Id in the manifest.
        frames : int
            How many frames.
        samples : int
            Length of the track.
        path : str
            The audio file.
        """
        stamp = dataclasses.asdict(AudioStamp.of(path))
        self.clips[clip_id] = {
            "first": self.frames,
            "frames": frames,
            "samples": samples,
            "audio": stamp,
        }
        self.frames += frames

    def fail_clip(self, clip_id: str, reason: str) -> None:
        """Takes back the frames since the last clip.

        Arguments
        ---------
        clip_id : str
            Id in the manifest.
        reason : str
            Why its file cannot be used.
        """
        for path, file in self._files.items():
            item = (CODES if path == self.shard.codes else LATENTS).itemsize
            file.seek(self.frames * self._widths[path] * item)
            file.truncate()
        self.failures[clip_id] = reason

    def publish(self) -> None:
        """Puts the shard where readers look for it: first the data, then the index."""
        hashes = {}
        for path, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            hashes[path.suffix[1:]] = hash_file(Path(file.name))
            os.replace(file.name, path)
        write_json(
            self.shard.index,
            {
                "frames": self.frames,
                "sha256": hashes,
                "clips": self.clips,
                "failures": self.failures,
            },
        )


def hash_file(path: Path) -> str:
    """SHA-256 of a file.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    str
        Hexadecimal.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a"
    >>> _ = path.write_bytes(b"")
    >>> hash_file(path)[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
