"""Scans a folder of music: manifests, a report, and a quarantine list.

Every file is decoded once, in threads: libsndfile works outside Python's interpreter
lock, so they scale like processes. What was found is cached. An interrupted scan goes
on where it stopped, and other thresholds or fractions need no new decoding. Several
processes, on one machine or many, decode a fixed share each. A folder in which nothing
has changed is only looked at.
"""

import collections
import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from muq_plugins.data.audio import (
    AUDIO_EXTENSIONS,
    OTHER_EXTENSIONS,
    AudioCheck,
    AudioError,
    check_audio,
    may_pass,
)
from muq_plugins.data.clips import keyed_shares
from muq_plugins.data.manifest import (
    PARTS,
    clip_ids,
    manifest_entry,
    split_files,
    write_manifest,
)
from muq_plugins.data.shares import neighbours
from muq_plugins.errors import UserError, shown
from muq_plugins.files import (
    POLL_SECONDS,
    append_json_line,
    locked,
    open_json_lines,
    read_json,
    read_json_lines,
    write_json,
)

logger = get_logger(__name__)

# Shares of a folder to validate and to test on, and how many files they should make.
SMALLEST_FRACTION, LARGEST_FRACTION, ENOUGH_FILES = 0.05, 0.15, 10
# Counts how often what is refused has changed; older results are not believed.
_CHECKS = 3
# A file with another size or modification time is another file.
_CACHE_KEY = ("path", "size", "mtime_ns")
Key = tuple[str, int, int]
CACHE = "scan_cache{}.jsonl"
# Several at once: on a network drive each look at a file is a wait.
_LOOKERS = 16
_LOOKED_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class ScanReport:
    """What a scan found; saved as `scan.json`."""

    data_folder: str  # the folder that was scanned
    # where `train.json`, `valid.json`, `test.json`, `quarantine.json` and `scan.json`
    # are
    manifest_folder: str
    files: int  # audio files found
    usable: int  # files in the manifests
    hours: float  # hours of audio in the manifests
    splits: dict  # split name to {"files": int, "hours": float}
    sample_rates: dict  # rate in Hz, as text, to number of usable files
    channels: dict  # channels, as text, to number of usable files
    formats: dict  # container and encoding to number of usable files
    quarantined: dict  # reason to number of files left out
    ignored: dict  # extension to number of files that are not audio by their name
    decoded: int  # files decoded by this scan; the others were in the cache
    settings: dict  # thresholds, fractions and seed of the scan
    # hash of all that the above follows from; None if it may change by itself
    seen: str | None = None

    def summary(self) -> str:
        """The report in a few lines of text."""
        splits = ", ".join(
            f"{name} {split['files']} ({split['hours']:.2f} h)"
            for name, split in self.splits.items()
        )
        lines = [
            f"{self.data_folder}: {self.usable} of {self.files} audio files usable, "
            f"{self.hours:.2f} h; {splits}",
            f"rates: {_listed(self.sample_rates)}; channels: {_listed(self.channels)}"
            f"; formats: {_listed(self.formats)}",
        ]
        if self.quarantined:
            lines.append(
                f"left out: {_listed(self.quarantined)}; see "
                f"{Path(self.manifest_folder) / 'quarantine.json'}"
            )
        return "\n".join(lines)


