"""Shards: the files that labels are kept in.

A shard is some whole tracks. ``shard-00000.codes`` holds their codes one after
another, (frames, N) unsigned 16 bit, little-endian; ``shard-00000.latents``, if wanted,
the latents as 16-bit floats; ``shard-00000.json`` says which frames are whose, and is
written last: a shard is there once its JSON is.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from muq_plugins.data.labels.description import AudioStamp, agree, read_object
from muq_plugins.data.sources import hash_file
from muq_plugins.errors import UserError
from muq_plugins.files import atomic, write_json

CODES = np.dtype("<u2")
LATENTS = np.dtype("<f2")
VERIFIED_FILE = "verified.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """The name and the clips of a shard; there may be no files yet."""

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
        """Reads the index, and looks whether the codes have the size it says."""
        if not self.index.is_file():
            raise UserError(
                f"{self.index} is missing: the labels are not complete. Run "
                "extract_labels.py again with the same settings; it does what is left."
            )
        index = read_object(self.index, "frames", "sha256", "clips", "failures")
        check_size(self.codes, index["frames"] * width * CODES.itemsize)
        return index


def check_size(path: Path, expected: int) -> None:
    """Refuses a file that is missing or has another size."""
    if not path.is_file():
        raise damaged(path, "is missing: this shard is gone")
    size = path.stat().st_size
    if size != expected:
        raise damaged(path, f"has {size} bytes instead of {expected}: it is damaged")


def damaged(path: Path, words: str) -> UserError:
    """What is wrong with a file of a shard, and what to do."""
    index = path.with_suffix(".json")
    which = "it" if path == index else f"{index.name} beside it"
    return UserError(f"{path} {words}. Delete {which} and run extract_labels.py again.")


def plan_shards(folder: Path, manifest: dict, description: dict) -> list[Shard]:
    """Deals whole tracks out to shards, in the order of their ids.

    That of the manifest, as in format 1, depends on which part a track is in.

    >>> manifest = {name: {"duration": 40.0} for name in "edcba"}
    >>> description = {"format": 2, "shard_minutes": 1}
    >>> [shard.clips for shard in plan_shards(Path("x"), manifest, description)]
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    shard_minutes = description["shard_minutes"]
    if shard_minutes <= 0:
        raise UserError(f"shard_minutes is {shard_minutes}, but must be above 0.")
    shards, clips, seconds = [], [], 0.0
    for clip_id in manifest if description["format"] == 1 else sorted(manifest):
        clips.append(clip_id)
        seconds += manifest[clip_id]["duration"]
        if seconds >= 60 * shard_minutes:
            shards.append(Shard(folder, len(shards), clips))
            clips, seconds = [], 0.0
    if clips:
        shards.append(Shard(folder, len(shards), clips))
    return shards


class ShardWriter:
    """Writes the frames of a shard, clip by clip."""

    def __init__(self, files: dict[str, tuple[BinaryIO, np.dtype, int]]):
        self._files = files  # with the kind of a value, and how many a frame has
        self.frames = 0
        self.clips: dict[str, Any] = {}
        self.failures: dict[str, str] = {}

    def add(self, codes: np.ndarray, latents: np.ndarray) -> None:
        """Appends frames of the clip at hand; latents are dropped if not wanted."""
        given = {"codes": codes, "latents": latents}
        for name, (file, kind, _) in self._files.items():
            file.write(given[name].astype(kind).tobytes())

    def end_clip(self, clip_id: str, frames: int, samples: int, path: str) -> None:
        """Notes whose the frames since the last clip are."""
        stamp = dataclasses.asdict(AudioStamp.of(path))
        self.clips[clip_id] = {
            "first": self.frames,
            "frames": frames,
            "samples": samples,
            "audio": stamp,
        }
        self.frames += frames

    def fail_clip(self, clip_id: str, reason: str) -> None:
        """Takes back the frames since the last clip."""
        for file, kind, width in self._files.values():
            file.seek(self.frames * width * kind.itemsize)
            file.truncate()
        self.failures[clip_id] = reason


@contextmanager
def writing(
    shard: Shard, num_codebooks: int, latent_size: int | None
) -> Iterator[ShardWriter]:
    """Gives what writes a shard, which readers find once all of it is there."""
    kinds = {"codes": (shard.codes, CODES, num_codebooks)}
    if latent_size is not None:
        kinds["latents"] = (shard.latents, LATENTS, latent_size)
    with ExitStack() as stack:
        files = {}
        for name, (path, kind, width) in kinds.items():
            partial = stack.enter_context(atomic(path))
            file = stack.enter_context(open(partial, "wb"))
            files[name] = (file, kind, width)
        writer = ShardWriter(files)
        yield writer
        hashes = {}
        for name, (file, *_) in files.items():
            file.flush()
            hashes[name] = hash_file(file.name, hashlib.sha256())
    index = {
        "frames": writer.frames,
        "sha256": hashes,
        "clips": writer.clips,
        "failures": writer.failures,
    }
    write_json(shard.index, index)


class LabelSet:
    """A complete set of labels.

    Only what is asked for is read from the disk, and no file stays open: there are
    thousands. The audio of a clip is compared with the audio that was labelled when
    the clip is first asked for.
    """

    def __init__(self, folder: str | Path, manifest: dict, description: dict[str, Any]):
        self.folder = Path(folder)
        self.width = description["num_codebooks"]
        description = agree(self.folder, description, create=False)
        self._paths = {clip: entry["wav"] for clip, entry in manifest.items()}
        self._places: dict[str, tuple[Path, int, int]] = {}
        self._stamps: dict[str, AudioStamp] = {}
        self._failures: set[str] = set()
        for shard in plan_shards(self.folder, manifest, description):
            index = shard.load(self.width)
            for clip, row in index["clips"].items():
                self._places[clip] = (shard.codes, row["first"], row["frames"])
                self._stamps[clip] = AudioStamp(**row["audio"])
            self._failures.update(index["failures"])
        if not (self.folder / VERIFIED_FILE).is_file():
            raise UserError(
                f"{self.folder / VERIFIED_FILE} is missing: the labels were never "
                "verified. Run extract_labels.py again with the same settings."
            )

    def codes(self, clip_id: str, first: int, count: int) -> np.ndarray:
        """The labels (frames, N) uint16 of some frames; fewer where the track ends.

        There are none of a track that could not be read to its end.
        """
        if clip_id in self._failures:
            return np.zeros((0, self.width), CODES)
        if clip_id not in self._places:
            raise UserError(
                f"{self.folder} has no labels of {clip_id}: it is not in the manifest "
                "that they were extracted for."
            )
        stamp = self._stamps.get(clip_id)
        if stamp is not None and not stamp.matches(self._paths[clip_id]):
            raise UserError(
                f"{self._paths[clip_id]} has changed since it was labelled in "
                f"{self.folder}: bring the file back, or extract labels into another "
                "folder."
            )
        self._stamps.pop(clip_id, None)  # once is enough
        path, begin, frames = self._places[clip_id]
        last = min(first + count, frames)
        first = min(first, last)
        place = (begin + first) * self.width * CODES.itemsize
        found = np.fromfile(path, CODES, (last - first) * self.width, offset=place)
        return found.reshape(last - first, self.width)
