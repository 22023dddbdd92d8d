"""Music as other programs store it: WebDataset's tars, and Lhotse's cuts."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

from muq_plugins.data.audio import (
    AUDIO_EXTENSIONS,
    AudioCheck,
    check_audio,
    may_pass,
)
from muq_plugins.data.manifest import clip_ids
from muq_plugins.data.scan import available_cores, judge
from muq_plugins.data.shards.index import DONE, ShardedClip, below, read_index
from muq_plugins.data.shards.write import Job, finish, key_of, record_shard
from muq_plugins.data.sources import (
    Part,
    is_remote,
    list_objects,
    member,
    size_and_time,
)
from muq_plugins.errors import UserError
from muq_plugins.files import locked, read_json

CUTS = (".jsonl", ".jsonl.gz")
# What a manifest says itself.
_OURS = {"wav", "duration", "sample_rate", "channels", "path", "midi"}


class _Sample(NamedTuple):
    """One sample of a WebDataset: its audio, and what is known about it."""

    key: str
    name: str  # of the audio
    begin: int
    end: int
    labels: dict[str, Any]


def from_webdataset(
    source: str | Path,
    folder: str | Path,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Writes an index of WebDataset tars, which stay where they are.

    Every sample is decoded once and judged like a file of a folder. Its ``.json`` is
    its labels, its ``.txt`` its caption. The folder is then one of shards.
    """
    folder, tars = Path(folder), _tars(source)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    with (
        locked(folder),
        ThreadPool(workers or available_cores()) as pool,
        tqdm(total=len(tars), desc="Tars", unit="tar", disable=not progress) as bar,
    ):
        for number, tar in enumerate(tars):
            done = folder / DONE / f"{number:06d}.json"
            before = read_json(done) if done.is_file() else None
            if before is not None and not _is_index_of(folder, before, tar):
                raise UserError(
                    f"{folder} is the index of other tars, or {tar} has changed: give "
                    "another --out, or an empty one."
                )
            if before is None or any(
                may_pass(one["reason"]) for one in before["left_out"]
            ):
                clips, left_out = _judged(tar, pool)
                record_shard(folder, number, tar, clips, left_out)
            bar.update()
        return finish(folder, len(tars), "as it was")


def _is_index_of(folder: Path, done: dict[str, Any], tar: str) -> bool:
    size, changed = size_and_time(tar)
    sources = [clip.source for clip in read_index(folder, done)]
    sources += [clip.get("source", [size, 0]) for clip in done["left_out"]]
    # Once nobody asked a store when something had changed, nor what was left out.
    same = all(source in ([size, changed], [size, 0]) for source in sources)
    return same and (done["tar"], done["bytes"]) == (tar, size)


def _judged(
    tar: str, pool: ThreadPool
) -> tuple[list[ShardedClip], list[dict[str, str]]]:
    """The samples of a tar that can be used, and those that cannot."""

    def check(sample: _Sample) -> tuple[_Sample, AudioCheck, str]:
        path = member(tar, sample.begin, sample.end, sample.name)
        with Part(path) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        return sample, check_audio(path), digest

    clips, left_out = [], []
    source = list(size_and_time(tar))
    samples = list(_samples(tar))
    paths = [f"{PurePosixPath(tar).name}/{sample.key}" for sample in samples]
    checked = zip(paths, clip_ids(paths), pool.imap(check, samples), strict=True)
    for path, clip_id, (sample, found, digest) in checked:
        reason, detail = judge(found)
        if reason is not None:
            words = {"path": f"{tar}: {sample.name}", "detail": detail}
            left_out.append({"id": path, "reason": reason, "source": source, **words})
            continue
        clips.append(
            ShardedClip(
                key=key_of(path),
                id=clip_id,
                path=path,
                part=None,
                name=sample.name,
                begin=sample.begin,
                end=sample.end,
                frames=found.num_samples,
                rate=found.sample_rate,
                sha256=digest,
                source=source,
                labels=sample.labels,
            )
        )
    return clips, left_out


def _tars(source: str | Path) -> list[str]:
    """The tars that a folder, or an address, has, or the one that it is."""
    text = os.fspath(source)
    if text.endswith(".tar"):
        found = [text]
    elif is_remote(text):
        found = [name for name in list_objects(text) if name.endswith(".tar")]
    else:
        found = sorted(str(path) for path in Path(text).rglob("*.tar"))
    found = [name if is_remote(name) else os.path.abspath(name) for name in found]
    names = [PurePosixPath(name).name for name in found]
    if not found or not all(map(_exists, found)):
        raise UserError(
            f"There is no tar in {source}: give a folder with uncompressed tars of a "
            "WebDataset, or one of them."
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source} has two tars of the name {twice}: rename one.")
    return found


