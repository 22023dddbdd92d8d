"""Sections: what a stretch of a song is, and where one ends.

The head says of each frame which section it is of, and whether one begins there. Both
are scored: the share of time with the right name, and boundaries and groupings as
mir_eval does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy.special import expit, log_softmax
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from muq_plugins.data.datasets.annotations import SECTIONS, Intervals
from muq_plugins.evaluation.marble.kinds import (
    IGNORED,
    Scored,
    StretchKind,
    peaks,
    quiet,
    weighted_mean,
    widened,
)

THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
# Two boundaries are never nearer, in seconds.
APART = 3.0
# What is nearer than this to a boundary is a boundary too, but less and less.
BLURRED = 0.5
WINDOWS = {"hit_rate_05": 0.5, "hit_rate_3": 3.0}


class SectionAnswer(NamedTuple):
    """What is said of a recording."""

    frames: np.ndarray  # the class of every frame
    stretches: Intervals


@dataclass(frozen=True)
class Sections(StretchKind):
    """The sections of a recording."""

    threshold: float = 0.5  # of a boundary

    key: ClassVar[str] = SECTIONS
    notes: ClassVar[tuple[str, ...]] = (
        "The accuracy is that of single frames, which are not smoothed. Boundaries are "
        "peaks, 3 s apart at least, at a height that validation chooses; a stretch "
        "between two is what most likely all of its frames are.",
        "Hit rates are F within 0.5 s and 3 s, without the first and the last "
        "boundary, which everybody knows; with them they are higher, and given too "
        "(T22).",
    )

    @property
    def outputs(self) -> int:
        """See `FrameKind`."""
        return len(self.classes) + 1

    def truth(self, labels: Mapping[str, Any], where: str) -> Intervals:
        """See `FrameKind`."""
        return Intervals.of(labels[SECTIONS], where)

    def targets(self, truth: Intervals, count: int, rate: float) -> Tensor:
        """The class of each frame, -1 for none, and how much one begins there."""
        classes = self.frame_classes(truth, count, rate)
        inner = truth.times[1:, 0]
        sides = 1 - np.arange(1, int(BLURRED * rate) + 1) / (BLURRED * rate + 1)
        begins = widened(inner, count, rate, sides)
        return torch.from_numpy(np.stack([classes, begins], axis=1).astype(np.float32))

    def class_of(self, label: str) -> int:
        """See `StretchKind`."""
        return self.classes.index(label) if label in self.classes else IGNORED

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `FrameKind`."""
        classes = targets[:, 0].long()
        loss = binary_cross_entropy_with_logits(outputs[:, -1], targets[:, 1])
        if (classes != IGNORED).any():
            logits = outputs[:, :-1]
            loss = loss + cross_entropy(logits, classes, ignore_index=IGNORED)
        return loss

    def chosen(self, outputs, truths, rate):
        """See `FrameKind`; the height of a boundary is chosen by hits within 3 s."""
        if self.metric == "section_accuracy":
            scored = [
                self._accuracy(truth, some[:, :-1].argmax(axis=1), rate)
                for truth, some in zip(truths, outputs, strict=True)
            ]
            return weighted_mean(scored), self._with_height(outputs, truths, rate)[1]
        return self._with_height(outputs, truths, rate)

    def _with_height(self, outputs, truths, rate) -> tuple[float, Sections]:
        name = self.metric if self.metric in WINDOWS else "hit_rate_3"
        reached = {}
        for height in THRESHOLDS:
            kind, scored = replace(self, threshold=height), []
            for truth, some in zip(truths, outputs, strict=True):
                pair = _both(truth, kind._stretches(some, rate), len(some) / rate)
                scored.append(_hits(*pair, WINDOWS[name], trim=True))
            reached[height] = weighted_mean(scored)
        best = max(reached, key=lambda height: np.nan_to_num(reached[height]))
        return reached[best], replace(self, threshold=best)

    def answer(self, outputs: np.ndarray, rate: float) -> SectionAnswer:
        """See `FrameKind`."""
        frames = outputs[:, :-1].argmax(axis=1)
        return SectionAnswer(frames, self._stretches(outputs, rate))

    def _stretches(self, outputs: np.ndarray, rate: float) -> Intervals:
        reach = max(1, round(APART * rate))
        inner = peaks(expit(outputs[:, -1]), self.threshold, reach)
        edges = np.array([0, *inner[inner > 0], len(outputs)])
        said = log_softmax(outputs[:, :-1], axis=1)
        labels = [
            self.classes[said[begin:end].sum(axis=0).argmax()]
            for begin, end in zip(edges[:-1], edges[1:], strict=True)
        ]
        return Intervals(np.stack([edges[:-1], edges[1:]], axis=1) / rate, labels)

    def _accuracy(self, truth, frames, rate) -> tuple[float, float]:
        """Of a recording, each of which counts the same."""
        share, known = self.frames_right(truth, frames, rate)
        return share, float(known > 0)

    def scores(self, truth: Intervals, answer: SectionAnswer, count, rate) -> Scored:
        """See `FrameKind`."""
        right = self._accuracy(truth, answer.frames, rate)
        pair = _both(truth, answer.stretches, count / rate)
        return {"section_accuracy": right, **compared(*pair)}

    def constant(self, truths: Sequence[Intervals]):
        """One stretch of what the training part has most of."""
        longest = self.longest(truths, 0)

        def answer(count: int, rate: float) -> SectionAnswer:
            times, name = np.array([[0.0, count / rate]]), self.classes[longest]
            return SectionAnswer(np.full(count, longest), Intervals(times, [name]))

        return answer


def compared(known: Intervals, said: Intervals) -> Scored:
    """What mir_eval says of two that begin and end together."""
    import mir_eval

    scored = {}
    for name, window in WINDOWS.items():
        scored[name] = _hits(known, said, window, trim=True)
        scored[f"{name}_untrimmed"] = _hits(known, said, window, trim=False)
    pair = known.times, known.labels, said.times, said.labels
    with quiet():
        scored["section_pairwise"] = float(mir_eval.segment.pairwise(*pair)[2]), 1.0
        scored["section_v"] = float(mir_eval.segment.vmeasure(*pair)[2]), 1.0
    return scored


def _both(truth: Intervals, answer: Intervals, seconds: float):
    """Both from start to end of what was heard; a gap is of what is before it."""
    cut = truth.within(0.0, seconds)
    if not len(cut.labels):
        return Intervals(np.array([[0.0, seconds]]), [""]), answer
    ends = [*cut.times[1:, 0], seconds]
    times = np.stack([[0.0, *cut.times[1:, 0]], ends], axis=1)
    return Intervals(times, cut.labels), answer


def _hits(truth: Intervals, answer: Intervals, window: float, trim: bool):
    """F of the boundaries; of no weight if there is none to find."""
    import mir_eval

    if trim and len(truth.labels) < 2:
        return 0.0, 0.0
    with quiet():
        found = mir_eval.segment.detection(truth.times, answer.times, window, trim=trim)
    return float(found[2]), 1.0
