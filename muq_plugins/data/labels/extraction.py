"""Extraction: processes that label a fixed share of a corpus each, and the final check.

A shard is on the disk whole or not at all, so whoever is started again, among any
number of processes, labels what is missing of its share.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from speechbrain.utils.logger import get_logger

from muq_plugins.data.audio import AudioError, may_pass
from muq_plugins.data.labels.description import agree, describe
from muq_plugins.data.labels.shards import (
    CODES,
    LATENTS,
    VERIFIED_FILE,
    Shard,
    check_size,
    damaged,
    plan_shards,
    writing,
)
from muq_plugins.data.labels.windows import LabelWindows, track_samples
from muq_plugins.data.shares import are_together, own_share, work_together
from muq_plugins.data.sources import hash_file
from muq_plugins.errors import UserError
from muq_plugins.files import POLL_SECONDS, locked, sweep, write_json
from muq_plugins.lobes.target import Target

logger = get_logger(__name__)

RECOMPUTED = 8  # windows, spread over the corpus
# Another device may round otherwise, which changes a code now and then. Labels that are
# off by a frame agree on far fewer.
AGREEMENT = 0.95


@dataclass
class Throughput:
    """What one process has done: shards that it finished, and how long it took."""

    shards: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    complete: bool = False  # whether there is nothing left to do for others either

    def __str__(self):
        speed = self.audio_seconds / max(self.seconds, 1e-9)
        return (
            f"{self.shards} shards, {self.audio_seconds / 3600:.1f} hours of audio in "
            f"{self.seconds / 3600:.2f} h: {speed:.1f} hours per hour and process"
        )


def extract_labels(
    folder: str | Path,
    windows: LabelWindows,
    manifest: dict,
    shard_minutes: float = 30.0,
    latents: bool = False,
    max_bad_fraction: float = 0.01,
    share: tuple[int, int] | None = None,
) -> Throughput:
    """Labels what is missing of a share, and verifies the labels once all are there.

    The share is a number and how many there are; None takes it from `own_share`.
    Processes that train together wait for each other. Others end when their share is
    done: the last one verifies.
    """
    folder, (rank, world) = Path(folder), share or own_share()
    description = describe(windows, manifest, shard_minutes, latents)
    description = agree(folder, description, create=True)
    shards, done = plan_shards(folder, manifest, description), Throughput()

    def work() -> Iterator[None]:
        for shard in shards[rank::world]:
            if not shard.index.is_file():
                started = time.monotonic()
                yield from _label_shard(shard, windows, manifest, latents)
                done.shards += 1
                done.seconds += time.monotonic() - started
                done.audio_seconds += sum(
                    manifest[clip]["duration"] for clip in shard.clips
                )

    verified = folder / VERIFIED_FILE
    if verified.is_file() and not all(shard.index.is_file() for shard in shards):
        verified.unlink()  # a damaged shard was deleted, as its error says
    if not verified.is_file():  # else the folder may be read-only
        # Who was started twice does nothing twice.
        with locked(folder, f".share-{rank}-of-{world}.lock", say=logger.warning):
            work_together(work())
        while any(not shard.index.is_file() for shard in shards):
            if not are_together():
                return done
            time.sleep(POLL_SECONDS)  # a shared disk shows new files late
        with locked(folder):
            if not verified.is_file():
                verify(folder, windows, manifest, description, max_bad_fraction)
    done.complete = True
    return done


def _label_shard(
    shard: Shard, windows: LabelWindows, manifest: dict, latents: bool
) -> Iterator[None]:
    """Labels the tracks of one shard, one after another."""
    target = windows.target
    size = target.features.output_size if latents else None
    with writing(shard, target.num_codebooks, size) as writer:
        for clip_id in shard.clips:
            yield
            path = manifest[clip_id]["wav"]
            samples = track_samples(manifest[clip_id], windows.sample_rate)
            spans = windows.spans(samples)
            try:
                for span in spans:
                    codes, feats = windows.labels(path, samples, span)
                    writer.add(codes.numpy(), feats.numpy())
            except AudioError as error:
                if may_pass(error.reason):
                    raise UserError(
                        f"{error} Then run the same command again: it keeps what is "
                        "labelled."
                    ) from error
                logger.warning(f"No labels: {error}")
                writer.fail_clip(clip_id, error.reason)
                continue
            writer.end_clip(clip_id, spans[-1][1], samples, path)


def verify(
    folder: Path,
    windows: LabelWindows,
    manifest: dict,
    description: dict[str, Any],
    max_bad_fraction: float,
) -> None:
    """Checks a complete set of labels, and notes that it was checked.

    Every file has its size and its hash; every clip is in one shard, once, and has as
    many frames as its audio; the frames of a shard follow one another without a gap;
    codes are below the size of the codebooks; and windows that are computed again, from
    clips all over the corpus, have the labels that are stored at their times.
    """
    shards = plan_shards(folder, manifest, description)
    place: dict[str, tuple[Shard, dict]] = {}
    failures: dict[str, str] = {}
    frames = 0
    for shard in shards:
        index = shard.load(windows.target.num_codebooks)
        _check_files(shard, index, windows.target, description["latent_size"])
        _check_clips(shard, index, windows, manifest)
        place.update({clip: (shard, row) for clip, row in index["clips"].items()})
        failures.update(index["failures"])
        frames += index["frames"]
    if len(failures) > max_bad_fraction * len(manifest):
        listed = ", ".join(
            f"{clip} ({why})" for clip, why in list(failures.items())[:5]
        )
        raise UserError(
            f"{len(failures)} of {len(manifest)} clips have no labels, more than "
            f"max_bad_fraction {max_bad_fraction:g} allows: {listed}. Repair the files "
            f"or scan the data folder again, delete {folder} and extract anew."
        )
    clips = list(place)
    for number in range(min(RECOMPUTED, len(clips))):
        clip = clips[number * len(clips) // min(RECOMPUTED, len(clips))]
        shard, row = place[clip]
        _recompute(shard, row, number, windows, manifest[clip]["wav"])
    locks = list(folder.glob(".share-*.lock"))
    sweep(folder, locks)  # other numbers of processes may do the same work
    for path in locks:
        path.unlink(missing_ok=True)
    write_json(
        folder / VERIFIED_FILE,
        {
            "clips": len(clips),
            "failures": failures,
            "frames": frames,
            "shards": len(shards),
        },
    )


def _check_files(
    shard: Shard, index: dict, target: Target, latent_size: int | None
) -> None:
    """Size and hash of the data files, and the range of the codes."""
    paths = [shard.codes]
    if latent_size is not None:
        check_size(shard.latents, index["frames"] * latent_size * LATENTS.itemsize)
        paths.append(shard.latents)
    for path in paths:
        if hash_file(path, hashlib.sha256()) != index["sha256"][path.suffix[1:]]:
            raise damaged(path, "was changed after it was written")
    codes = np.fromfile(shard.codes, CODES)
    if codes.size and codes.max() >= target.codebook_size:
        words = f"holds {codes.max()}, but codes are below {target.codebook_size}"
        raise damaged(shard.codes, words)


def _check_clips(
    shard: Shard, index: dict, windows: LabelWindows, manifest: dict
) -> None:
    """Each clip of the shard once, with the frames of its audio, without gaps."""
    failures, expected, first = index["failures"], {}, 0
    for clip_id in shard.clips:
        if clip_id not in failures:
            samples = track_samples(manifest[clip_id], windows.sample_rate)
            frames = samples // windows.frame_samples
            expected[clip_id] = (first, frames, samples)
            first += frames
    found = {
        clip_id: (row["first"], row["frames"], row["samples"])
        for clip_id, row in index["clips"].items()
    }
    wrong = [clip for clip in failures if clip not in shard.clips] + [
        f"{clip} (frame, frames, samples: {found.get(clip)}, not {expected.get(clip)})"
        for clip in {**expected, **found}
        if found.get(clip) != expected.get(clip)
    ]
    if wrong or index["frames"] != first:
        words = f"does not cover the {first} frames of its clips exactly once"
        raise damaged(shard.index, ": ".join([words, ", ".join(wrong[:5])]))


def _recompute(
    shard: Shard, row: dict, number: int, windows: LabelWindows, path: str
) -> None:
    """Compares the labels of one window of a clip with what they should be."""
    spans = windows.spans(row["samples"])
    span = spans[number % len(spans)]
    codes, _ = windows.labels(path, row["samples"], span)
    if not len(codes):
        return  # shorter than a frame
    shape = (row["frames"], codes.shape[1])
    offset = row["first"] * codes.shape[1] * CODES.itemsize
    stored = np.memmap(shard.codes, CODES, "r", offset, shape)[slice(*span)]
    share = float((stored == codes.numpy()).mean())
    if share < AGREEMENT:
        words = (
            f"holds labels of {path}, of which from frame {span[0]} to {span[1]} only "
            f"{share:.1%} are what the tokenizer says now: the audio may have changed"
        )
        raise damaged(shard.codes, words)
