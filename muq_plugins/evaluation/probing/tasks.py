"""What is probed for, and on which clips: labels, classes, and parts without
overlap.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from speechbrain.utils.logger import get_logger

from muq_plugins.evaluation.probing.clips import PARTS, Clip, ProbeError, no_clip_has
from muq_plugins.evaluation.probing.frame_labels import MIDI, NOTES
from muq_plugins.evaluation.probing.results import predictions_file

logger = get_logger(__name__)

KINDS = ("single", "multi", "frames")
# Where numbers are predicted as such.
NUMBERS = " Numbers are predicted as such by hparams/marble/own.yaml (kind: numbers)."
LEVELS = ("acoustic", "semantic", None)
# Fewest train clips that a class needs to be learned from.
FEWEST = 2
# Share of the clips that a held-out part aims at.
HELD_OUT = 0.2
# Below, validation would take groups that training needs more.
FEWEST_GROUPS_TO_VALIDATE = 5
# Every how many training clips of a class is held out to decide when to stop.
STOPPING_STEP = 5
DRAWS = 1000


@dataclass(frozen=True)
class ProbeTask:
    """A label to probe for, as an experiment file lists it."""

    label: str  # key of the manifest or column of the CSV file
    # "single": one class a clip. "multi": any number of classes a clip, a list in the
    # manifest or a cell like "flute;harp". "frames": `NOTES`, read from MIDI files
    kind: Literal["single", "multi", "frames"] = "single"
    # key or column of what must not be in two parts: the piece, the sample library, the
    # singer. Parts that clips come with are kept, and told if they have it in several.
    # None if every clip stands for itself
    group: str | None = None
    ignore: Sequence[str] = ()  # values that are no class
    # "acoustic" if the sound tells the label, "semantic" if only the music does; used
    # for the question which layers know what
    level: Literal["acoustic", "semantic"] | None = None

    def __post_init__(self):
        for name, value, known in (
            ("kind", self.kind, KINDS),
            ("level", self.level, LEVELS),
        ):
            if value not in known:
                raise ProbeError(
                    f"The task {self.label!r} has {name} {value!r}: it must be one of "
                    f"{', '.join(map(str, known))}."
                    + (NUMBERS if value == "numbers" else "")
                )
        check_ignored(self.label, self.ignore)
        if self.kind == "frames" and self.label != NOTES:
            raise ProbeError(
                f"The task {self.label!r} has kind 'frames', but there are labels of "
                f"frames for {NOTES} only."
            )

    @property
    def key(self) -> str:
        """The key of the manifest or column of the CSV file that it needs."""
        return MIDI if self.kind == "frames" else self.label


def check_ignored(label: str, ignore: Any) -> None:
    """Refuses what is no list of values."""
    if not isinstance(ignore, (list, tuple)):
        raise ProbeError(
            f"The task {label!r} has ignore: {ignore!r}: it must be a list of values, "
            f"such as [{ignore or 'mixed'}]."
        )


def as_text(ignore: Sequence) -> set[str]:
    """The values that are no class, as a CSV file has them."""
    return {"", *map(str, ignore)}


def make_tasks(tasks: Sequence[dict], group: str | None) -> list[ProbeTask]:
    """The tasks that an experiment file lists."""
    known = [field.name for field in fields(ProbeTask)]
    if not isinstance(tasks, (list, tuple)):
        raise ProbeError(f"tasks must be a list of tasks, got {tasks!r}.")
    for task in tasks:
        if not isinstance(task, dict) or "label" not in task or set(task) - set(known):
            raise ProbeError(
                f"A task is a mapping with the key label and any of "
                f"{', '.join(known[1:])}, got {task!r}."
            )
    labels = [task["label"] for task in tasks]
    if not labels or len(set(labels)) < len(labels):
        raise ProbeError(f"tasks must list at least one label, each once: {labels}.")
    files = [predictions_file("", label).name for label in labels]
    if twice := [name for name, count in Counter(files).items() if count > 1]:
        raise ProbeError(
            f"The tasks {', '.join(map(repr, labels))}: two of them would be kept in "
            f"{twice[0]}. Give one of the labels another name."
        )
    return [ProbeTask(**{"group": group, **task}) for task in tasks]


@dataclass(frozen=True)
class TaskData:
    """The clips of a task, ready to probe."""

    task: ProbeTask  # the task
    classes: list[str]  # names of the classes
    # for "train", "valid" and "test": positions in the list of all clips
    parts: dict[str, np.ndarray]
    # for each part: numbers of the classes (clips,), or for "multi" 0 and 1 (clips,
    # classes)
    targets: dict[str, np.ndarray]
    groups: dict[str, list[str]]  # for each part: the group of every clip
    # what was left out or decided, for the report
    notes: list[str] = field(default_factory=list)


@contextmanager
def or_without(task: ProbeTask) -> Iterator[None]:
    """Names one more remedy, where one of several tasks would stop all."""
    try:
        yield
    except ProbeError as error:
        words = f"{error} Or remove the task {task.label!r} from `tasks`."
        raise ProbeError(words) from error


def task_data(
    task: ProbeTask,
    clips: list[Clip],
    usable: Sequence[bool] | None = None,
    seed: int = 0,
    hold_out: bool = True,
) -> TaskData:
    """Sort out which clips a task trains and tests on.

    Clips that come with a part keep it. Otherwise whole groups are dealt out. Where
    there is no validation part worth the name, `stopping_clips` of the training part
    take its place: they decide when to stop and which layer, never a score. Logistic
    regressions of one class a clip do without, if `hold_out` says so.
    """
    notes: list[str] = []
    labels = _labels(task, clips, notes)
    if usable is not None:
        if lost := sum(not usable[index] for index in labels):
            notes.append(unread(lost, len(labels)))
        labels = {index: names for index, names in labels.items() if usable[index]}
    found = sorted({name for names in labels.values() for name in names})
    if len(found) < 2 and task.kind == "single":
        raise ProbeError(
            f"The label {task.label!r} has one class only: {found[0]!r} on all "
            f"{len(labels)} clips that have it. A probe needs two."
            if found
            else f"No usable clip has the label {task.label!r}."
        )
    part_of, groups = clip_parts(task, clips, labels, seed, notes)
    parts = {
        part: [index for index in labels if part_of[index] == part] for part in PARTS
    }
    classes = _classes(task, labels, parts, notes)
    if task.kind == "single":
        known = set(classes)
        parts = {
            part: [i for i in positions if labels[i][0] in known]
            for part, positions in parts.items()
        }
    validated = {name for i in parts["valid"] for name in labels[i]} & set(classes)
    if hold_out and len(validated) < 2:
        parts["train"], parts["valid"] = stopping_clips(parts["train"], labels, groups)
        notes.append(
            "There is no validation part with two classes: every fifth training clip "
            "of each class decides when to stop."
        )
    return TaskData(
        task,
        classes,
        {part: np.array(positions, dtype=int) for part, positions in parts.items()},
        {part: _targets(task, parts[part], labels, classes) for part in PARTS},
        {part: [groups[i] for i in positions] for part, positions in parts.items()},
        notes,
    )


def clip_parts(
    task: ProbeTask,
    clips: Sequence[Clip],
    labels: dict[int, list[str]],
    seed: int,
    notes: list[str],
) -> tuple[dict[int, str], dict[int, str]]:
    """The part and the group of every clip that has the label.

    Parts that are given may be an official split: they are kept, and `notes` says which
    groups they share.
    """
    groups = _groups(task, clips, labels)
    part_of = {index: clips[index].part for index in labels}
    if None in part_of.values():
        part_of = split_groups(labels, groups, task.group, seed)
    found: dict[str, set[str]] = {}
    for index, group in groups.items() if task.group is not None else ():
        found.setdefault(group, set()).add(part_of[index])
    if shared := sorted(group for group, parts in found.items() if len(parts) > 1):
        places = " and ".join(part for part in PARTS if part in found[shared[0]])
        notes.append(
            f"Not apart: {len(shared)} of {len(found)} values of {task.group!r} are in "
            f"several of the parts that are given, {shared[0]!r} in {places}: scores "
            "may be too high."
        )
        logger.warning(f"Probe for {task.label}: {notes[-1]}")
    return part_of, groups


def unread(lost: int, every: int) -> str:
    """The note about clips that are left out."""
    return f"Left out: {lost} of {every} clips could not be read; see the log."


def labelled(task: ProbeTask, clips: Sequence[Clip]) -> dict[int, Any]:
    """What the clips that have the label have in it."""
    known = {key for clip in clips for key in clip.labels}
    for name in filter(None, (task.key, task.group)):
        if name not in known:
            raise no_clip_has(name, known)
    values = {index: clip.labels.get(task.key) for index, clip in enumerate(clips)}
    return {index: x for index, x in values.items() if x not in (None, "")}


def _labels(
    task: ProbeTask, clips: list[Clip], notes: list[str]
) -> dict[int, list[str]]:
    """The classes of every clip that has the label."""
    labels, seen, ignored = {}, set(), as_text(task.ignore)
    for index, value in labelled(task, clips).items():
        if task.kind == "single":
            values = [value]
        elif isinstance(value, str):
            values = [name.strip() for name in value.split(";")]
        else:
            values = value
        seen.update(map(str, values))
        names = [str(name) for name in values if str(name) not in ignored]
        if names or task.kind == "multi":
            labels[index] = names
    if strange := sorted(ignored - seen - {""}):
        notes.append(f"Ignored, but no clip has it: {', '.join(strange)}.")
        logger.warning(f"Probe for {task.label}: {notes[-1]}")
    return labels


def _groups(task: ProbeTask, clips: Sequence[Clip], labels: dict) -> dict[int, str]:
    if task.group is None:
        return {index: clips[index].name for index in labels}
    groups = {index: clips[index].labels.get(task.group) for index in labels}
    if lacking := [index for index, group in groups.items() if group in (None, "")]:
        raise ProbeError(
            f"{len(lacking)} clips with the label {task.label!r} have no "
            f"{task.group!r}, which must not be in two parts; the first is "
            f"{clips[lacking[0]].name!r}. Fill it in, or choose another group."
        )
    return {index: str(group) for index, group in groups.items()}


def _classes(task: ProbeTask, labels: dict, parts: dict, notes: list[str]) -> list[str]:
    """The classes that can be learned and tested."""
    counts = {
        part: Counter(name for i in positions for name in labels[i])
        for part, positions in parts.items()
    }
    enough = {n for n, count in counts["train"].items() if count >= FEWEST}
    classes = sorted(enough)
    if task.kind == "multi":
        # Neither "all clips" nor "no clip" can be ranked.
        tests = len(parts["test"])
        classes = [name for name in classes if 0 < counts["test"][name] < tests]
    tested = sorted(enough & counts["test"].keys())
    needed = 2 if task.kind == "single" else 1
    if len(tested if task.kind == "single" else classes) < needed:
        remedy = f"Choose another group than {task.group!r}, or add clips."
        raise ProbeError(
            f"The label {task.label!r} leaves too few classes that the training part "
            f"({len(parts['train'])} clips) has at least {FEWEST} times and the test "
            f"part ({len(parts['test'])} clips) too: {tested}. "
            + (remedy if task.group else "Add clips to them.")
        )
    all_names = set().union(*counts.values())
    if left_out := sorted(all_names - set(classes)):
        clips = sum(counts["test"][name] for name in left_out)
        notes.append(
            f"Left out, since they are not in the training part {FEWEST} times"
            + (" or not in the test part" if task.kind == "multi" else "")
            + f": {', '.join(left_out)} ({clips} test labels)."
            + (NUMBERS if all(map(_is_number, all_names)) else "")
        )
        logger.info(f"Probe for {task.label}: {notes[-1]}")
    return classes


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _targets(task: ProbeTask, positions, labels: dict, classes: list[str]):
    if task.kind == "single":
        return np.array([classes.index(labels[i][0]) for i in positions], dtype=int)
    has = [[name in labels[i] for name in classes] for i in positions]
    return np.array(has, dtype=float).reshape(len(positions), len(classes))


def split_groups(
    labels: dict[int, list[str]],
    groups: dict[int, str],
    group_name: str | None,
    seed: int,
) -> dict[int, str]:
    """Deal out groups so that as many classes as possible can be learned and tested.

    A class that only one group has can be either. So, of many random deals, the one is
    taken whose training and test part share most classes, and then the one whose parts
    have the right sizes. Only labels are looked at, no features.
    """
    names, group = np.unique([groups[index] for index in labels], return_inverse=True)
    if len(names) < 2:
        raise ProbeError(
            f"All {len(labels)} clips have the same {group_name!r}, {str(names[0])!r}: "
            "there is nothing to hold out for the test. Choose another group, or give "
            "the clips a split column."
        )
    classes = sorted({name for found in labels.values() for name in found})
    counts, sizes = np.zeros((len(names), len(classes))), np.bincount(group)
    for place, found in zip(group, labels.values(), strict=True):
        for name in found:
            counts[place, classes.index(name)] += 1
    rng = np.random.default_rng(seed)
    validates = len(names) >= FEWEST_GROUPS_TO_VALIDATE
    best, best_score = None, (-1, -1, -np.inf)
    for _ in range(DRAWS):
        deal = _deal(rng, sizes, validates)
        train, test = (counts[deal == part].sum(axis=0) for part in (0, 2))
        valid = counts[deal == 1].sum(axis=0)
        shares = np.array([sizes[deal == part].sum() for part in (1, 2)]) / sizes.sum()
        aims = np.array([HELD_OUT if validates else 0, HELD_OUT])
        score = (
            int(((train > 1) & (test > 0)).sum()),
            int(((train > 1) & (valid > 0)).sum()),
            -float(np.abs(shares - aims).sum()),
        )
        if score > best_score:
            best, best_score = deal, score
    if best_score[0] == 0:
        remedy = f", of another {group_name!r}. Choose another group, or add clips."
        raise ProbeError(
            "No class has enough clips to be learned from some and tested on others"
            + (remedy if group_name else ". Add clips.")
            + (NUMBERS if all(map(_is_number, classes)) else "")
        )
    parts = [PARTS[part] for part in best[group]]
    return dict(zip(labels, parts, strict=True))


def stopping_clips(
    train: list[int], labels: dict, groups: dict[int, str]
) -> tuple[list[int], list[int]]:
    """Hold out training clips to decide when a training stops.

    That is every fifth group of each class, or where no class has five, every fifth
    clip: one group is then in both, but never in the test part.
    """
    for of_clip in (groups, {index: index for index in train}):
        seen: dict[tuple[str, ...], int] = {}
        is_turn: dict[str | int, bool] = {}
        for index in train:
            if of_clip[index] not in is_turn:
                key = tuple(labels[index])
                seen[key] = seen.get(key, 0) + 1
                is_turn[of_clip[index]] = seen[key] % STOPPING_STEP == 0
        held_out = [index for index in train if is_turn[of_clip[index]]]
        if held_out:
            return [index for index in train if not is_turn[of_clip[index]]], held_out
    # So few of each: any of them, which is better than none.
    kept = train[: -(len(train) // STOPPING_STEP) or None]
    return kept, train[len(kept) :] or train


def _deal(rng, sizes: np.ndarray, validates: bool) -> np.ndarray:
    """0 (train), 1 (valid) or 2 (test) for every group, in a random order."""
    deal = np.zeros(len(sizes), dtype=int)
    order = rng.permutation(len(sizes))
    for part in (2, 1) if validates else (2,):
        # As many groups as come nearest to the share, and at least one.
        ends = sizes[order].cumsum()
        taken = ends - sizes[order] / 2 <= HELD_OUT * sizes.sum()
        taken[0] = True
        deal[order[taken]] = part
        order = order[~taken]
    return deal