def scan_folder(
    data_folder: str | os.PathLike,
    manifest_folder: str | os.PathLike,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
    min_duration: float = 1.0,
    silence_dbfs: float = -60.0,
    workers: int | None = None,
    seed: int = 1234,
    progress: bool = True,
    cache_folder: str | os.PathLike | None = None,
    look_only: bool = False,
) -> ScanReport | None:
    """Writes the manifests of a folder tree of music.

    Any tree of wav, flac, ogg, opus, mp3, m4a, aiff and the like, at 4 to 768 kHz and
    any number of channels. Hidden files are skipped, links followed, each folder
    and file once. Files left out are listed with the reason in `quarantine.json`. A
    fraction that is None is that of the last scan into this folder, so that no file
    changes its part, or `usual_fraction` of the files that can be used. What was
    decoded is remembered in the folder of the manifests, or in `cache_folder`. With
    `look_only` nothing is done, and None is given, unless all was done before.
    """
    check_fractions(valid_fraction or 0.0, test_fraction or 0.0)
    manifest_folder = Path(manifest_folder)
    look = look_at(data_folder)
    found = look.found
    if not found.paths and not found.unreadable:
        others = collections.Counter(found.ignored)
        others.update(os.path.splitext(path)[1].lower() for path in found.left_out)
        raise UserError(
            f"No audio in {data_folder}: looked for {', '.join(AUDIO_EXTENSIONS)} at "
            f"any depth. Other files there: {_listed(others) or 'none'}. Check "
            "data_folder, or convert them to flac."
        )
    wanted = [min_duration, silence_dbfs, valid_fraction, test_fraction, seed]
    seen = look.digest(wanted)
    report = _report_of(manifest_folder, seen)
    if report is not None:
        report = dataclasses.replace(report, decoded=0, data_folder=str(data_folder))
        logger.info(report.summary())
    if report is not None or look_only:
        return report
    try:
        manifest_folder.mkdir(parents=True, exist_ok=True)
        checks, decoded = check_files(
            look, Path(cache_folder or manifest_folder), workers, progress
        )
        usable, quarantine = {}, []
        for path, check in {**checks, **_not_read(found)}.items():
            reason, detail = judge(check, min_duration, silence_dbfs)
            if reason is None:
                usable[path] = check
            else:
                quarantine.append({"path": path, "reason": reason, "detail": detail})
        reasons = collections.Counter(entry["reason"] for entry in quarantine)
        write_json(manifest_folder / "quarantine.json", quarantine)
        if not usable:
            raise UserError(
                f"None of the {len(found.paths)} audio files in {data_folder} can be "
                f"used: {_listed(reasons)}. Each is listed with its reason in "
                f"{manifest_folder / 'quarantine.json'}."
            )
        valid_fraction, test_fraction = _fractions(
            manifest_folder, len(usable), valid_fraction, test_fraction
        )
        ids = dict(zip(usable, clip_ids(list(usable)), strict=True))
        parts = split_files(list(usable), seed, valid_fraction, test_fraction)
        splits = {}
        for name, paths in parts.items():
            entries = {ids[path]: manifest_entry(path, usable[path]) for path in paths}
            write_manifest(manifest_folder / f"{name}.json", entries)
            hours = _hours(usable[path] for path in paths)
            splits[name] = {"files": len(paths), "hours": hours}
        report = ScanReport(
            data_folder=str(data_folder),
            manifest_folder=str(manifest_folder),
            files=len(found.paths),
            usable=len(usable),
            hours=_hours(usable.values()),
            splits=splits,
            sample_rates=_histogram(check.sample_rate for check in usable.values()),
            channels=_histogram(check.channels for check in usable.values()),
            formats=_histogram(f"{c.format} {c.subtype}" for c in usable.values()),
            quarantined=dict(reasons),
            ignored=found.ignored,
            decoded=decoded,
            settings={
                "min_duration": min_duration,
                "valid_fraction": valid_fraction,
                "test_fraction": test_fraction,
                "silence_dbfs": silence_dbfs,
                "seed": seed,
            },
            seen=None if any(map(may_pass, reasons)) else seen,
        )
        write_json(manifest_folder / "scan.json", dataclasses.asdict(report))
    except OSError as error:
        raise UserError(
            f"Cannot write the manifests to {manifest_folder}: {error}. Free or "
            "allow it, or choose another folder."
        ) from error
    logger.info(report.summary())
    return report


def manifests_of(place: Path, results: str | os.PathLike) -> Path:
    """Where training keeps the manifests of music, below the folder of results."""
    digest = hashlib.blake2b(str(place).encode(), digest_size=4).hexdigest()
    return Path(results, "manifests", f"{place.name}-{digest}")


