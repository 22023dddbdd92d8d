"""Beats, downbeats and the tempo that follows from them.

`PickedBeats` is ours: peaks of what the head says, every recording for itself, without
its first 5 s (mir_eval). `DecodedBeats` is how both versions of MARBLE do it: a dynamic
Bayesian network makes beats of it, and all clips are counted together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from muq_plugins.data.datasets.annotations import BEATS, TEMPO, Beats
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.kinds import (
    FrameKind,
    Scored,
    peaks,
    quiet,
    weighted_mean,
    widened,
)

TOLERANCE = 0.07  # seconds
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
# What a tempo may be off, and what Acc2 allows it to be a multiple of.
TEMPO_TOLERANCE, MULTIPLES = 0.04, (1, 2, 3, 1 / 2, 1 / 3)


class BeatTruth(NamedTuple):
    """What is known of a recording."""

    beats: Beats
    tempo: float  # beats in a minute; NaN if there are too few

    def within(self, begin: float, end: float) -> BeatTruth:
        """Of a clip, with times from its start."""
        return BeatTruth(self.beats.within(begin, end), self.tempo)


class BeatAnswer(NamedTuple):
    """When beats and bars begin, in seconds."""

    beats: np.ndarray
    downbeats: np.ndarray


def tempo_of(beats: np.ndarray) -> float:
    """Beats in a minute, by the mean of what is between two; NaN if nothing tells it.

    Of all that is near the median, which alone is a whole number of frames: at 25 Hz,
    those nearest to 120 beats in a minute are 115 and 125.
    """
    if len(beats) < 2:
        return float("nan")
    steps = np.diff(beats)
    median = np.median(steps)
    near = steps[np.abs(steps - median) <= median / 4]
    # The median of two that differ is near neither.
    return 60 / float(near.mean()) if len(near) else float("nan")


def tempo_hits(tempo: float, truth: float) -> tuple[bool, bool]:
    """Acc1 and Acc2: whether a tempo is right, and whether a multiple of it is.

    No library counts them: those of mir_eval are of two tempi.
    """
    off = [abs(tempo * factor - truth) / truth for factor in MULTIPLES]
    return off[0] <= TEMPO_TOLERANCE, min(off) <= TEMPO_TOLERANCE


@dataclass(frozen=True)
class PickedBeats(FrameKind):
    """Beats are peaks, at a height that validation chooses."""

    thresholds: tuple[float, float] = (0.5, 0.5)  # of beats and of downbeats

    key: ClassVar[str] = BEATS
    sides: ClassVar[tuple[float, ...]] = (0.5,)  # of the targets, frame by frame
    notes: ClassVar[tuple[str, ...]] = (
        "Beats are peaks, the highest within 70 ms, at a height that validation "
        "chooses; downbeats are moved to the nearest beat. No network that knows "
        "tempi helps.",
        "The first 5 s of a recording are not scored, and each recording counts the "
        "same (T3); times of the annotation are not rounded to frames (T14).",
        "The tempo is that of the beats that were found: of the mean between two, "
        "without those far from the median.",
    )

    @property
    def outputs(self) -> int:
        """See `FrameKind`."""
        return 2

    def truth(self, labels: Mapping[str, Any], where: str) -> BeatTruth:
        """See `FrameKind`."""
        beats = Beats.of(labels[BEATS], where)
        tempo = labels.get(TEMPO)
        if tempo is not None and not tempo > 0:
            raise UserError(f"{where}: a tempo of {tempo} is none.")
        return BeatTruth(beats, tempo_of(beats.times) if tempo is None else tempo)

    def targets(self, truth: BeatTruth, count: int, rate: float) -> Tensor:
        """See `FrameKind`; downbeats are -1 where bars are not known."""
        beats, downbeats = truth.beats.times, truth.beats.downbeats
        found = [self._curve(times, count, rate) for times in (beats, downbeats)]
        if not truth.beats.knows_bars:
            found[1][:] = -1
        return torch.from_numpy(np.stack(found, axis=1))

    def _curve(self, times: np.ndarray, count: int, rate: float) -> np.ndarray:
        return widened(times, count, rate, self.sides)

    def end(self, truth: BeatTruth) -> float:
        """See `FrameKind`."""
        return float(truth.beats.times.max(initial=0.0))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `FrameKind`."""
        known = targets >= 0
        return binary_cross_entropy_with_logits(outputs[known], targets[known])

    def chosen(self, outputs, truths, rate):
        """See `FrameKind`."""
        found, thresholds = [], []
        chances = [expit(some) for some in outputs]
        for column in (0, 1):
            # The tempo is that of the beats with the best F.
            reached = {
                height: self._reached(chances, truths, rate, column, height)
                for height in THRESHOLDS
            }
            best = max(reached, key=lambda height: np.nan_to_num(reached[height]))
            thresholds.append(best)
            found.append(reached[best])
        kind = replace(self, thresholds=tuple(thresholds))
        if self.metric == "beat_f":
            return found[0], kind
        if self.metric == "downbeat_f":
            return found[1], kind
        return kind.reached(outputs, truths, rate), kind

    def _reached(self, chances, truths, rate, column, height) -> float:
        scored = []
        for some, truth in zip(chances, truths, strict=True):
            beats = truth.beats
            reference = beats.downbeats if column else beats.times
            if column and not beats.knows_bars:
                continue
            picked = _picked(some[:, column], height, rate)
            scored.append(_f_measure(reference, picked))
        return weighted_mean(scored) if scored else float("nan")

    def answer(self, outputs: np.ndarray, rate: float) -> BeatAnswer:
        """See `FrameKind`."""
        chances = expit(outputs)
        beats, downbeats = (
            _picked(chances[:, column], height, rate)
            for column, height in enumerate(self.thresholds)
        )
        if len(beats) and len(downbeats):
            nearest = np.abs(beats[:, None] - downbeats[None]).argmin(axis=0)
            downbeats = beats[np.unique(nearest)]
        return BeatAnswer(beats, downbeats)

    def scores(self, truth: BeatTruth, answer: BeatAnswer, count, rate) -> Scored:
        """See `FrameKind`."""
        import mir_eval

        beats, bars = truth.beats.times, truth.beats.downbeats
        with quiet():
            pair = [mir_eval.beat.trim_beats(one) for one in (beats, answer.beats)]
            _, cmlt, _, amlt = mir_eval.beat.continuity(*pair)
        there = float(len(pair[0]) > 1)
        known = float(truth.beats.knows_bars)
        value, weight = _f_measure(bars, answer.downbeats)
        hits, tempo = (False, False), tempo_of(answer.beats)
        if not np.isnan([tempo, truth.tempo]).any():
            hits = tempo_hits(tempo, truth.tempo)
        has_tempo = float(not np.isnan(truth.tempo))
        return {
            "beat_f": _f_measure(beats, answer.beats),
            "downbeat_f": (value, weight * known),
            "beat_cmlt": (cmlt, there),
            "beat_amlt": (amlt, there),
            "tempo_acc1": (float(hits[0]), has_tempo),
            "tempo_acc2": (float(hits[1]), has_tempo),
        }

    def constant(self, truths: Sequence[BeatTruth]):
        """Beats at the median tempo of the training part, in bars of its median."""
        tempi = [truth.tempo for truth in truths if not np.isnan(truth.tempo)]
        step = 60 / float(np.median(tempi)) if tempi else 0.5
        bars = [truth.beats.positions.max() for truth in truths if len(truth.beats[0])]
        bar = max(1, int(np.median(bars or [4])))

        def answer(count: int, rate: float) -> BeatAnswer:
            beats = np.arange(0, count / rate, step)
            return BeatAnswer(beats, beats[::bar])

        return answer


