"""Pitches: which notes sound at every time, as the file says that was played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from muq_plugins.data.datasets.annotations import numbers
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.kinds import FrameKind, Scored
from muq_plugins.evaluation.probing.frame_labels import NOTES, sounding
from muq_plugins.evaluation.scores import clip_precision

# Times in a second that are scored: neighbouring frames say nearly the same.
SCORED = 5.0


class Notes(NamedTuple):
    """Notes of a recording: begin and end in seconds, and the MIDI pitch."""

    rows: np.ndarray  # (notes, 3)

    def within(self, begin: float, end: float) -> Notes:
        """Of a clip, with times from its start."""
        there = (self.rows[:, 0] < end) & (self.rows[:, 1] > begin)
        return Notes(self.rows[there] - (begin, begin, 0.0))

    def sounding(self, times: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Which of some pitches sound when (times, classes)."""
        return sounding(self.rows, times)[:, [int(name) for name in classes]]


@dataclass(frozen=True)
class Pitches(FrameKind):
    """The pitches that sound; a class is the number of one in MIDI."""

    key: ClassVar[str] = NOTES
    packages: ClassVar[tuple[str, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = (
        "Every recording counts the same: within it, pairs of a time and a pitch are "
        f"ranked, {SCORED:g} times a second.",
    )

    @property
    def outputs(self) -> int:
        """See `FrameKind`."""
        return len(self.classes)

    def truth(self, labels: Mapping[str, Any], where: str) -> Notes:
        """See `FrameKind`."""
        rows = np.array([numbers(row, 3, where) for row in labels[NOTES]], dtype=float)
        rows = rows.reshape(-1, 3)
        if len(wrong := rows[(rows[:, 2] < 0) | (rows[:, 2] > 127)]):
            raise UserError(
                f"{where}: {wrong[0, 2]:g} is no MIDI pitch, which is 0 to 127. A note "
                "is its begin and end in seconds, and its pitch."
            )
        return Notes(rows)

    def targets(self, truth: Notes, count: int, rate: float) -> Tensor:
        """See `FrameKind`."""
        times = (np.arange(count) + 0.5) / rate
        return torch.from_numpy(truth.sounding(times, self.classes)).float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `FrameKind`."""
        return binary_cross_entropy_with_logits(outputs, targets)

    def answer(self, outputs: np.ndarray, rate: float) -> np.ndarray:
        """How much each pitch is heard."""
        return outputs

    def scores(self, truth: Notes, answer: np.ndarray, count, rate) -> Scored:
        """See `FrameKind`."""
        at = np.arange(0.5, count, max(1.0, rate / SCORED)).astype(int)
        sounds = truth.sounding((at + 0.5) / rate, self.classes)
        if not sounds.any():
            return {"clip_precision": (0.0, 0.0)}
        return {"clip_precision": (clip_precision(sounds, answer[at]), 1.0)}

    def constant(self, truths: Sequence[Notes]):
        """The pitches by how long they sound in the training part."""
        rows = np.concatenate([one.rows for one in truths])
        every = np.bincount(rows[:, 2].astype(int), rows[:, 1] - rows[:, 0], 128)
        seconds = every[[int(name) for name in self.classes]]
        return lambda count, rate: np.broadcast_to(seconds, (count, len(seconds)))
