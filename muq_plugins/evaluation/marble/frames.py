"""Tasks of frames: heads that read single frames, and answers about recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from muq_plugins.evaluation.kept import digest
from muq_plugins.evaluation.marble.kinds import FrameKind, weighted_mean
from muq_plugins.evaluation.marble.protocols import Plan
from muq_plugins.evaluation.marble.reading import Reading, groups_of
from muq_plugins.evaluation.marble.task import Opened
from muq_plugins.evaluation.probing.clips import ProbeError
from muq_plugins.evaluation.probing.readers import LayerReader
from muq_plugins.evaluation.probing.store import Stored


class FramePart(NamedTuple):
    """The frames of one part of a task, and what is scored of them."""

    x: Stored
    clips: list[slice]  # rows that follow each other and are heard together in training
    targets: Tensor  # of the rows (rows, ...)
    units: list[slice]  # rows of what is scored: a recording, or a clip
    truths: list[Any]  # the annotation of each
    groups: list[str]
    key: str  # hash of the annotations


def frame_part(
    opened: Opened, x: Stored, whose: np.ndarray, places: np.ndarray, plan: Plan
) -> FramePart:
    """Frames of some recordings with what they should say."""
    kind = of_task(plan, opened.labelled.classes)
    length = max(1, round(plan.recipe.clip_seconds * x.rate))
    rows, clips, units, truths, owners, targets = [], [], [], [], [], []
    first = 0
    for place in places:
        rows.append(np.flatnonzero(whose == place))
        count = len(rows[-1])
        cuts = [
            (begin, min(begin + length, count)) for begin in range(0, count, length)
        ]
        for begin, end in cuts if kind.by_clip else [(0, count)]:
            its = opened.targets[place].within(begin / x.rate, end / x.rate)
            targets.append(kind.targets(its, end - begin, x.rate))
            units.append(slice(first + begin, first + end))
            truths.append(its)
            owners.append(place)
        clips += [slice(first + begin, first + end) for begin, end in cuts]
        first += count
    groups = groups_of(opened, owners)
    x = x.at(np.concatenate(rows))
    key = digest([opened.annotation(place) for place in places])
    return FramePart(x, clips, torch.cat(targets), units, truths, groups, key)


def of_task(plan: Plan, classes: Sequence[str]) -> FrameKind:
    """The kind of frames of a plan, with what is known of the task."""
    return replace(plan.frames, classes=tuple(classes), metric=plan.metric)


class Clips:
    """Rows of some clips, one clip after another."""

    def __init__(self, rows: Stored | Tensor, clips: Sequence[slice]):
        self.rows, self.clips = rows, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, numbers: Tensor) -> Tensor:
        """All rows of the clips of these numbers."""
        return torch.cat([self.rows[self.clips[at]] for at in numbers.tolist()])


class FrameReading(Reading):
    """What changes within a recording is read off its frames."""

    @cached_property
    def kind(self) -> FrameKind:
        """The kind of frames, with what is known of the task."""
        return of_task(self.plan, self.classes)

    def about(self, part: FramePart) -> list:
        """See `Reading`."""
        spans = [[one.start, one.stop] for one in (*part.clips, *part.units)]
        return [spans, part.groups, part.key]

    def training(self, x: Stored):
        """See `Reading`."""
        part = self.parts["train"]
        return (
            Clips(x, part.clips),
            Clips(part.targets, part.clips),
            self.kind.loss,
        )

    def reached(self, reader: LayerReader, x: Stored) -> float:
        """See `Reading`."""
        return self._chosen(reader, x)[0]

    def _chosen(self, reader: LayerReader, x: Stored) -> tuple[float, FrameKind]:
        valid = self.parts["valid"]
        return self.kind.chosen(self._outputs(reader, x, valid), valid.truths, x.rate)

    def tested(self, reader: LayerReader, x: Mapping[str, Stored]):
        """Values and weights (what is scored, 2) of the primary metric; all metrics."""
        test, rate = self.parts["test"], x["test"].rate
        _, kind = self._chosen(reader, x["valid"])
        outputs = self._outputs(reader, x["test"], test)
        scored, means = self._scored("test", [kind.answer(x, rate) for x in outputs])
        return np.array([one[self.plan.metric] for one in scored]), means

    def _scored(self, part: str, answers: list) -> tuple[list, dict[str, float]]:
        """What each answer is worth, and all metrics that there are answers for."""
        its = self.parts[part]
        scored = [
            self.kind.scores(truth, answer, unit.stop - unit.start, its.x.rate)
            for truth, answer, unit in zip(its.truths, answers, its.units, strict=True)
        ]
        means = {
            name: weighted_mean([one[name] for one in scored]) for name in scored[0]
        }
        return scored, {name: x for name, x in means.items() if not np.isnan(x)}

    @property
    def outputs(self) -> int:
        """See `Reading`."""
        return self.kind.outputs

    def constant(self) -> float:
        """See `Reading`; refuses a part in which there is nothing to find."""
        answer = self.kind.constant(self.parts["train"].truths)
        for part in ("valid", "test"):
            its = self.parts[part]
            answers = [answer(u.stop - u.start, its.x.rate) for u in its.units]
            value = self._scored(part, answers)[1].get(self.plan.metric)
            if value is None:
                raise ProbeError(
                    f"{self.task.name}: there is nothing to score {self.plan.metric} "
                    f"on in the {part} part ({len(its.truths)} recordings): they are "
                    "too short, or their annotations lack it."
                )
        return value

    @torch.no_grad()
    def _outputs(
        self, reader: LayerReader, x: Stored, part: FramePart
    ) -> list[np.ndarray]:
        """What the head says of the frames of everything that is scored."""
        return [reader(x[unit]).numpy() for unit in part.units]