def _exists(path: str) -> bool:
    return is_remote(path) or os.path.isfile(path)


def _samples(tar: str) -> Iterator[_Sample]:
    """The samples of a tar: members that have the same name up to the first dot."""
    texts: dict[str, dict[str, bytes]] = {}
    audio: dict[str, tuple[str, int, int]] = {}
    with Part(tar) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as members:
                for found in members:
                    if not found.isfile():
                        continue
                    folder, _, name = found.name.rpartition("/")
                    if name.startswith("."):  # what macOS puts beside each file
                        continue
                    stem, _, extension = name.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    extension = f".{extension.lower()}"
                    if extension.endswith(AUDIO_EXTENSIONS):
                        if key in audio:
                            raise UserError(
                                f"{tar} has two recordings of the sample {key}: "
                                f"{audio[key][0]} and {found.name}. Leave one out."
                            )
                        begin = found.offset_data
                        audio[key] = found.name, begin, begin + found.size
                    elif extension.endswith((".json", ".txt")):
                        content = members.extractfile(found).read()
                        texts.setdefault(_stem(found.name), {})[found.name] = content
        except tarfile.TarError as error:
            raise UserError(
                f"{tar} is no complete uncompressed tar ({error}): copy it again, or "
                "unpack it and give the folder."
            ) from error
    for key, (name, begin, end) in audio.items():
        labels = {}
        for stem in {key: None, _stem(name): None}:
            for text, content in texts.get(stem, {}).items():
                labels.update(_known(f"{tar}: {text}", content))
        yield _Sample(key, name, begin, end, labels)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _known(place: str, content: bytes) -> dict[str, Any]:
    """What a text beside the audio says."""
    try:
        if place.lower().endswith(".txt"):
            return {"caption": content.decode().strip()}
        known = json.loads(content)
    except ValueError as error:
        raise UserError(f"{place} is damaged ({error}): leave it out.") from error
    known = known if isinstance(known, dict) else {"json": known}
    return {name: value for name, value in known.items() if name not in _OURS}


def jobs_of_cuts(file: str | Path, data_root: str | Path) -> list[Job]:
    """The cuts of a Lhotse manifest, each a part of a recording or all of it."""
    jobs: dict[str, Job] = {}
    for number, line in enumerate(_lines(file), start=1):
        place = f"{file}, line {number}"
        try:
            cut = json.loads(line)
            job = _job(place, cut, data_root)
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            words = f"{type(error).__name__}: {error}"
            raise UserError(f"{place} is not a cut of Lhotse ({words}).") from error
        if job.id in jobs:
            raise UserError(f"{place}: there is a cut {job.id} before, too.")
        jobs[job.id] = job
    if not jobs:
        raise UserError(f"{file} holds no cuts.")
    return list(jobs.values())


def _lines(file: str | Path) -> list[bytes]:
    try:
        content = Path(file).read_bytes()
        if os.fspath(file).endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise UserError(f"There is no file of cuts {file}: check the path.") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error
    return content.splitlines()


def _job(place: str, cut: dict[str, Any], data_root: str | Path) -> Job:
    """What one cut asks for."""
    if cut["type"] not in ("MonoCut", "MultiCut"):
        raise UserError(
            f"{place}: {cut['id']} is a {cut['type']}, which is mixed or padded by "
            "Lhotse alone: save its audio first (CutSet.save_audios)."
        )
    recording = cut["recording"]
    source, *more = recording["sources"]
    channels = cut["channel"] if isinstance(cut["channel"], list) else [cut["channel"]]
    if more or source["type"] not in ("file", "url"):
        raise UserError(
            f"{place}: the audio of {cut['id']} is not one file but "
            f"{source['type']!r}{' and others' if more else ''}: save it as files "
            "first (CutSet.save_audios)."
        )
    if set(channels) != set(source["channels"]) or recording.get("transforms"):
        raise UserError(
            f"{place}: {cut['id']} hears channels {channels} of {source['channels']}, "
            "or what Lhotse changes: we hear the mean of all channels as they are. "
            "Save its audio first (CutSet.save_audios)."
        )
    file = source["source"]
    start, seconds = float(cut["start"]), float(cut["duration"])
    whole = start == 0 and abs(seconds - recording["duration"]) < 0.001
    labels = dict(cut.get("custom") or {})
    texts = [part["text"] for part in cut.get("supervisions", ()) if part.get("text")]
    if texts:
        labels.setdefault("caption", " ".join(texts))
    return Job(
        id=cut["id"],
        file=file if is_remote(file) else below(data_root, file),
        path=file,
        part=None,
        seconds=seconds,
        labels={name: value for name, value in labels.items() if name not in _OURS},
        start=None if whole else start,
    )
