"""Doing tasks of MARBLE: features once, then probes on the CPU, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from muq_plugins.data.manifest import PARTS
from muq_plugins.evaluation.marble.frames import FrameReading, frame_part
from muq_plugins.evaluation.marble.protocols import Protocol
from muq_plugins.evaluation.marble.reading import ClipReading, Reading, clip_part
from muq_plugins.evaluation.marble.task import MarbleTask, Opened
from muq_plugins.evaluation.probing.clips import ProbeError, check_seeds
from muq_plugins.evaluation.probing.features import Extractor
from muq_plugins.evaluation.probing.results import (
    TaskResult,
    mean_of_initialisations,
    resampled,
)
from muq_plugins.evaluation.probing.store import about_encoders, features_of_all

# What an annotation may go on after a recording, in seconds.
LATE = 2.0


def marble_task(
    opened: Opened,
    encoders: Mapping[str, Sequence[Extractor]],
    protocol: Protocol,
    seeds: Sequence[int],
    features_folder: str | Path,
    batch_size: int = 8,
    progress: bool = False,
) -> TaskResult:
    """One task on several encoders; the first one is compared with the others.

    Several extractors of one name are initialisations, of which the mean is taken. What
    takes long is kept in the folder of the features.
    """
    check_seeds(seeds)
    task, plan = opened.task, protocol.plan(opened.task)
    where = features_folder, batch_size, task.name, progress
    read = features_of_all(encoders, opened.recordings, plan.cutting, *where)
    every = [whose for several in read.values() for _, whose in several]
    usable = set.intersection(*(set(whose.tolist()) for whose in every))
    places = {part: _places(opened, part, usable) for part in PARTS}
    is_frames = plan.frames is not None
    reading, make = ClipReading, clip_part
    if is_frames:
        reading, make = FrameReading, frame_part
    rows, predictions, first = [], {}, None
    # Matrices of clips are so small that threads wait for each other.
    with nullcontext() if is_frames else threadpool_limits(1):
        for name, several in read.items():
            initialisations = []
            for stored, whose in several:
                parts = {
                    part: make(opened, stored, whose, places[part], plan)
                    for part in PARTS
                }
                about = name, parts, opened.labelled.classes, list(seeds)
                its = reading(task, protocol, plan, *about)
                if first is None:
                    first, constant = its, its.constant()
                _same_units(first, its)
                initialisations.append(its.found(features_folder))
            found = mean_of_initialisations(initialisations)
            best = int(np.argmax([row.validation for row, _ in found]))
            for index, (row, scores) in enumerate(found):
                rows.append(replace(row, chosen=index == best))
                predictions[row.key] = scores
    test = first.parts["test"]
    predictions["groups"] = np.array(test.groups)
    if not is_frames:
        predictions["targets"] = test.truth
    rates = {n: x[0][0].rate for n, x in read.items()}
    result = TaskResult(
        label=task.name,
        kind=task.kind,
        group=opened.labelled.group if _knows_groups(opened) else None,
        level=None,
        metric=plan.metric,
        chance=constant,
        classes=opened.labelled.classes,
        clips={part: len(its.groups) for part, its in first.parts.items()},
        test_groups=len(set(test.groups)),
        rows=rows,
        notes=[*plan.notes, *opened.labelled.notes, *_left_out(opened, usable)],
        about={
            "title": task.title,
            "protocol": protocol.name,
            "protocol_words": protocol.words,
            "data": opened.labelled.name,
            "licence": task.sheet.licence,
            "split": opened.split,
            **about_encoders(encoders, read),
            "cutting": plan.cutting._asdict(),
            "frame_rates": rates,
            "aggregate": plan.aggregate,
            "learning_rates": list(plan.lrs),
            "seeds": list(seeds),
            "published": _published(task, protocol),
        },
        predictions=predictions,
    )
    ours, *others = encoders
    return resampled(result, ours, others)


def _places(opened: Opened, part: str, usable: set) -> np.ndarray:
    """The recordings of one part that all encoders could read."""
    of_part = np.flatnonzero([one.part == part for one in opened.recordings])
    places = np.array([at for at in of_part if at in usable], dtype=int)
    if not len(places):
        raise ProbeError(f"{opened.task.name}: no recording of {part} could be read.")
    return places


def _same_units(first: Reading, its: Reading) -> None:
    """Refuses encoders whose frame rates make other clips of the same recordings."""
    for part, known in first.parts.items():
        if its.parts[part].groups != known.groups:
            raise ProbeError(
                f"{its.task.name}: {first.name} and {its.name} cut the part {part!r} "
                f"into {len(known.groups)} and {len(its.parts[part].groups)} clips, "
                "as their frame rates differ: probe them apart."
            )


def _knows_groups(opened: Opened) -> bool:
    """Whether intervals are over them, which the test part alone decides."""
    group, every = opened.labelled.group, opened.recordings
    return any(one.labels.get(group) for one in every if one.part == "test")


def _left_out(opened: Opened, usable: set) -> list[str]:
    notes = []
    if not _knows_groups(opened):
        groups = f"{opened.labelled.group or 'group'}s".capitalize()
        notes.append(
            f"{groups} are not known in the test part: the interval is over recordings."
        )
    lost = len(opened.recordings) - len(usable)
    if lost or opened.left_out:
        notes.append(
            f"{len(opened.left_out)} recordings without a file or broken, and {lost} "
            "that could not be read, are left out."
        )
    if opened.task.frames is not None:
        pairs = zip(opened.recordings, opened.targets, strict=True)
        late = [opened.task.frames.end(it) > one.duration + LATE for one, it in pairs]
        notes += [
            f"Of {sum(late)} recordings the annotation goes on for more than {LATE:g} "
            "s after their end: they were cut, or are not those that were annotated."
        ] * any(late)
    return notes


def _published(task: MarbleTask, protocol: Protocol) -> list[dict]:
    """Published scores, each with why it is not to be compared, if it is not."""
    return [
        {
            "by": publisher,
            "model": model,
            "scores": {name: value / 100 for name, value in scores.items()},
            "not_comparable": protocol.not_comparable(task, publisher),
        }
        for publisher, models in task.published.items()
        for model, scores in models.items()
    ]