def usual_fraction(files: int) -> float:
    """The share of a folder to validate on, and to test on.

    It is 5 %, and more of a small folder, so that about ten files are heard: numbers
    of two or three say more about these than about other music.

    Example
    -------
    >>> [usual_fraction(files) for files in (61, 100, 1000)]
    [0.15, 0.1, 0.05]
    """
    return min(LARGEST_FRACTION, max(SMALLEST_FRACTION, ENOUGH_FILES / files))


def check_data_folder(data_folder: str | os.PathLike) -> Path:
    """Refuses what holds no music, whatever is in it."""
    top = Path(data_folder)
    if not top.exists():
        raise UserError(f"The data folder {top} does not exist.")
    if not top.is_dir():
        raise UserError(
            f"The data folder {top} is a file. Give the folder that holds the music."
        )
    return top


class Found(NamedTuple):
    """What a folder tree holds; paths are relative to it."""

    paths: list[str]  # audio files
    unreadable: list[tuple[str, str]]  # folders that could not be listed, and why
    left_out: list[str]  # sound in formats that are not looked for
    ignored: dict[str, int]  # extension to number of files that are no sound

    def problems(self, top: str | os.PathLike) -> list[str]:
        """Words about the folders and the sound that are missing, below a folder."""
        return [
            *(
                f"{shown(Path(top, name))}: cannot be listed ({reason}). Check the "
                f"permissions."
                for name, reason in self.unreadable
            ),
            *(shown(str(left_out_error(Path(top, name)))) for name in self.left_out),
        ]


def find_audio(data_folder: str | os.PathLike) -> Found:
    """Finds the audio files of a folder tree by their extension."""
    top = check_data_folder(data_folder)
    paths, unreadable, left_out = [], [], []
    ignored, seen = collections.Counter(), set()

    def note(error: OSError) -> None:
        name = Path(error.filename).relative_to(top).as_posix()
        unreadable.append((name, error.strerror))

    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=note):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            # Reached through a link: a loop, or music that was found already.
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        place = Path(folder).relative_to(top).as_posix()
        place = "" if place == "." else f"{place}/"
        for name in names:
            if name[0] == ".":
                continue
            extension = os.path.splitext(name)[1].lower()
            if extension in AUDIO_EXTENSIONS:
                paths.append(place + name)
            elif extension in OTHER_EXTENSIONS:
                left_out.append(place + name)
            else:
                ignored[extension] += 1
    return Found(sorted(paths), unreadable, sorted(left_out), dict(ignored))


def left_out_error(path: str | os.PathLike) -> AudioError:
    """Says of a file with sound that a folder's music is without it."""
    extension = os.path.splitext(path)[1].lower()
    return AudioError(path, "other format", f"{extension} is not looked for in folders")


class Look(NamedTuple):
    """A folder at one moment, without a look into its files."""

    folder: Path
    found: Found
    keys: list[Key]  # of the audio files that are there
    missing: dict[str, AudioCheck]  # those that are listed, but are not there

    def only(self, paths: Iterable[str]) -> "Look":
        """The same of some files; what is not there is missing."""
        keys = {key[0]: key for key in self.keys}
        gone = AudioCheck(reason="missing", detail="no such file")
        return self._replace(
            found=self.found._replace(paths=list(paths)),
            keys=[keys[path] for path in paths if path in keys],
            missing={path: gone for path in paths if path not in keys},
        )

    def digest(self, settings: list) -> str:
        """A hash of all this, and of what is to be made of it."""
        found = self.found
        others = [found.unreadable, found.left_out, sorted(found.ignored.items())]
        content = [_CHECKS, settings, others, sorted(self.missing), self.keys]
        return hashlib.sha256(repr(content).encode("utf-8", "replace")).hexdigest()

    def share(self, rank: int, world: int) -> list[Key]:
        """The files of one process; a file has its place whatever is beside it."""
        places = keyed_shares((key[0] for key in self.keys), "scan") * world
        return [
            key
            for key, place in zip(self.keys, places, strict=True)
            if int(place) == rank
        ]


