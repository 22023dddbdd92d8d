"""How an experiment file says where labels come from.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from speechbrain.utils.logger import get_logger

from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.extraction import Throughput, extract_labels
from muq_plugins.data.labels.reading import LabelSet
from muq_plugins.data.labels.targets import ComputedTarget, StoredTarget
from muq_plugins.data.labels.windows import LabelWindows
from muq_plugins.data.preparation import Manifests
from muq_plugins.lobes.target import Target

logger = get_logger(__name__)


@dataclass
class ComputedLabels:
    """Labels that are computed during training, whenever they are needed.

    Arguments
    ---------
    window_seconds : float
        Each frame is labelled in one window of its track, this long.
    context_seconds : float
        What is heard on either side of a window in addition.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames
    >>> target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 64))
    >>> entry = {"a": {"wav": "a.wav", "duration": 2.0}}
    >>> manifests = Manifests(Path("."), entry, entry, entry)
    >>> ComputedLabels(4.0, 1.0).target_for(target, manifests).num_codebooks
    2
    """

    window_seconds: float
    context_seconds: float

    def target_for(self, target: Target, manifests: Manifests) -> ComputedTarget:
        """The target to train on.

        Arguments
        ---------
        target : Target
            Trained features and quantizer.
        manifests : Manifests
            The corpus.

        Returns
        -------
        ComputedTarget
            The same codes as `StoredLabels` gives with the same windows.
        """
        windows = LabelWindows.in_seconds(
            target, self.window_seconds, self.context_seconds
        )
        return ComputedTarget(target, windows, all_clips(manifests))


@dataclass
class StoredLabels:
    """Labels that are extracted once, and read during training.

    Arguments
    ---------
    folder : str or Path
        Where they are kept.
    window_seconds : float
        Each frame is labelled in one window of its track, this long.
    context_seconds : float
        What is heard on either side of a window in addition.
    shard_minutes : float
        Audio in a shard, the unit of work of an extraction.
    latents : bool
        Whether an extraction stores what was quantized as well.
    stale_seconds : float
        After how long without a sign of life a worker's shard is taken over.
    max_bad_fraction : float
        Share of files that may turn out unreadable.

    Example
    -------
    >>> StoredLabels("results/labels", 4.0, 1.0).shard_minutes
    30.0
    """

    folder: str | Path
    window_seconds: float
    context_seconds: float
    shard_minutes: float = 30.0
    latents: bool = False
    stale_seconds: float = 60.0
    max_bad_fraction: float = 0.01

    def extract(self, target: Target, manifests: Manifests) -> Throughput:
        """Does a share of the extraction, and returns when it is complete.

        Arguments
        ---------
        target : Target
            Trained features and quantizer, on the device that computes.
        manifests : Manifests
            The corpus.

        Returns
        -------
        Throughput
            What this process has done.
        """
        return extract_labels(
            self.folder,
            target,
            self._windows(target),
            all_clips(manifests),
            self.shard_minutes,
            self.latents,
            self.stale_seconds,
            self.max_bad_fraction,
        )

    def target_for(self, target: Target, manifests: Manifests) -> StoredTarget:
        """The target to train on; what is not labelled yet is labelled first.

        Arguments
        ---------
        target : Target
            Trained features and quantizer, on the device that computes.
        manifests : Manifests
            The corpus.

        Returns
        -------
        StoredTarget
            Codes from the folder.
        """
        logger.info(f"Labels in {self.folder}: {self.extract(target, manifests)}.")
        windows, clips = self._windows(target), all_clips(manifests)
        description = describe(target, windows, clips, self.shard_minutes, self.latents)
        return StoredTarget(target, windows, LabelSet(self.folder, clips, description))

    def _windows(self, target: Target) -> LabelWindows:
        return LabelWindows.in_seconds(
            target, self.window_seconds, self.context_seconds
        )


def all_clips(manifests: Manifests) -> dict:
    """The clips of all parts of a corpus.

    Arguments
    ---------
    manifests : Manifests
        The parts; a clip may be in two of them.

    Returns
    -------
    dict
        Clip id to entry.

    Raises
    ------
    ValueError
        If two clips have the same id.

    Example
    -------
    >>> entry = {"wav": "a.wav", "duration": 2.0}
    >>> list(all_clips(Manifests(Path("."), {"a": entry}, {"b": entry}, {"b": entry})))
    ['a', 'b']
    """
    clips: dict = {}
    for part in (manifests.train, manifests.valid, manifests.test):
        for clip_id, entry in part.items():
            if clips.setdefault(clip_id, entry)["wav"] != entry["wav"]:
                raise ValueError(
                    f"Two clips have the id {clip_id}: {clips[clip_id]['wav']} and "
                    f"{entry['wav']}. Ids must differ across the parts of a corpus."
                )
    return clips
