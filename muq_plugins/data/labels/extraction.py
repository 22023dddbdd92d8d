"""Extraction: one worker of any number that label a corpus together.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

from speechbrain.utils.logger import get_logger

from muq_plugins.data.audio import AudioError
from muq_plugins.data.labels.claims import POLL_SECONDS, ClaimFolder
from muq_plugins.data.labels.description import agree, describe
from muq_plugins.data.labels.shards import Shard, ShardWriter, plan_shards
from muq_plugins.data.labels.verification import VERIFIED_FILE, verify
from muq_plugins.data.labels.windows import LabelWindows, track_samples, window_labels
from muq_plugins.lobes.target import Target

logger = get_logger(__name__)


@dataclass
class Throughput:
    """What one worker has done.

    Arguments
    ---------
    shards : int
        Work items that it finished.
    audio_seconds : float
        Audio in them.
    seconds : float
        Time that it worked on them.

    Example
    -------
    >>> print(Throughput(2, 7200.0, 3600.0))
    2 shards, 2.0 hours of audio in 1.00 h: 2.0 hours per hour and worker
    """

    shards: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0

    def __str__(self):
        speed = self.audio_seconds / max(self.seconds, 1e-9)
        return (
            f"{self.shards} shards, {self.audio_seconds / 3600:.1f} hours of audio in "
            f"{self.seconds / 3600:.2f} h: {speed:.1f} hours per hour and worker"
        )


def extract_labels(
    folder: str | Path,
    target: Target,
    windows: LabelWindows,
    manifest: dict,
    shard_minutes: float = 30.0,
    latents: bool = False,
    stale_seconds: float = 60.0,
    max_bad_fraction: float = 0.01,
) -> Throughput:
    """Labels what nobody has labelled yet, until everything is labelled and verified.

    Any number of processes, on any number of machines, may run this at the same time
    with the same arguments; none of them needs to know of the others. It returns in all
    of them when the labels are complete.

    Arguments
    ---------
    folder : str or Path
        Where the labels go; the only thing that the workers share.
    target : Target
        Features and quantizer, on the device that computes.
    windows : LabelWindows
        How tracks are cut.
    manifest : dict
        Clip id to entry.
    shard_minutes : float
        Audio in a shard, the unit of work.
    latents : bool
        Whether to store the features as well, as 16-bit floats.
    stale_seconds : float
        After how long without a sign of life a worker's shard is taken over.
    max_bad_fraction : float
        Share of files that may turn out unreadable.

    Returns
    -------
    Throughput
        What this worker did.

    Raises
    ------
    LabelError
        If the folder holds other labels, or they do not stand the final check.
    """
    folder = Path(folder)
    description = describe(target, windows, manifest, shard_minutes, latents)
    agree(folder, description, create=True)
    shards = plan_shards(folder, manifest, shard_minutes)
    claims = ClaimFolder(folder, stale_seconds)
    done = Throughput()
    # Workers begin at different places, so that they do not queue for the same claims.
    begin = os.getpid() % len(shards)
    while pending := [shard for shard in shards if not shard.index.is_file()]:
        progress = False
        for shard in itertools.chain(pending[begin:], pending[:begin]):
            claim = claims.take(shard.name)
            if claim is None:
                continue
            try:
                # Somebody may have finished it between the look and the claim.
                if not shard.index.is_file():
                    started = time.monotonic()
                    _label_shard(shard, target, windows, manifest, latents, claim)
                    done.shards += 1
                    done.seconds += time.monotonic() - started
                    done.audio_seconds += sum(
                        manifest[clip]["duration"] for clip in shard.clips
                    )
                    progress = True
            finally:
                claim.release()
        if not progress:
            time.sleep(POLL_SECONDS)
    with claims.alone("verification"):
        if not (folder / VERIFIED_FILE).is_file():
            verify(folder, target, windows, manifest, description, max_bad_fraction)
    return done


def _label_shard(
    shard: Shard,
    target: Target,
    windows: LabelWindows,
    manifest: dict,
    latents: bool,
    claim,
) -> None:
    """Labels the tracks of one shard."""
    size = target.features.output_size if latents else None
    with ShardWriter(shard, target.num_codebooks, size) as writer:
        for clip_id in shard.clips:
            entry = manifest[clip_id]
            samples = track_samples(entry, target.sample_rate)
            spans = windows.spans(samples)
            try:
                for span in spans:
                    codes, feats = window_labels(
                        target, windows, entry["wav"], samples, span
                    )
                    writer.add(codes.numpy(), feats.numpy())
            except AudioError as error:
                logger.warning(f"No labels: {error}")
                writer.fail_clip(clip_id, error.reason)
                continue
            writer.end_clip(clip_id, spans[-1][1], samples, entry["wav"])
        # After a long sleep it may be somebody else's, who is as far or farther.
        if claim.in_force():
            writer.publish()