def look_at(data_folder: str | os.PathLike) -> Look:
    """Finds the audio files of a folder tree, with their sizes and times."""
    found, top = find_audio(data_folder), Path(data_folder)

    def stat(first: int) -> list[tuple[tuple, Key | tuple[str, str]]]:
        keys = []  # behind what tells a file from others, whatever it is called
        for path in found.paths[first : first + _LOOKED_AT_ONCE]:
            try:
                status = os.stat(f"{top}/{path}")
                identity = (status.st_dev, status.st_ino or path)
                keys.append((identity, (path, status.st_size, status.st_mtime_ns)))
            except OSError as error:
                keys.append(((path,), (path, error.strerror)))
        return keys

    keys, missing, seen = [], {}, {}
    with ThreadPool(_LOOKERS) as pool:
        for some in pool.map(stat, range(0, len(found.paths), _LOOKED_AT_ONCE)):
            for identity, key in some:
                if seen.setdefault(identity, key[0]) != key[0]:
                    continue  # a link to music that was found already
                if len(key) == len(_CACHE_KEY):
                    keys.append(key)
                else:
                    missing[key[0]] = AudioCheck(reason="missing", detail=key[1])
    if links := len(found.paths) - len(seen):
        logger.info(f"{top}: {links} files are links to others, which count once.")
        found = found._replace(paths=sorted(seen.values()))
    return Look(top, found, keys, missing)


def check_files(
    look: Look, cache_folder: Path, workers: int | None = None, progress: bool = True
) -> tuple[dict[str, AudioCheck], int]:
    """Checks audio files, from the cache where it knows them; how many it did not."""
    known, checks, todo = _known(cache_folder), dict(look.missing), []
    for key in look.keys:
        if key in known:
            checks[key[0]] = known[key]
        else:
            todo.append(key)
    cache = cache_folder / CACHE.format("")
    for key, check in _decode(look, todo, cache, workers, progress):
        checks[key[0]] = check
    return {path: checks[path] for path in look.found.paths}, len(todo)


