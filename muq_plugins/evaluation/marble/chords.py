"""Chords: 24 triads or none, frame by frame.

`Chords` is ours: what is said of a recording is compared with all of its chords by
mir_eval, which weighs them by how long they last and leaves out what a measure does not
know. `ShippedChords` is how MARBLE v2 does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from muq_plugins.data.datasets.annotations import CHORDS, Intervals
from muq_plugins.data.datasets.chords import TRIADS
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.kinds import (
    IGNORED,
    Scored,
    StretchKind,
    quiet,
    weighted_mean,
)

NO_CHORD, UNKNOWN = "N", "X"
# Comparisons of mir_eval; the first is the primary one.
MEASURES = ("majmin", "root", "thirds", "triads", "sevenths", "mirex")


@cache
def chord_class(label: str) -> int:
    """The class of a chord as Harte writes it, by what mir_eval takes for the same."""
    import mir_eval

    same = mir_eval.chord.majmin([label] * len(TRIADS), TRIADS)
    return int(same.argmax()) if same.max() > 0 else IGNORED


@dataclass(frozen=True)
class Chords(StretchKind):
    """The chord of a recording at every time."""

    key: ClassVar[str] = CHORDS
    notes: ClassVar[tuple[str, ...]] = (
        "Answers are major and minor triads or none, frame by frame and not smoothed; "
        "frames of other chords are not trained on. Sevenths therefore has a ceiling "
        "below 100%: no answer has one.",
        "Every recording counts the same; within it, chords count by how long they "
        "last. What a measure does not know (X, and for majmin all but major and "
        "minor) does not count.",
    )

    @property
    def outputs(self) -> int:
        """See `FrameKind`."""
        return len(TRIADS)

    def truth(self, labels: Mapping[str, Any], where: str) -> Intervals:
        """See `FrameKind`."""
        import mir_eval

        found = Intervals.of(labels[CHORDS], where)
        for label in dict.fromkeys(found.labels):
            try:
                mir_eval.chord.encode(label)
            except mir_eval.chord.InvalidChordException as error:
                raise UserError(
                    f"{where}: {label!r} is no chord as Harte writes them ({error})."
                ) from error
        return found

    def targets(self, truth: Intervals, count: int, rate: float) -> Tensor:
        """See `FrameKind`; -1 is not trained on."""
        return torch.from_numpy(self.frame_classes(truth, count, rate))

    def class_of(self, label: str) -> int:
        """See `StretchKind`."""
        return chord_class(label)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `FrameKind`."""
        if (targets == IGNORED).all():
            return 0 * outputs.sum()
        return cross_entropy(outputs, targets, ignore_index=IGNORED)

    def chosen(self, outputs, truths, rate):
        """The share of frames stands for the measures, which take long."""
        scored = [
            self.frames_right(truth, some.argmax(axis=1), rate)
            for truth, some in zip(truths, outputs, strict=True)
        ]
        return weighted_mean(
            [(value, float(weight > 0)) for value, weight in scored]
        ), self

    def answer(self, outputs: np.ndarray, rate: float) -> np.ndarray:
        """The class of every frame."""
        return outputs.argmax(axis=1)

    def scores(self, truth: Intervals, answer: np.ndarray, count, rate) -> Scored:
        """See `FrameKind`."""
        known, said = _whole(truth, count / rate), _stretches(answer, rate)
        right = self.frames_right(truth, answer, rate)
        return {"frame_accuracy": right, **compared(known, said)}

    def constant(self, truths: Sequence[Intervals]):
        """The chord that sounds longest in the training part."""
        most = self.longest(truths, TRIADS.index(NO_CHORD))
        return lambda count, rate: np.full(count, most)


def compared(known: Intervals, said: Intervals) -> Scored:
    """What mir_eval says of two that begin and end together."""
    import mir_eval

    scored = {}
    intervals, truths, answers = mir_eval.util.merge_labeled_intervals(
        known.times, known.labels, said.times, said.labels
    )
    seconds = mir_eval.util.intervals_to_durations(intervals)
    with quiet():
        for name in MEASURES:
            right = getattr(mir_eval.chord, name)(truths, answers)
            value = mir_eval.chord.weighted_accuracy(right, seconds)
            weight = float(seconds[right >= 0].sum())
            scored[f"chord_{name}"] = float(value), float(weight > 0)
            if name == MEASURES[0]:
                scored[f"chord_{name}_total"] = float(value), weight
    return scored


def _stretches(answer: np.ndarray, rate: float) -> Intervals:
    """From the class of every frame to chords that last."""
    begins = np.flatnonzero(np.diff(answer, prepend=-1))
    ends = np.append(begins[1:], len(answer))
    labels = [TRIADS[answer[at]] for at in begins]
    return Intervals(np.stack([begins, ends], axis=1) / rate, labels)


def _whole(truth: Intervals, seconds: float) -> Intervals:
    """The annotation from start to end of what was heard, X where it has none."""
    times, labels, reached = [], [], 0.0
    cut = truth.within(0.0, seconds)
    for (begin, end), label in zip(cut.times, cut.labels, strict=True):
        if begin > reached:
            times.append((reached, begin))
            labels.append(UNKNOWN)
        if end > reached:
            times.append((max(begin, reached), end))
            labels.append(label)
            reached = end
    if reached < seconds:
        times.append((reached, seconds))
        labels.append(UNKNOWN)
    return Intervals(np.array(times), labels)


@dataclass(frozen=True)
class ShippedChords(Chords):
    """As MARBLE v2 does it, its fault with it."""

    by_clip: ClassVar[bool] = True
    notes: ClassVar[tuple[str, ...]] = (
        "The share of frames of all clips together, of 24 triads and none (T9); frames "
        "of other chords do not count.",
        "Where no chord sounds, but not at the start of a clip, the chord before it is "
        "taken for the truth, in training and test (T5).",
        "Silence after the end of a song is neither trained on nor scored; v2 does "
        "both, with the last chord.",
    )

    def frame_classes(self, truth: Intervals, count: int, rate: float) -> np.ndarray:
        """See `StretchKind`."""
        targets = super().frame_classes(truth, count, rate)
        none = TRIADS.index(NO_CHORD)
        before = none  # until a chord has begun
        for at, found in enumerate(targets.tolist()):
            before = targets[at] = before if found == none else found
        return targets

    def chosen(self, outputs, truths, rate):
        """The share of frames is the metric itself."""
        return self.reached(outputs, truths, rate), self

    def scores(self, truth: Intervals, answer: np.ndarray, count, rate) -> Scored:
        """See `FrameKind`."""
        return {"frame_accuracy": self.frames_right(truth, answer, rate)}
