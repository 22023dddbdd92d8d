"""What a task of MARBLE is: data set, label, clips, metric, aggregation, scores.

Its data set reads the folder as users have it after the official download
(`muq_plugins.data.datasets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from muq_plugins.data.datasets import emomusic
from muq_plugins.data.datasets.annotations import TEMPO
from muq_plugins.data.datasets.tagged import PARTS, Labelled, Sheet, TaggedClip
from muq_plugins.errors import UserError
from muq_plugins.evaluation.kept import digest
from muq_plugins.evaluation.marble.kinds import FrameKind
from muq_plugins.evaluation.probing.clips import Clip

PAPER = "MARBLE paper, constrained track"
MUQ = "MuQ paper"


class Recipe(NamedTuple):
    """How a version of MARBLE has set up one task."""

    clip_seconds: float
    most_clips: int = 10_000  # of a recording
    layers: int | Literal["all"] = "all"  # the one that v2 reads
    lr: float = 1e-3
    batch_size: int = 64
    max_epochs: int = 50
    patience: int = 20  # epochs without a better score
    plateau: tuple[float, int] = (0.5, 5)  # factor and patience of the learning rate
    # of the clips of a recording: the mean of "probabilities" or of "outputs"; or None
    aggregate: str | None = "outputs"
    chosen_by: str | None = None  # the metric in validation; None: the primary one
    metric: str | None = None  # the primary one, if it is not that of the task
    # of tasks of frames, whose clips are what an update is made of
    frames: FrameKind | None = None
    # what is left over at the end is a clip from this share on, with silence after it;
    # 0 for whole recordings: from a half on, as it is
    least: float = 0.0
    most_updates: int | None = None  # of an epoch; None: it hears all clips


@dataclass(frozen=True)
class MarbleTask:
    """A label of a data set, and how it is scored."""

    name: str  # in commands and files
    title: str
    sheet: Sheet  # of the data set
    read: Callable[[Path], Labelled]
    kind: Literal["single", "multi", "numbers", "frames"]
    metric: str  # the primary one, of `muq_plugins.evaluation.scores`
    clip_seconds: float  # of `corrected`
    v1: Recipe | None  # None: v1 has no such task
    v2: Recipe | None  # None: v2 has no such task
    # model -> metrics in percent, by who has published them
    published: Mapping[str, Mapping[str, Mapping[str, float]]] = field(
        default_factory=dict
    )
    # why the constrained track's numbers are not comparable with ours of v1; None if
    # they are
    differs: str | None = None
    frames: FrameKind | None = None  # of `corrected`, for tasks of frames
    most_clips: int = 10_000  # of a recording, under `corrected`
    most_rate: float | None = None  # frames in a second that are enough for it


class Opened(NamedTuple):
    """A task with the recordings that are there."""

    task: MarbleTask
    recordings: list[Clip]
    # of every recording: numbers of classes, 0 and 1, numbers, or its annotation
    targets: np.ndarray | list
    labelled: Labelled
    left_out: list[dict[str, str]]

    @property
    def split(self) -> str:
        """A hash of what is in which part with which label."""
        if self.task.frames is None:
            targets = self.targets.tolist()
        else:
            targets = [self.annotation(at) for at in range(len(self.recordings))]
        rows = [
            [one.name, one.part, target]
            for one, target in zip(self.recordings, targets, strict=True)
        ]
        return digest([self.labelled.classes, sorted(rows)])

    def annotation(self, place: int) -> list:
        """What is known of the frames of a recording, as JSON keeps it."""
        labels = self.recordings[place].labels
        return [labels[self.task.frames.key], labels.get(TEMPO)]


def open_task(
    task: MarbleTask, folder: str | Path, leave_out_missing: bool = False
) -> Opened:
    """Finds every recording of a task, or says what is missing and where it is from."""
    try:
        labelled = task.read(Path(folder))
        found, left_out = labelled.found(leave_out_missing)
        recordings = [
            Clip(clip.path, str(path), info.duration, clip.part, clip.labels)
            for clip, path, info in found
        ]
        for part in PARTS:
            if not any(one.part == part for one in recordings):
                raise UserError(f"No recording of the part {part!r} is there.")
        if task.frames is not None:
            truths = [task.frames.truth(one.labels, one.name) for one in recordings]
    except UserError as error:
        raise task.sheet.lacks(folder, str(error)) from error
    if task.frames is not None:
        return Opened(task, recordings, truths, labelled, left_out)
    targets = _targets(task, [clip for clip, *_ in found], labelled.classes)
    return Opened(task, recordings, targets, labelled, left_out)


def _targets(task: MarbleTask, clips: list[TaggedClip], classes) -> np.ndarray:
    if task.kind == "numbers":
        return np.array([clip.labels[emomusic.VALUES] for clip in clips])
    places = {name: number for number, name in enumerate(classes)}
    if task.kind == "single":
        return np.array([places[clip.tags[0]] for clip in clips])
    targets = np.zeros((len(clips), len(classes)))
    for row, clip in zip(targets, clips, strict=True):
        row[[places[name] for name in clip.tags]] = 1
    return targets


def percents(metrics: str, **models: str) -> dict[str, dict[str, float]]:
    """Scores of models, written as the papers do: 91.1/39.5."""
    names = metrics.split("/")
    return {
        model.replace("_", "-"): dict(
            zip(names, map(float, numbers.split("/")), strict=True)
        )
        for model, numbers in models.items()
    }