def decode_share(
    look: Look,
    cache_folder: Path,
    rank: int,
    world: int,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[None]:
    """Decodes the share of one of several processes into the cache, file by file.

    The next run of any number of processes knows what was decoded. Gives nothing, also
    while another run decodes this share: whoever iterates has the time to do something
    in between.
    """
    name = f"-{rank}-of-{world}"
    while True:
        with locked(cache_folder, f".scan{name}.lock", wait=False) as mine:
            if mine:
                share, known = look.share(rank, world), _known(cache_folder)
                todo = [key for key in share if key not in known]
                cache = cache_folder / CACHE.format(name)
                for _ in _decode(look, todo, cache, workers, progress):
                    yield
                with open_json_lines(cache) as file:
                    append_json_line(file, {"finished": _digest(share)})
                return
        time.sleep(POLL_SECONDS)
        yield


def shares_finished(look: Look, cache_folder: Path, world: int) -> bool:
    """Whether all processes have decoded their shares of what is in a folder."""
    return all(
        any(
            line.get("finished") == _digest(look.share(rank, world))
            for line in read_json_lines(
                cache_folder / CACHE.format(f"-{rank}-of-{world}")
            )[-1:]
        )
        for rank in range(world)
    )


def _digest(keys: list[Key]) -> str:
    return hashlib.sha256(repr(keys).encode("utf-8", "replace")).hexdigest()


def _decode(
    look: Look, todo: list[Key], cache: Path, workers: int | None, progress: bool
) -> Iterator[tuple[Key, AudioCheck]]:
    """Decodes files, and appends what was found to the cache."""

    def check(key: Key) -> tuple[Key, AudioCheck]:
        return key, check_audio(look.folder / key[0])

    with (
        open_json_lines(cache) as cache_file,
        ThreadPool(workers or max(1, available_cores() // neighbours())) as pool,
        tqdm(
            total=len(todo),
            desc="Scanning audio",
            unit="file",
            disable=not (progress and todo),
        ) as bar,
    ):
        for key, result in pool.imap_unordered(check, todo):
            if not may_pass(result.reason):
                record = dict(zip(_CACHE_KEY, key, strict=True), checks=_CHECKS)
                append_json_line(cache_file, record | dataclasses.asdict(result))
            bar.update()
            yield key, result


def _known(cache_folder: Path) -> dict[Key, AudioCheck]:
    """The results of earlier scans, by any number of processes."""
    cache = {}
    for path in sorted(cache_folder.glob(CACHE.format("*"))):
        for record in read_json_lines(path):
            if record.pop("checks", None) == _CHECKS:
                key = tuple(record.pop(name) for name in _CACHE_KEY)
                cache[key] = AudioCheck(**record)
    return cache


def _last_report(manifest_folder: Path) -> dict:
    """What the last scan has written; nothing before the first."""
    path = manifest_folder / "scan.json"
    if not path.is_file():
        return {}
    report = read_json(path, "delete it, and the folder is scanned again")
    return report if isinstance(report, dict) else {}


def _fractions(
    manifest_folder: Path, files: int, valid: float | None, test: float | None
) -> tuple[float, float]:
    """Shares to validate and test on: those given, else the last ones or the usual."""
    last = _last_report(manifest_folder).get("settings", {})
    usual, shares = usual_fraction(files), []
    for part, given in (("valid", valid), ("test", test)):
        before = last.get(f"{part}_fraction")
        share = next(one for one in (given, before, usual) if one is not None)
        shares.append(share)
        if before not in (None, share):
            logger.warning(
                f"{manifest_folder}: {share:.0%} of the files are for {part}, before "
                f"{before:.0%}. Files change their parts: a model of before may have "
                f"learned from what is tested on now."
            )
        elif given is None and share != usual:
            logger.info(
                f"{manifest_folder}: {share:.0%} of the files are for {part}, as in "
                f"the last scan, so that none changes its part; {usual:.0%} are usual "
                f"for {files} files. {part}_fraction chooses."
            )
    return shares[0], shares[1]


def _report_of(manifest_folder: Path, seen: str) -> ScanReport | None:
    """The report of the last scan, if a new one would find the same."""
    parts = (manifest_folder / f"{part}.json" for part in PARTS)
    report = _last_report(manifest_folder)
    if report.get("seen") != seen or not all(part.is_file() for part in parts):
        return None
    return ScanReport(**{**report, "manifest_folder": str(manifest_folder)})


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _not_read(found: Found) -> dict[str, AudioCheck]:
    """What the quarantine lists beside the files that were looked for."""
    checks = {
        path: AudioCheck(reason="unreadable", detail=detail)
        for path, detail in found.unreadable
    }
    for path in found.left_out:
        error = left_out_error(path)
        checks[path] = AudioCheck(reason=error.reason, detail=error.detail)
    return checks


def judge(
    check: AudioCheck, min_duration: float = 1.0, silence_dbfs: float = -60.0
) -> tuple[str | None, str]:
    """The reason for leaving a file out and its detail; None for a good file."""
    if check.reason is not None:
        return check.reason, check.detail
    if check.duration < min_duration:
        detail = f"{check.duration:.3f} s, min_duration is {min_duration:g} s"
        return "too short", detail
    level = 20 * math.log10(check.peak) if check.peak > 0 else -math.inf
    if level < silence_dbfs:
        return "silent", f"peak {level:.1f} dBFS, silence_dbfs is {silence_dbfs:g}"
    return None, ""


def check_fractions(valid_fraction: float, test_fraction: float) -> None:
    """Raises UserError for shares that leave no train split."""
    if min(valid_fraction, test_fraction) < 0 or valid_fraction + test_fraction >= 1:
        raise UserError(
            "valid_fraction and test_fraction must be >= 0 and sum to less than 1, "
            f"got {valid_fraction} and {test_fraction}."
        )


def _hours(checks: Iterable[AudioCheck]) -> float:
    """Hours of audio in some files."""
    return sum(check.duration for check in checks) / 3600


def _histogram(values: Iterable[object]) -> dict[str, int]:
    """Value, as text, to count, the most frequent first."""
    counts = collections.Counter(str(value) for value in values)
    return dict(counts.most_common())


def _listed(counts: dict[str, int]) -> str:
    """Counts as text, the most frequent first."""
    pairs = collections.Counter(counts).most_common(8)
    return ", ".join(f"{name or 'no extension'}: {count}" for name, count in pairs)
