"""What may be read off frames: how an annotation becomes targets, and how it is scored.

Beats, chords and sections are one kind each, in a file of its name.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from muq_plugins.data.datasets.annotations import Intervals
from muq_plugins.errors import needs

EXTRA = "marble"
IGNORED = -1  # of a frame: it has no class

# What a metric says of one recording or clip, and how much that counts in the mean.
Scored = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class FrameKind(ABC):
    """One way to read frames and to score what was read.

    Times are seconds from the start of what is scored: a recording, or a clip.
    """

    classes: tuple[str, ...] = ()  # of the task
    metric: str = ""  # the primary one of the task, which validation chooses by

    key: ClassVar[str]  # the label of a recording that holds the annotation
    packages: ClassVar[tuple[str, ...]] = ("mir_eval",)
    by_clip: ClassVar[bool] = False  # whether each clip is scored by itself
    notes: ClassVar[tuple[str, ...]] = ()  # what a reader would not expect

    def check(self) -> None:
        """Refuses it without the packages that it needs."""
        needs(f"A task of {self.key}", EXTRA, *self.packages)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that a head gives of a frame."""

    @abstractmethod
    def truth(self, labels: Mapping[str, Any], where: str) -> Any:
        """The annotation of a recording, which has `within(begin, end)`.

        What is wrong with it is said with `where` it is.
        """

    @abstractmethod
    def targets(self, truth: Any, count: int, rate: float) -> Tensor:
        """What so many frames from the start should say (frames, ...)."""

    def end(self, truth: Any) -> float:
        """When an annotation ends; 0 where it ends with its recording."""
        return 0.0

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of frames (frames, outputs), which need not be of one recording."""

    def chosen(
        self, outputs: Sequence[np.ndarray], truths: Sequence, rate: float
    ) -> tuple[float, FrameKind]:
        """What validation reaches, and this kind with what it has chosen by that."""
        return self.reached(outputs, truths, rate), self

    def reached(self, outputs, truths, rate) -> float:
        """The primary metric of what outputs say."""
        scored = [
            self.scores(truth, self.answer(some, rate), len(some), rate)
            for truth, some in zip(truths, outputs, strict=True)
        ]
        return weighted_mean([one[self.metric] for one in scored])

    @abstractmethod
    def answer(self, outputs: np.ndarray, rate: float) -> Any:
        """What outputs (frames, outputs) say."""

    @abstractmethod
    def scores(self, truth: Any, answer: Any, count: int, rate: float) -> Scored:
        """All metrics of an answer about so many frames."""

    @abstractmethod
    def constant(self, truths: Sequence) -> Callable[[int, float], Any]:
        """The answer about so many frames of who knows the training part alone."""


class StretchKind(FrameKind):
    """Kinds whose annotation is stretches with a label: a class of every frame."""

    @abstractmethod
    def class_of(self, label: str) -> int:
        """The class of a label; -1 if it has none."""

    def end(self, truth: Intervals) -> float:
        """See `FrameKind`."""
        return float(truth.times[-1, 1]) if truth.labels else 0.0

    def frame_classes(self, truth: Intervals, count: int, rate: float) -> np.ndarray:
        """The class of every frame, -1 for none."""
        # The last one is that of no stretch.
        classes = np.array([*map(self.class_of, truth.labels), IGNORED])
        return classes[truth.at((np.arange(count) + 0.5) / rate)]

    def frames_right(
        self, truth: Intervals, answer: np.ndarray, rate: float
    ) -> tuple[float, float]:
        """The share of frames, and how many there are to be right about."""
        targets = self.frame_classes(truth, len(answer), rate)
        known = targets != IGNORED
        if not known.any():
            return 0.0, 0.0
        return float((answer == targets)[known].mean()), float(known.sum())

    def longest(self, truths: Sequence[Intervals], otherwise: int) -> int:
        """The class that lasts longest; otherwise, where none has any."""
        seconds = Counter()
        for truth in truths:
            for (begin, end), label in zip(truth.times, truth.labels, strict=True):
                seconds[self.class_of(label)] += end - begin
        del seconds[IGNORED]
        return max(seconds, key=seconds.get, default=otherwise)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of mir_eval that there is nothing to compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def weighted_mean(scored: Sequence[tuple[float, float]]) -> float:
    """Of values and their weights; NaN if nothing has one."""
    values, weights = np.array(scored, dtype=float).T
    if not weights.sum():
        return float("nan")
    return float((values * weights).sum() / weights.sum())


def peaks(curve: np.ndarray, threshold: float, reach: int) -> np.ndarray:
    """Frames that reach a threshold and are highest among so many on both sides.

    Of several that are equally high, the first.
    """
    padded = np.pad(curve, reach, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    first = windows.argmax(axis=1) == reach
    return np.flatnonzero(first & (curve >= threshold))


def widened(times: np.ndarray, count: int, rate: float, sides: Sequence[float]):
    """A curve (frames,) that is 1 in the frame of each time and lower beside it."""
    curve = np.zeros(count, dtype=np.float32)
    centre = np.floor(times * rate + 1e-6).astype(int)
    for distance, height in enumerate((1.0, *sides)):
        for at in (centre - distance, centre + distance):
            at = at[(at >= 0) & (at < count)]
            curve[at] = np.maximum(curve[at], height)
    return curve
