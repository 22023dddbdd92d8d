"""Writes shards: a fixed plan, each whole or not at all, the rest after a kill."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from muq_plugins.data.audio import AudioError, may_lack, may_pass, read_audio
from muq_plugins.data.clips import keyed_integer
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.scan import available_cores, check_data_folder, scan_folder
from muq_plugins.data.shards.index import (
    DONE,
    FORMAT,
    RATE,
    SHARDS_FILE,
    ShardedClip,
    below,
    compare_size,
    index_name,
    read_index,
    recording,
    tar_name,
)
from muq_plugins.data.shares import neighbours, own_share
from muq_plugins.data.sources import HEADER, is_remote, size_and_time
from muq_plugins.data.windows import READ_SECONDS, read_blocks
from muq_plugins.errors import UserError
from muq_plugins.files import atomic, locked, read_json, replace_file, sweep, write_json

Encoding = Literal["flac", "opus"]
# About 1 GB of FLAC.
HOURS = 10.0
# What a manifest says of the audio, which is another one in a shard, and the notes,
# which are in no shard.
_OF_AUDIO = ("wav", "duration", "sample_rate", "channels", "midi")


@dataclass
class Job:
    """A recording that is to be in a shard."""

    id: str
    file: str
    path: str  # as the index tells it
    part: str | None
    seconds: float
    labels: dict[str, Any] = field(default_factory=dict)
    start: float | None = None  # of a recording of which these seconds are one part

    @property
    def key(self) -> str:
        """Its name in the tar."""
        return key_of(self.id)

    def blocks(self) -> Iterator[torch.Tensor]:
        """Its audio at 24 kHz."""
        if self.start is None:
            yield from read_blocks(self.file, RATE)
            return
        begin = 0.0
        while (left := self.seconds - begin) > 0.5 / RATE:
            seconds = min(left, READ_SECONDS)
            block = read_audio(self.file, self.start + begin, seconds, RATE)
            end = round((self.start + begin + seconds) * RATE)
            if len(block) < round(seconds * RATE) - may_lack(end):
                found = self.start + begin + len(block) / RATE
                words = f"the cut ends at {self.start + self.seconds:g} s, the file at"
                raise AudioError(self.file, "truncated", f"{words} {found:g} s")
            yield block
            begin += seconds


def key_of(clip_id: str) -> str:
    """What a clip is called in a tar: letters that every reader takes, and no dot."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", clip_id)[:80]
    if name == clip_id:
        return name
    return f"{name}-{keyed_integer(1 << 32, 'member', clip_id):08x}"


def jobs_of_folder(folder: str | Path, scan: str | Path, workers: int) -> list[Job]:
    """The recordings of a folder, after every one was decoded once."""
    check_data_folder(folder)
    with locked(scan):  # one process of several decodes; the others find it done
        scan_folder(folder, scan, workers=workers)
    jobs = []
    for part in PARTS:
        path = Path(scan, f"{part}.json")
        if read_json(path):
            jobs += _jobs(load_manifest(path, folder), folder, None)
    return jobs


def jobs_of_manifests(files: list[str], data_root: str | Path) -> list[Job]:
    """The recordings of manifests, which may be those of parts."""
    names = [Path(file).stem for file in files]
    parts: list[str | None] = [name if name in PARTS else None for name in names]
    if len(files) > 1 and (None in parts or len(set(parts)) < len(parts)):
        raise UserError(
            f"{', '.join(files)}: several manifests are those of parts, and have to be "
            "called train.json, valid.json and test.json."
        )
    if len(files) == 1:
        parts = [None]
    jobs, seen = [], {}
    for file, part in zip(files, parts, strict=True):
        if part is not None and not read_json(file):
            continue  # of a small corpus
        for job in _jobs(load_manifest(file, data_root), data_root, part):
            if job.id in seen:
                raise UserError(f"{seen[job.id]} and {file} both have a clip {job.id}.")
            seen[job.id] = file
            jobs.append(job)
    return jobs


def _jobs(manifest: dict, root: str | Path, part: str | None) -> Iterator[Job]:
    for clip_id, entry in manifest.items():
        path = Path(entry["wav"])
        if path.is_relative_to(root):
            path = path.relative_to(root)
        labels = {key: entry[key] for key in entry if key not in _OF_AUDIO}
        path = labels.pop("path", path.as_posix())
        yield Job(clip_id, entry["wav"], path, part, entry["duration"], labels)


