"""Build the embedded corpus: real compositions, rendered from pip packages alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from muq_plugins.data.corpus.pieces import SPLITS, check_collections, find_pieces
from muq_plugins.data.corpus.rendered import AUDIO, RenderedFolder
from muq_plugins.data.corpus.schedule import SplitSchedule
from muq_plugins.data.corpus.takes import TAKE_FILES, make_clips_in_worker
from muq_plugins.data.scan import available_cores
from muq_plugins.errors import UserError

logger = get_logger(__name__)

_MOST_WORKERS = 8


def build_corpus(
    folder: str | os.PathLike,
    minutes: float = 60.0,
    seed: int = 1234,
    workers: int | None = None,
    progress: bool = True,
    collections: Sequence[str] | None = None,
) -> Path:
    """Render music to train and test on, with labels, from pip packages alone.

    Compositions from music21 are played on the soundfont of pretty_midi, in seeded
    arrangements: instruments, tempo, transposition and dynamics. The folder then has
    `train.json`, `valid.json` and `test.json` (manifests whose `{data_root}` is the
    folder), the audio (24 kHz mono FLAC, about 1.5 MB a minute), the notes that are
    played (standard MIDI files beside it) and `corpus.json` (what it was made with and
    what is in it).

    A composition is in one split only, whatever the size and the seed. The same
    arguments and package versions give the same files bit for bit, with any number
    of workers. What is finished is not made again: a build that was interrupted goes
    on, a complete corpus is returned at once. Let one process call it at a time.
    """
    settings = _check_settings(minutes, seed, workers, collections)
    rendered = RenderedFolder(
        Path(folder, "corpus.json"),
        "the embedded corpus",
        settings,
        packages=("music21", "pretty_midi"),
        format=3,
        suffixes=TAKE_FILES,
    )
    if rendered.is_complete():
        return rendered.folder
    rendered.begin()
    manifests = _render(rendered.folder, settings, workers, progress)
    _remove_strays(rendered.folder, manifests)
    summary = {split: _summarise(manifests[split]) for split in SPLITS}
    rendered.finish(manifests, splits=summary)
    for split, counts in summary.items():
        logger.info(
            f"Corpus {folder}, {split}: {counts['clips']} clips of "
            f"{counts['pieces']} pieces, {counts['minutes']:.1f} minutes."
        )
    return rendered.folder


def _check_settings(
    minutes: float, seed: int, workers: int | None, collections: Sequence[str] | None
) -> dict:
    if not minutes > 0:
        raise UserError(f"minutes is {minutes}: the corpus needs more than 0.")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: give at least 1, or None.")
    settings = {"minutes": float(minutes), "seed": int(seed)}
    if collections is None:  # records from before there was a choice stay valid
        return settings
    return {**settings, "collections": check_collections(collections)}


def _render(
    folder: Path, settings: dict, workers: int | None, progress: bool
) -> dict[str, dict]:
    """Make clips in rounds until every split is long enough; give the manifests."""
    pieces = find_pieces(settings.get("collections"))
    schedules = {
        split: SplitSchedule(split, pieces, settings["minutes"], settings["seed"])
        for split in SPLITS
    }
    manifests: dict[str, dict] = {split: {} for split in SPLITS}
    with (
        _parallel(workers or min(available_cores(), _MOST_WORKERS)) as parallel,
        tqdm(
            total=settings["minutes"],
            desc="Rendering corpus",
            bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} min [{elapsed}<{remaining}]",
            disable=not progress,
        ) as bar,
    ):
        while visits := [v for s in schedules.values() for v in s.next_visits()]:
            clips = parallel(
                delayed(make_clips_in_worker)(
                    visit, folder, settings["seed"], os.getpid()
                )
                for visit in visits
            )
            for visit, entries in zip(visits, clips, strict=True):
                schedule, manifest = schedules[visit.split], manifests[visit.split]
                for clip_id, entry in zip(visit.clip_ids, entries, strict=True):
                    if schedule.accept(visit.piece.work, entry["duration"]):
                        manifest[clip_id] = entry
                        minutes = entry["duration"] / 60.0
                        bar.total = max(bar.total, bar.n + minutes)
                        bar.update(minutes)
    return manifests


@contextmanager
def _parallel(workers: int) -> Iterator[Parallel]:
    """Processes that start afresh, which is safe with torch, with one thread each."""
    try:
        with (
            parallel_config(backend="loky", inner_max_num_threads=1),
            Parallel(workers, return_as="generator") as parallel,
        ):
            yield parallel
    finally:
        # They would stay for minutes, each with music21 in memory.
        if workers > 1:
            get_reusable_executor().shutdown(kill_workers=True)


def _summarise(manifest: dict) -> dict:
    """What a split holds."""
    entries = manifest.values()
    return {
        "clips": len(entries),
        "pieces": len({entry["piece"] for entry in entries}),
        "minutes": round(sum(entry["duration"] for entry in entries) / 60.0, 3),
        "families": dict(sorted(Counter(entry["family"] for entry in entries).items())),
    }


def _remove_strays(folder: Path, manifests: dict[str, dict]) -> None:
    """Remove clips beyond the size."""
    wanted = {clip_id for manifest in manifests.values() for clip_id in manifest}
    for path in (folder / AUDIO).glob("*-take*"):
        if path.stem not in wanted:
            path.unlink()