def _picked(chances: np.ndarray, height: float, rate: float) -> np.ndarray:
    """Middles of the frames that are highest within the tolerance, in seconds."""
    reach = max(1, int(TOLERANCE * rate))
    return (peaks(chances, height, reach) + 0.5) / rate


def _f_measure(truth: np.ndarray, answer: np.ndarray) -> tuple[float, float]:
    """F without the first 5 s; of no weight if nothing is left to find."""
    import mir_eval

    truth, answer = map(mir_eval.beat.trim_beats, (truth, answer))
    if not len(truth):
        return 0.0, 0.0
    with quiet():
        return float(mir_eval.beat.f_measure(truth, answer, TOLERANCE)), 1.0


@dataclass(frozen=True)
class DecodedBeats(PickedBeats):
    """As both versions of MARBLE do it, with the network of madmom."""

    packages: ClassVar[tuple[str, ...]] = ("mir_eval", "madmom_infer")
    by_clip: ClassVar[bool] = True
    sides: ClassVar[tuple[float, ...]] = (0.5, 0.25)
    notes: ClassVar[tuple[str, ...]] = (
        "Beats of all clips are counted together (T9), with a tolerance of 70 ms, "
        "though the paper says 20 ms, and from the first second on (T3).",
        "Downbeats are decoded as beats are, at 55 to 215 a minute (T4), and what "
        "stops a training is F of the beats.",
        "Times of the annotation are rounded to frames before they are compared (T14).",
        "The network is that of madmom-infer, a reimplementation of madmom, whose "
        "copy MARBLE uses.",
    )

    def _curve(self, times: np.ndarray, count: int, rate: float) -> np.ndarray:
        return widened(np.round(times * rate) / rate, count, rate, self.sides)

    def chosen(self, outputs, truths, rate):
        """Nothing is chosen; what stops a training is F of the beats."""
        scored = []
        for some, truth in zip(outputs, truths, strict=True):
            beats = _decoded(expit(some[:, 0]), rate)
            scored.append(_pooled(truth.beats.times, beats, len(some), rate))
        return weighted_mean(scored), self

    def answer(self, outputs: np.ndarray, rate: float) -> BeatAnswer:
        """See `FrameKind`."""
        return BeatAnswer(*(_decoded(expit(column), rate) for column in outputs.T))

    def scores(self, truth: BeatTruth, answer: BeatAnswer, count, rate) -> Scored:
        """See `FrameKind`."""
        known = float(truth.beats.knows_bars)
        value, weight = _pooled(truth.beats.downbeats, answer.downbeats, count, rate)
        return {
            "beat_f": _pooled(truth.beats.times, answer.beats, count, rate),
            "downbeat_f": (value, weight * known),
        }