def planned(jobs: list[Job], hours: float) -> list[list[Job]]:
    """Which recordings each shard has: in an order that mixes albums and artists."""
    jobs = sorted(jobs, key=lambda job: keyed_integer(1 << 62, "shard", job.id))
    shards: list[list[Job]] = []
    room = 0.0
    for job in jobs:
        if room <= 0:
            shards.append([])
            room = hours * 3600
        shards[-1].append(job)
        room -= job.seconds
    return shards


def write_shards(
    jobs: list[Job],
    folder: str | Path,
    encoding: Encoding = "flac",
    hours: float = HOURS,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[dict[str, Any], list[dict[str, str]]] | None:
    """Writes the shards that are not there; gives `shards.json` and what it lacks.

    Of several processes each writes a fixed share, and the last one `shards.json`; the
    others get None.
    """
    if is_remote(folder):
        raise UserError(
            f"{folder}: shards are written to a disk of this machine. Copy them to the "
            "store then, all files as they are."
        )
    folder, (rank, world) = Path(folder), own_share()
    plan = planned(jobs, hours)
    share = list(enumerate(plan))[rank::world]
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    threads = workers or max(1, available_cores() // neighbours())
    lock = ".lock" if world == 1 else f".lock-{rank}-of-{world}"
    with locked(folder, lock), ThreadPoolExecutor(threads) as pool:
        if world == 1:  # what another one writes looks like what a killed one left
            sweep(folder / "audio", folder.glob(".lock-*"))
        total, hidden = sum(len(shard) for _, shard in share), not progress or rank > 0
        with tqdm(total=total, desc="Shards", unit="clip", disable=hidden) as bar:
            for number, shard in share:
                done = folder / DONE / f"{number:06d}.json"
                if done.is_file():
                    found = read_json(done)
                    _check_done(folder, number, shard, encoding, found)
                    if _can_be_more(shard, found, encoding):
                        done.unlink()
                if not done.is_file():
                    _write_shard(folder, number, shard, encoding, pool)
                bar.update(len(shard))
    names = (folder / DONE / f"{number:06d}.json" for number in range(len(plan)))
    if not all(name.is_file() for name in names):
        return None
    with locked(folder):
        return finish(folder, len(plan), encoding)


def finish(folder: Path, count: int, encoding: str) -> tuple[dict, list[dict]]:
    """Writes what all shards together are."""
    shards, left_out = [], []
    for number in range(count):
        shard = read_json(folder / DONE / f"{number:06d}.json")
        left_out += shard.pop("left_out")
        shards.append(shard)
    if more := sorted(folder.glob(f"audio/*.{count:06d}.*")):
        raise UserError(
            f"{more[0]} belongs to other shards, of which there were more than "
            f"{count}: give another --out, or an empty one."
        )
    content = {
        "format": FORMAT,
        "encoding": encoding,
        "hours": sum(shard["hours"] for shard in shards),
        "clips": sum(shard["clips"] for shard in shards),
        "shards": shards,
    }
    if not content["clips"]:
        words = [
            f"{one['path']}: {one['reason']} ({one['detail']})" for one in left_out
        ]
        raise UserError(
            f"No shards of {folder}: none of {len(left_out)} recordings can be used. "
            f"The first one: {words[0] if words else 'there is none'}."
        )
    write_json(folder / SHARDS_FILE, content)
    return content, left_out


def _check_done(
    folder: Path, number: int, shard: list[Job], encoding: str, done: dict
) -> None:
    """Refuses to go on with shards of other music."""
    compare_size(folder, done)
    before = {clip.id: clip for clip in read_index(folder, done)}
    left_out = {clip["id"]: clip for clip in done["left_out"]}
    words = None
    for job in shard:
        clip = before.pop(job.id, None)
        if clip is None:
            if job.id not in left_out:
                words = f"{job.file} was not in it"
            elif may_pass(left_out[job.id]["reason"]):
                continue
            elif (now := _stamp(job)) != left_out[job.id].get("source", now):
                words = f"{job.file} was no recording to use then, and has changed"
        elif not clip.name.endswith(f".{encoding}"):
            words = f"{clip.name} is in it, and {encoding} was asked for"
        elif clip.source != _stamp(job):
            words = f"{job.file} has changed since, or is gone"
        elif [clip.path, clip.part, clip.labels] != [job.path, job.part, job.labels]:
            words = f"what is known about {job.file} has changed since"
        if words:
            break
    if before and not words:
        words = f"{next(iter(before.values())).path} is in it, and would not be now"
    if words:
        raise UserError(
            f"{folder / tar_name(number)} was made of other music or with other "
            f"settings: {words}. Give another --out, or an empty one."
        )


def _can_be_more(shard: list[Job], done: dict, encoding: str) -> bool:
    """Whether a recording that could not be read then can be read now."""
    passing = {clip["id"] for clip in done["left_out"] if may_pass(clip["reason"])}
    return any(
        not isinstance(_encoded(job, encoding), AudioError)
        for job in shard
        if job.id in passing
    )


def _stamp(job: Job) -> list[int] | None:
    """What a recording is now; None if it is gone."""
    try:
        return list(size_and_time(job.file))
    except FileNotFoundError:
        return None


def _write_shard(
    folder: Path, number: int, shard: list[Job], encoding: str, pool: ThreadPoolExecutor
) -> None:
    """Writes one shard: its tar, then its index, then that it is done."""
    clips, left_out = [], []
    with (
        atomic(folder / tar_name(number)) as partial,
        open(partial, "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for job, made in _ahead(pool, lambda job: _encoded(job, encoding), shard):
            if isinstance(made, AudioError):
                words = {"reason": made.reason, "detail": made.detail}
                about = {"id": job.id, "path": job.file, "source": _stamp(job)}
                left_out.append({**about, **words})
                continue
            data, frames, source = made
            key = job.key
            begin = file.tell() + HEADER
            _add(tar, f"{key}.{encoding}", data)
            note = json.dumps(recording(key, frames)).encode()
            _add(tar, f"{key}.json", note)
            clips.append(
                ShardedClip(
                    key=key,
                    id=job.id,
                    path=job.path,
                    part=job.part,
                    name=f"{key}.{encoding}",
                    begin=begin,
                    end=begin + len(data),
                    frames=frames,
                    rate=RATE,
                    sha256=hashlib.sha256(data).hexdigest(),
                    source=list(source),
                    labels=job.labels,
                )
            )
    record_shard(folder, number, tar_name(number), clips, left_out)


def record_shard(
    folder: Path,
    number: int,
    tar: str,
    clips: list[ShardedClip],
    left_out: list[dict[str, str]],
) -> None:
    """Writes the index of a tar, then that it is done."""
    lines = "".join(json.dumps(clip.cut()) + "\n" for clip in clips)
    index = gzip.compress(lines.encode(), mtime=0)
    replace_file(folder / index_name(number), index)
    write_json(
        folder / DONE / f"{number:06d}.json",
        {
            "tar": tar,
            "bytes": size_and_time(below(folder, tar))[0],
            "index": index_name(number),
            "index_sha256": hashlib.sha256(index).hexdigest(),
            "clips": len(clips),
            "hours": sum(clip.frames / clip.rate for clip in clips) / 3600,
            "left_out": left_out,
        },
    )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a member; the same music gives the same bytes at any time."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Job], Any], jobs: list[Job]
) -> Iterator[tuple[Job, Any]]:
    """Results in order, from threads that are only so far ahead as memory allows."""
    waiting: deque = deque()
    todo = iter(jobs)
    while True:
        while len(waiting) < 2 * pool._max_workers:
            if (job := next(todo, None)) is None:
                break
            waiting.append((job, pool.submit(work, job)))
        if not waiting:
            return
        job, future = waiting.popleft()
        yield job, future.result()


def _encoded(
    job: Job, encoding: str
) -> tuple[bytes, int, tuple[int, int]] | AudioError:
    """The file of a recording, its samples, and what the recording was."""
    buffer, frames = io.BytesIO(), 0
    kind = {"format": "FLAC", "subtype": "PCM_16"}
    if encoding == "opus":
        kind = {"format": "OGG", "subtype": "OPUS"}
    try:
        source = size_and_time(job.file)
        with soundfile.SoundFile(buffer, "w", RATE, 1, **kind) as file:
            for block in job.blocks():
                frames += len(block)
                for second in block.split(RATE):  # libsndfile fails on long ones
                    file.write(
                        second.numpy() if encoding == "opus" else _integers(second)
                    )
        if size_and_time(job.file) != source:
            raise UserError(f"{job.file} changes while it is read: run this again.")
    except FileNotFoundError:
        return AudioError(job.file, "missing", "no such file")
    except AudioError as error:
        return error
    return buffer.getvalue(), frames, source


def _integers(wav: torch.Tensor) -> np.ndarray:
    """16-bit integers, of which reading makes the same floats again."""
    return (wav * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()
