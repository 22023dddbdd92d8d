"""Scans a folder of music: manifests, a report, and a quarantine list.

Every file is decoded once, in threads: libsndfile works outside Python's interpreter
lock, so they scale like processes. What was found is cached. An interrupted scan goes
on where it stopped, and other thresholds or fractions need no new decoding.
"""

import collections
import dataclasses
import math
import os
from collections.abc import Iterable
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
)
from muq_plugins.data.manifest import clip_ids, manifest_entry, split_files
from muq_plugins.errors import UserError, shown
from muq_plugins.files import (
    append_json_line,
    open_json_lines,
    read_json_lines,
    write_json,
)

logger = get_logger(__name__)

# Shares of a folder to validate and to test on, and how many files they should make.
SMALLEST_FRACTION, LARGEST_FRACTION, ENOUGH_FILES = 0.05, 0.15, 10
# What can change without a change of the file is never cached.
_TRANSIENT = ("missing", "unreadable")
# Counts how often what is refused has changed; older results are not believed.
_CHECKS = 2
# A file with another size or modification time is another file.
_CACHE_KEY = ("path", "size", "mtime_ns")


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
) -> ScanReport:
    """Writes the manifests of a folder tree of music.

    Any tree of wav, flac, ogg, opus, mp3, m4a, aiff and the like, at 4 to 768 kHz and
    any number of channels. Hidden files are skipped, symbolic links followed, each
    folder once. Files left out are listed with the reason in `quarantine.json`. A
    fraction that is None is `usual_fraction` of the files that can be used. What was
    decoded is remembered in the folder of the manifests, or in `cache_folder`.
    """
    check_fractions(valid_fraction or 0.0, test_fraction or 0.0)
    found = find_audio(data_folder)
    if not found.paths and not found.unreadable:
        others = collections.Counter(found.ignored)
        others.update(os.path.splitext(path)[1].lower() for path in found.left_out)
        raise UserError(
            f"No audio in {data_folder}: looked for {', '.join(AUDIO_EXTENSIONS)} at "
            f"any depth. Other files there: {_listed(others) or 'none'}. Check "
            "data_folder, or convert them to flac."
        )
    manifest_folder = Path(manifest_folder)
    try:
        manifest_folder.mkdir(parents=True, exist_ok=True)
        cache = Path(cache_folder or manifest_folder) / "scan_cache.jsonl"
        checks, decoded = check_files(
            Path(data_folder), found.paths, cache, workers, progress
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
        usual = usual_fraction(len(usable))
        valid_fraction = usual if valid_fraction is None else valid_fraction
        test_fraction = usual if test_fraction is None else test_fraction
        ids = dict(zip(usable, clip_ids(list(usable)), strict=True))
        parts = split_files(list(usable), seed, valid_fraction, test_fraction)
        splits = {}
        for name, paths in parts.items():
            entries = {ids[path]: manifest_entry(path, usable[path]) for path in paths}
            write_json(manifest_folder / f"{name}.json", entries)
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
        )
        write_json(manifest_folder / "scan.json", dataclasses.asdict(report))
    except OSError as error:
        raise UserError(
            f"Cannot write the manifests to {manifest_folder}: {error}. Free or "
            "allow it, or choose another folder."
        ) from error
    logger.info(report.summary())
    return report


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
        for name in names:
            if name[0] == ".":
                continue
            extension = os.path.splitext(name)[1].lower()
            path = Path(folder, name).relative_to(top).as_posix()
            if extension in AUDIO_EXTENSIONS:
                paths.append(path)
            elif extension in OTHER_EXTENSIONS:
                left_out.append(path)
            else:
                ignored[extension] += 1
    return Found(sorted(paths), unreadable, sorted(left_out), dict(ignored))


def left_out_error(path: str | os.PathLike) -> AudioError:
    """Says of a file with sound that a folder's music is without it."""
    extension = os.path.splitext(path)[1].lower()
    return AudioError(path, "other format", f"{extension} is not looked for in folders")


def check_files(
    data_folder: str | os.PathLike,
    paths: Iterable[str],
    cache_path: str | os.PathLike,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[dict[str, AudioCheck], int]:
    """Checks audio files, from the cache where it knows them."""
    data_folder = Path(data_folder)
    cache = _load_cache(cache_path)
    checks, todo = {}, []
    for path in paths:
        try:
            status = os.stat(data_folder / path)
        except OSError as error:
            checks[path] = AudioCheck(reason="missing", detail=error.strerror)
            continue
        key = (path, status.st_size, status.st_mtime_ns)
        if key in cache:
            checks[path] = cache[key]
        else:
            todo.append(key)

    def check(key: tuple[str, int, int]) -> tuple[tuple[str, int, int], AudioCheck]:
        return key, check_audio(data_folder / key[0])

    with (
        open_json_lines(cache_path) as cache_file,
        ThreadPool(workers or available_cores()) as pool,
        tqdm(
            total=len(paths),
            initial=len(checks),
            desc="Scanning audio",
            unit="file",
            disable=not progress,
        ) as bar,
    ):
        for key, result in pool.imap_unordered(check, todo):
            checks[key[0]] = result
            if result.reason not in _TRANSIENT:
                record = dict(zip(_CACHE_KEY, key, strict=True), checks=_CHECKS)
                append_json_line(cache_file, record | dataclasses.asdict(result))
            bar.update()
    return {path: checks[path] for path in paths}, len(todo)


def _load_cache(
    cache_path: str | os.PathLike,
) -> dict[tuple[str, int, int], AudioCheck]:
    """The results of earlier scans: (path, size, mtime_ns) to `AudioCheck`."""
    cache = {}
    for record in read_json_lines(cache_path):
        if record.pop("checks", None) == _CHECKS:
            key = tuple(record.pop(name) for name in _CACHE_KEY)
            cache[key] = AudioCheck(**record)
    return cache


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
    check: AudioCheck, min_duration: float, silence_dbfs: float
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
    """Raises ValueError for shares that leave no train split."""
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