@dataclass(frozen=True)
class FirstBeats(DecodedBeats):
    """As MARBLE v1 does it, which scores beats alone."""

    sides: ClassVar[tuple[float, ...]] = (0.5,)
    notes: ClassVar[tuple[str, ...]] = (DecodedBeats.notes[0], *DecodedBeats.notes[2:])


def _decoded(chances: np.ndarray, rate: float) -> np.ndarray:
    """What the network makes of a curve, in seconds.

    A bar of one beat is how it tracks beats alone: every beat is a downbeat then.
    """
    curves = np.stack([np.full_like(chances, 1e-30), chances], axis=1)
    return _network(rate)(curves.astype(np.float64))[:, 0]


@lru_cache
def _network(rate: float):
    from madmom_infer.features.downbeats import DBNDownBeatTrackingProcessor

    return DBNDownBeatTrackingProcessor(
        beats_per_bar=[1],
        min_bpm=55,
        max_bpm=215,
        num_tempi=None,
        fps=rate,
        threshold=0,
    )


def _pooled(truth, answer, count: int, rate: float) -> tuple[float, float]:
    """F of rounded times, which the sum of both numbers weighs.

    The mean with these weights is F of the sums of all counts.
    """
    import mir_eval

    pair = []
    for times in (truth, answer):
        frames = np.unique(np.round(times * rate).astype(int))
        pair.append(frames[(frames >= 0) & (frames < count)] / rate)
    both = len(pair[0]) + len(pair[1])
    if not all(map(len, pair)):
        return 0.0, float(both)
    matched = mir_eval.util.match_events(*pair, TOLERANCE)
    return 2 * len(matched) / both, float(both)
