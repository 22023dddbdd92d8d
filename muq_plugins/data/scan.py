"""Scans a folder of music: manifests, a report, and a quarantine list.

Every file is decoded once; what was found is cached, see `scan_files`. An
interrupted scan goes on where it stopped, and other thresholds or fractions need
no new decoding.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import collections
import contextlib
import dataclasses
import math
from pathlib import Path

from speechbrain.utils.logger import get_logger

from muq_plugins.data.audio import AUDIO_EXTENSIONS
from muq_plugins.data.jsonio import write_json
from muq_plugins.data.manifest import clip_ids, manifest_entry, split_files
from muq_plugins.data.scan_files import check_files, find_audio

logger = get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class ScanReport:
    """What a scan found; saved as `scan.json`.

    Arguments
    ---------
    data_folder : str
        The folder that was scanned.
    manifest_folder : str
        Where `train.json`, `valid.json`, `test.json`, `quarantine.json` and
        `scan.json` are.
    files : int
        Audio files found.
    usable : int
        Files in the manifests.
    hours : float
        Hours of audio in the manifests.
    splits : dict
        Split name to {"files": int, "hours": float}.
    sample_rates : dict
        Rate in Hz, as text, to number of usable files.
    channels : dict
        Channels, as text, to number of usable files.
    formats : dict
        Container and encoding to number of usable files.
    quarantined : dict
        Reason to number of files left out.
    ignored : dict
        Extension to number of files that are not audio by their name.
    decoded : int
        Files decoded by this scan; the others were in the cache.
    settings : dict
        Thresholds, fractions and seed of the scan.

    Example
    -------
    >>> import numpy, soundfile
    >>> root = getfixture("tmpdir")
    >>> for i in range(4):
    ...     soundfile.write(str(root / f"{i}.wav"), numpy.full(48000, 0.5), 24000)
    >>> report = scan_folder(root, root / "manifests", progress=False)
    >>> report.usable, report.sample_rates
    (4, {'24000': 4})
    """

    data_folder: str
    manifest_folder: str
    files: int
    usable: int
    hours: float
    splits: dict
    sample_rates: dict
    channels: dict
    formats: dict
    quarantined: dict
    ignored: dict
    decoded: int
    settings: dict

    def summary(self):
        """The report in a few lines of text.

        Returns
        -------
        str
            For the log.
        """
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
    data_folder,
    manifest_folder,
    min_duration=1.0,
    valid_fraction=0.05,
    test_fraction=0.05,
    silence_dbfs=-60.0,
    workers=None,
    seed=1234,
    progress=True,
):
    """Writes the manifests of a folder tree of music.

    Any tree of wav, flac, ogg, opus, mp3 and aiff, at any rate and number of
    channels. Hidden files are skipped, symbolic links followed, each folder once.
    Files left out are listed with the reason in `quarantine.json`.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        The music.
    manifest_folder : str or pathlib.Path
        Where to write, made if needed.
    min_duration : float
        Shorter files are left out, in seconds.
    valid_fraction : float
        Share of the files in valid, see `split_files`.
    test_fraction : float
        Share of the files in test.
    silence_dbfs : float
        Files whose downmix never exceeds this level are left out, in dBFS.
    workers : int, optional
        Threads; as many as this process may use cores when None.
    seed : int
        Seed of the split.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ScanReport
        The content of `scan.json`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If the data folder is missing or a file.
    ValueError
        If it holds no audio, nothing usable, or an argument is out of range.
    OSError
        If the manifest folder cannot be written.

    Example
    -------
    >>> import numpy, soundfile
    >>> root = getfixture("tmpdir")
    >>> for i in range(4):
    ...     soundfile.write(str(root / f"{i}.wav"), numpy.full(48000, 0.5), 24000)
    >>> report = scan_folder(root, root / "manifests", progress=False)
    >>> {name: split["files"] for name, split in report.splits.items()}
    {'train': 2, 'valid': 1, 'test': 1}
    """
    _check_fractions(valid_fraction, test_fraction)
    paths, unreadable, ignored = find_audio(data_folder)
    if not paths and not unreadable:
        raise ValueError(
            f"No audio in {data_folder}: looked for {', '.join(AUDIO_EXTENSIONS)} at "
            f"any depth. Other files there: {_listed(ignored) or 'none'}. Check "
            "data_folder, or convert them to flac."
        )
    manifest_folder = Path(manifest_folder)
    with _writing(manifest_folder):
        manifest_folder.mkdir(parents=True, exist_ok=True)
        checks, decoded = check_files(
            Path(data_folder),
            paths,
            manifest_folder / "scan_cache.jsonl",
            workers,
            progress,
        )
        usable, quarantine = _sort_out(checks, min_duration, silence_dbfs)
        quarantine.extend(
            {"path": path, "reason": "unreadable", "detail": detail}
            for path, detail in unreadable
        )
        reasons = collections.Counter(entry["reason"] for entry in quarantine)
        write_json(manifest_folder / "quarantine.json", quarantine)
        if not usable:
            raise ValueError(
                f"None of the {len(paths)} audio files in {data_folder} can be used: "
                f"{_listed(reasons)}. Each is listed with its reason in "
                f"{manifest_folder / 'quarantine.json'}."
            )
        splits = split_files(list(usable), seed, valid_fraction, test_fraction)
        _write_manifests(manifest_folder, usable, splits)
        report = ScanReport(
            data_folder=str(data_folder),
            manifest_folder=str(manifest_folder),
            files=len(paths),
            usable=len(usable),
            hours=_hours(usable.values()),
            splits={
                name: {
                    "files": len(split),
                    "hours": _hours(usable[path] for path in split),
                }
                for name, split in splits.items()
            },
            sample_rates=_histogram(check.sample_rate for check in usable.values()),
            channels=_histogram(check.channels for check in usable.values()),
            formats=_histogram(f"{c.format} {c.subtype}" for c in usable.values()),
            quarantined=dict(reasons),
            ignored=ignored,
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
    logger.info(report.summary())
    return report


def _sort_out(checks, min_duration, silence_dbfs):
    """Divides checked files into usable ones and entries of the quarantine list."""
    usable, quarantine = {}, []
    for path, check in checks.items():
        reason, detail = _judge(check, min_duration, silence_dbfs)
        if reason is None:
            usable[path] = check
        else:
            quarantine.append({"path": path, "reason": reason, "detail": detail})
    return usable, quarantine


def _judge(check, min_duration, silence_dbfs):
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


def _write_manifests(manifest_folder, usable, splits):
    """Writes train.json, valid.json and test.json."""
    ids = dict(zip(usable, clip_ids(list(usable)), strict=True))
    for name, paths in splits.items():
        entries = {
            ids[path]: manifest_entry(
                path,
                usable[path].duration,
                usable[path].sample_rate,
                usable[path].channels,
            )
            for path in paths
        }
        write_json(manifest_folder / f"{name}.json", entries)


@contextlib.contextmanager
def _writing(manifest_folder):
    """Says which folder could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"Cannot write the manifests to {manifest_folder}: {error}. Free or "
            "allow it, or choose another folder."
        ) from error


def _check_fractions(valid_fraction, test_fraction):
    """Raises ValueError for shares that leave no train split."""
    if min(valid_fraction, test_fraction) < 0 or valid_fraction + test_fraction >= 1:
        raise ValueError(
            "valid_fraction and test_fraction must be >= 0 and sum to less than 1, "
            f"got {valid_fraction} and {test_fraction}."
        )


def _hours(checks):
    """Hours of audio in some files."""
    return sum(check.duration for check in checks) / 3600


def _histogram(values):
    """Value, as text, to count, the most frequent first."""
    counts = collections.Counter(str(value) for value in values)
    return dict(counts.most_common())


def _listed(counts):
    """Counts as text, the most frequent first."""
    pairs = collections.Counter(counts).most_common(8)
    return ", ".join(f"{name or 'no extension'}: {count}" for name, count in pairs)
