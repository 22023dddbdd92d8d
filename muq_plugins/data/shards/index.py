"""The index of shards: which clip is where, and the manifests that follow from it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from muq_plugins.data.audio import AudioInfo
from muq_plugins.data.manifest import (
    PARTS,
    manifest_entry,
    split_files,
    write_manifest,
)
from muq_plugins.data.scan import check_fractions, usual_fraction
from muq_plugins.data.sources import (
    Part,
    is_remote,
    member,
    read_object,
    size_and_time,
)
from muq_plugins.errors import UserError
from muq_plugins.files import read_json, write_json

SHARDS_FILE = "shards.json"
DONE = "done"
RATE = 24000
FORMAT = 1
_LOOKERS = 16  # each look at a shard of a store is a wait
_AGAIN = "copy the shards again from where they were made, or make them again"


class ShardedClip(NamedTuple):
    """One line of an index."""

    key: str  # name of its members in the tar, without the ending
    id: str
    path: str  # the recording that it was made from, below its folder
    part: str | None  # of the manifest that it was in; None: the split is ours to make
    name: str  # of the member
    begin: int  # first byte in the tar
    end: int
    frames: int
    rate: int
    sha256: str  # of these bytes
    source: list[int]  # bytes and time of change of the recording
    labels: dict[str, Any]

    def cut(self) -> dict[str, Any]:
        """The line, as Lhotse writes cuts of a Shar."""
        custom = self._asdict()
        del custom["key"], custom["frames"], custom["rate"]
        return {
            "id": self.key,
            "start": 0.0,
            "duration": self.frames / self.rate,
            "channel": 0,
            "supervisions": [],
            "recording": recording(self.key, self.frames, self.rate),
            "custom": custom,
            "type": "MonoCut",
        }

    @classmethod
    def of(cls, cut: dict[str, Any]) -> ShardedClip:
        """Reads a line."""
        audio = cut["recording"]
        frames, rate = audio["num_samples"], audio["sampling_rate"]
        return cls(key=cut["id"], frames=frames, rate=rate, **cut["custom"])


def recording(key: str, frames: int, rate: int = RATE) -> dict[str, Any]:
    """What Lhotse wants to know of the audio of a clip."""
    return {
        "id": key,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": rate,
        "num_samples": frames,
        "duration": frames / rate,
        "channel_ids": [0],
    }


def tar_name(number: int) -> str:
    """Where a shard is below its folder."""
    return f"audio/recording.{number:06d}.tar"


def index_name(number: int) -> str:
    """Where the index of a shard is below its folder."""
    return f"audio/cuts.{number:06d}.jsonl.gz"


def below(folder: str | os.PathLike, name: str) -> str:
    """The path of something in a folder of this machine or of a store."""
    if is_remote(name):  # a tar that others have made stays where it is
        return name
    if is_remote(folder):
        return f"{os.fspath(folder).rstrip('/')}/{name}"
    return os.path.join(folder, name)


def is_sharded(folder: str | os.PathLike) -> bool:
    """Whether a folder has shards; every folder of a store has to."""
    if is_remote(folder):
        return True
    complete = Path(folder, SHARDS_FILE).is_file()
    if not complete and any(Path(folder, DONE).glob(6 * "[0-9]" + ".json")):
        raise UserError(
            f"The shards in {folder} are not complete: run `muq-plugins shard` with "
            "the same arguments again, which writes the rest."
        )
    return complete


def read_shards(
    folder: str | os.PathLike, compare: bool = True
) -> list[dict[str, Any]]:
    """What `shards.json` says; the size of each shard is compared with it."""
    path = below(folder, SHARDS_FILE)
    try:
        content = _json(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} holds no shards: {SHARDS_FILE} is missing there. `muq-plugins "
            "shard` makes them of music."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is not of format {FORMAT}: it was made by another version of "
            "muq-plugins, or by another program. Make the shards again."
        )
    if compare:
        look = functools.partial(compare_size, folder)
        with ThreadPool(_LOOKERS) as pool:
            pool.map(look, content["shards"])
    return content["shards"]


def compare_size(folder: str | os.PathLike, shard: dict[str, Any]) -> None:
    """Refuses a shard that is missing, or is not as long as it was written."""
    tar = below(folder, shard["tar"])
    try:
        size, _ = size_and_time(tar)
    except FileNotFoundError as error:
        raise UserError(
            f"{tar} is missing, {SHARDS_FILE} lists it: {_AGAIN}."
        ) from error
    if size != shard["bytes"]:
        raise UserError(
            f"{tar} has {size:,} bytes, {SHARDS_FILE} says {shard['bytes']:,}: "
            f"{_AGAIN}."
        )


def read_index(folder: str | os.PathLike, shard: dict[str, Any]) -> list[ShardedClip]:
    """The clips of a shard."""
    path = below(folder, shard["index"])
    try:
        packed = _bytes(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {_AGAIN}.") from error
    if hashlib.sha256(packed).hexdigest() != shard["index_sha256"]:
        raise UserError(
            f"{path} is not the index that {below(folder, SHARDS_FILE)} lists, but one "
            f"of other shards, or damaged: {_AGAIN}."
        )
    lines = gzip.decompress(packed).splitlines()
    return [ShardedClip.of(json.loads(line)) for line in lines]


def shard_manifests(
    data_folder: str | os.PathLike,
    manifest_folder: str | os.PathLike,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 1234,
) -> None:
    """Writes the manifests of shards: what `scan_folder` writes of their recordings.

    Nothing is decoded. Ids, parts and order are those of the recordings.
    """
    shards = read_shards(data_folder)
    known = Path(manifest_folder, "shards.json")
    asked = {"shards": shards, "fractions": [valid_fraction, test_fraction]}
    made = [Path(manifest_folder, f"{part}.json") for part in PARTS]
    if known.is_file() and read_json(known) == asked and all(map(Path.is_file, made)):
        return
    entries: dict[str, tuple[ShardedClip, dict]] = {}
    for shard in shards:
        for clip in read_index(data_folder, shard):
            path = member(shard["tar"], clip.begin, clip.end, clip.name)
            audio = AudioInfo(clip.rate, clip.frames, 1)
            labels = {**clip.labels, "path": clip.path}
            entry = manifest_entry(path, audio, **labels)
            if is_remote(shard["tar"]) or os.path.isabs(shard["tar"]):
                entry["wav"] = entry["wav"].removeprefix("{data_root}/")
            if clip.id in entries:
                other = entries[clip.id][0].path
                raise UserError(
                    f"{data_folder}: {other} and {clip.path} have the id {clip.id}: "
                    "make the shards again, in another folder."
                )
            entries[clip.id] = clip, entry
    parts = {clip.part for clip, _ in entries.values()}
    if parts == {None}:
        divided = _divided(entries, seed, valid_fraction, test_fraction)
    elif (valid_fraction, test_fraction) != (None, None):
        raise UserError(
            f"The shards in {data_folder} were made of manifests that divide them "
            f"into {', '.join(sorted(parts))}: leave out valid_fraction and "
            "test_fraction."
        )
    elif "valid" not in parts or "train" not in parts:
        raise UserError(
            f"The shards in {data_folder} have only the part {', '.join(parts)}: make "
            "them of train.json and valid.json."
        )
    else:
        divided = {part: [] for part in PARTS}
        for clip_id, (clip, _) in entries.items():
            divided[clip.part].append(clip_id)
    for part, ids in divided.items():
        content = {clip_id: entries[clip_id][1] for clip_id in ids}
        write_manifest(Path(manifest_folder, f"{part}.json"), content)
    write_json(known, asked)


def _divided(
    entries: dict[str, tuple[ShardedClip, dict]],
    seed: int,
    valid_fraction: float | None,
    test_fraction: float | None,
) -> dict[str, list[str]]:
    """The ids of each part, as a scan of the recordings divides them."""
    usual = usual_fraction(len({clip.path for clip, _ in entries.values()}))
    valid_fraction = usual if valid_fraction is None else valid_fraction
    test_fraction = usual if test_fraction is None else test_fraction
    check_fractions(valid_fraction, test_fraction)
    paths: dict[str, list[str]] = {}  # cuts of one recording stay together
    for clip_id, (clip, _) in entries.items():
        paths.setdefault(clip.path, []).append(clip_id)
    parts = split_files(sorted(paths), seed, valid_fraction, test_fraction)
    return {
        part: [clip_id for path in files for clip_id in paths[path]]
        for part, files in parts.items()
    }


def check_shards(folder: str | os.PathLike) -> Iterator[str]:
    """Reads every byte of some shards; yields a line for each shard when it is good."""
    for shard in read_shards(folder):
        tar = below(folder, shard["tar"])
        clips = read_index(folder, shard)
        for clip in clips:
            with Part(member(tar, clip.begin, clip.end, clip.name)) as file:
                if hashlib.sha256(file.read()).hexdigest() != clip.sha256:
                    raise UserError(
                        f"{tar}: {clip.name} (bytes {clip.begin} to {clip.end}) has "
                        f"changed since it was written: {_AGAIN}."
                    )
        yield f"{tar}: {len(clips)} clips, all as they were written"


def _json(path: str) -> Any:
    try:
        if not is_remote(path):
            return read_json(path, _AGAIN)
        return json.loads(read_object(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged ({error}): {_AGAIN}.") from error


def _bytes(path: str) -> bytes:
    return read_object(path) if is_remote(path) else Path(path).read_bytes()
