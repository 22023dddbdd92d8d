"""The final check of labels: complete, each clip once, aligned with its audio.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from muq_plugins.data.jsonio import write_json
from muq_plugins.data.labels.errors import LabelError
from muq_plugins.data.labels.shards import (
    CODES,
    LATENTS,
    Shard,
    check_size,
    hash_file,
    plan_shards,
)
from muq_plugins.data.labels.windows import LabelWindows, track_samples, window_labels
from muq_plugins.lobes.target import Target

VERIFIED_FILE = "verified.json"
RECOMPUTED = 8  # windows, spread over the corpus
# Another device may round otherwise, which changes a code now and then. Labels that are
# off by a frame agree on far fewer.
AGREEMENT = 0.95


def verify(
    folder: Path,
    target: Target,
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

    Arguments
    ---------
    folder : Path
        The folder of the labels.
    target : Target
        What they were computed with.
    windows : LabelWindows
        How tracks were cut.
    manifest : dict
        Clip id to entry.
    description : dict
        From `describe`.
    max_bad_fraction : float
        Share of files that may be unreadable.

    Raises
    ------
    LabelError
        If anything is wrong; the file is named.
    """
    shards = plan_shards(folder, manifest, description["shard_minutes"])
    place: dict[str, tuple[Shard, dict]] = {}
    failures: dict[str, str] = {}
    frames = 0
    for shard in shards:
        index = shard.load(target.num_codebooks)
        _check_files(shard, index, target, description["latent_size"])
        _check_clips(shard, index, windows, manifest, target)
        place.update({clip: (shard, row) for clip, row in index["clips"].items()})
        failures.update(index["failures"])
        frames += index["frames"]
    if len(failures) > max_bad_fraction * len(manifest):
        listed = ", ".join(
            f"{clip} ({why})" for clip, why in list(failures.items())[:5]
        )
        raise LabelError(
            f"{len(failures)} of {len(manifest)} clips have no labels, more than "
            f"max_bad_fraction {max_bad_fraction:g} allows: {listed}. Repair the files "
            f"or scan the data folder again, delete {folder} and extract anew."
        )
    clips = list(place)
    for number in range(min(RECOMPUTED, len(clips))):
        clip = clips[number * len(clips) // min(RECOMPUTED, len(clips))]
        _recompute(clip, *place[clip], number, target, windows, manifest)
    for path in folder.glob("*.partial"):
        path.unlink(missing_ok=True)  # of workers that were killed
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
        if hash_file(path) != index["sha256"][path.suffix[1:]]:
            raise LabelError(
                f"{path} was changed after it was written: its hash is not that in "
                f"{shard.index}. Delete both and run extract_labels.py again."
            )
    codes = np.fromfile(shard.codes, CODES)
    if codes.size and codes.max() >= target.codebook_size:
        raise LabelError(
            f"{shard.codes} holds the code {codes.max()}, but the codebooks have "
            f"{target.codebook_size} entries."
        )


def _check_clips(
    shard: Shard, index: dict, windows: LabelWindows, manifest: dict, target: Target
) -> None:
    """Each clip of the shard once, with the frames of its audio, without gaps."""
    covered = [*index["clips"], *index["failures"]]
    if sorted(covered) != sorted(shard.clips):
        wrong = sorted(set(covered) ^ set(shard.clips))[:5]
        raise LabelError(
            f"{shard.index} does not cover its clips exactly once: {', '.join(wrong)} "
            "differ. Delete it and run extract_labels.py again."
        )
    expected = 0
    for clip_id, row in index["clips"].items():
        samples = track_samples(manifest[clip_id], target.sample_rate)
        frames = samples // windows.frame_samples
        if (row["first"], row["frames"], row["samples"]) != (expected, frames, samples):
            raise LabelError(
                f"{shard.index}: {clip_id} has {row['frames']} frames from "
                f"{row['first']} on for {row['samples']} samples, expected {frames} "
                f"from {expected} on for {samples}. Delete it and run "
                "extract_labels.py again."
            )
        expected += frames
    if index["frames"] != expected:
        raise LabelError(
            f"{shard.index} promises {index['frames']} frames, its clips have "
            f"{expected}. Delete it and run extract_labels.py again."
        )


def _recompute(
    clip_id: str,
    shard: Shard,
    row: dict,
    number: int,
    target: Target,
    windows: LabelWindows,
    manifest: dict,
) -> None:
    """Compares the labels of one window of a clip with what they should be."""
    path, samples = manifest[clip_id]["wav"], row["samples"]
    spans = windows.spans(samples)
    span = spans[number % len(spans)]
    codes, _ = window_labels(target, windows, path, samples, span)
    if not len(codes):
        return  # shorter than a frame
    shape = (row["frames"], target.num_codebooks)
    offset = row["first"] * target.num_codebooks * CODES.itemsize
    stored = np.memmap(shard.codes, CODES, "r", offset, shape)[slice(*span)]
    share = float((stored == codes.numpy()).mean())
    if share < AGREEMENT:
        raise LabelError(
            f"{shard.codes}: of the labels of {path} from {span[0]} to {span[1]} only "
            f"{share:.1%} are what the tokenizer says now. Has the audio changed? "
            f"Delete {shard.index} and run extract_labels.py again."
        )
