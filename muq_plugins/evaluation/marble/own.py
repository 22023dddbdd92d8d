"""Tasks on labels of your own: the embedded corpus, manifests, or a CSV file.

Such a task is a mapping in an experiment file: a label that recordings have, and what
kind of label it is. It is opened, probed and reported as any other.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from muq_plugins.data.datasets.annotations import BEATS, CHORDS, SECTIONS
from muq_plugins.data.datasets.chords import TRIADS
from muq_plugins.data.datasets.emomusic import VALUES
from muq_plugins.data.datasets.keys import KEYS, key_name
from muq_plugins.data.datasets.tagged import Labelled, Sheet, TaggedClip
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.preparation import Manifests, prepare_annotated
from muq_plugins.errors import UserError, nearest
from muq_plugins.evaluation.marble.beats import PickedBeats
from muq_plugins.evaluation.marble.chords import Chords
from muq_plugins.evaluation.marble.frame_tasks import CLIP, SECTION_RATE
from muq_plugins.evaluation.marble.kinds import FrameKind
from muq_plugins.evaluation.marble.pitches import Pitches
from muq_plugins.evaluation.marble.sections import Sections
from muq_plugins.evaluation.marble.task import MarbleTask, Recipe
from muq_plugins.evaluation.probing.clips import Clip, corpus_clips, csv_clips
from muq_plugins.evaluation.probing.frame_labels import MIDI, NOTES, played_notes
from muq_plugins.evaluation.probing.frames import evenly
from muq_plugins.evaluation.probing.tasks import (
    FEWEST,
    ProbeTask,
    as_text,
    check_ignored,
    clip_parts,
    labelled,
    or_without,
    stopping_clips,
    task_data,
)
from muq_plugins.evaluation.scores import KEY_SCORES, METRIC_NAMES

# What each kind may be scored by; the first unless a task says otherwise.
METRICS = {
    "single": ("accuracy", *KEY_SCORES),
    "multi": ("average_precision",),
    "numbers": ("r2",),
    "frames": (),
}


class Frames(NamedTuple):
    """How a label that changes within a recording is read."""

    kind: FrameKind
    metrics: tuple[str, ...]
    seconds: float = CLIP  # of one recording in an update
    most_rate: float | None = None


#: What the kind "frames" may have as its label.
FRAMES = {
    BEATS: Frames(PickedBeats(), ("beat_f", "downbeat_f", "tempo_acc1")),
    CHORDS: Frames(Chords(), ("chord_majmin",)),
    SECTIONS: Frames(
        *(Sections(), ("section_accuracy", "hit_rate_3", "hit_rate_05")),
        *(60.0, SECTION_RATE),
    ),
    NOTES: Frames(Pitches(), ("clip_precision",)),
}


class Labels(NamedTuple):
    """Recordings with labels, of which tasks are made."""

    name: str
    clips: list[Clip]
    group: str | None = None  # the label that must not be in two parts


@dataclass(frozen=True)
class OwnTask:
    """A task, as an experiment file lists it."""

    label: str  # key of the manifest or column of the CSV file
    kind: str = "single"
    metric: str = ""  # that of its kind
    ignore: Sequence[str] = field(default=())  # values that are no class

    def __post_init__(self):
        if self.kind not in METRICS:
            raise UserError(
                f"The task {self.label!r} has kind {self.kind!r}: it must be one of "
                f"{', '.join(METRICS)}."
            )
        if self.kind == "frames" and self.label not in FRAMES:
            raise UserError(
                f"The task {self.label!r} has kind 'frames', which is of the labels "
                f"{', '.join(FRAMES)}."
            )
        if self.metric not in ("", *self.metrics):
            raise UserError(
                f"The task {self.label!r} has the metric {self.metric!r}: of the kind "
                f"{self.kind} it must be one of {', '.join(self.metrics)}."
            )
        check_ignored(self.label, self.ignore)
        if self.ignore and self.kind not in ("single", "multi"):
            raise UserError(
                f"The task {self.label!r} ignores {list(self.ignore)}: only classes of "
                "whole recordings can be ignored. Take the values out of the labels."
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it may be scored by; the first is usual."""
        is_frames = self.kind == "frames"
        return FRAMES[self.label].metrics if is_frames else METRICS[self.kind]


class OwnSheet(Sheet):
    """Of labels that nobody has published."""

    def lacks(self, folder: str | Path, what: str) -> UserError:
        """The error says all."""
        return UserError(what)


OWN = OwnSheet("labels of your own", "", "that of the recordings", "")


def embedded_labels(**corpus) -> Labels:
    """The embedded corpus with all that its scores state.

    Its pieces are in one part only, as everything that shares their melody.
    """
    manifests = prepare_annotated(**corpus)
    return Labels(
        f"the embedded corpus, {corpus['corpus_minutes']:g} minutes",
        corpus_clips(manifests),
        "piece",
    )


def file_labels(
    path: str | Path,
    audio_folder: str | Path | None = None,
    group: str | None = None,
    path_column: str = "path",
    split_column: str | None = None,
) -> Labels:
    """Labels of a CSV file, or of a folder with train.json, valid.json and test.json.

    Without a part for each recording, whole groups are dealt out. Paths start from
    `audio_folder`, or from where the file is.
    """
    path = Path(path)
    if path.is_dir():
        root = audio_folder or path
        parts = [load_manifest(path / f"{part}.json", root) for part in PARTS]
        clips = corpus_clips(Manifests(path, *parts))
    else:
        clips = csv_clips(path, audio_folder, path_column, split_column)
    return Labels(path.name, clips, group)


def own_task(
    about: Mapping,
    labels: Callable[[], Labels] | None,
    seconds: float,
    most: int,
    frames_of: Mapping[str, int] | None = None,
) -> MarbleTask:
    """A task of an experiment file.

    Of each recording at most so many clips are heard; frames are read of at most so
    many recordings of each part.
    """
    known = [one.name for one in fields(OwnTask)]
    if "label" not in about or (unknown := sorted(set(about) - set(known))):
        wrong = f"not {nearest(unknown[0], known)!r}?" if "label" in about else "label"
        raise UserError(
            f"A task is a name, or a mapping with the key label and any of "
            f"{', '.join(known[1:])}, got {dict(about)!r} ({wrong})."
        )
    own, frames_of = OwnTask(**about), frames_of or {}
    if unknown := sorted(set(frames_of) - set(PARTS)):
        raise UserError(
            f"own_clips.frames_of has {unknown[0]!r}: its keys are {', '.join(PARTS)}."
        )
    if labels is None:
        raise UserError(
            f"The task {own.label!r} is on labels of your own: say in `labels` where "
            "they are, as hparams/marble/own.yaml does."
        )
    name, metric = own.label, own.metric or own.metrics[0]
    title = own.label.replace("_", " ").capitalize()
    task = MarbleTask(
        *(name, title, OWN, lambda _: _read(own, labels(), frames_of)),
        *(own.kind, metric, seconds),
        *(Recipe(seconds, most, max_epochs=100), None),
        most_clips=most,
    )
    if own.kind != "frames":
        return task
    frames = FRAMES[own.label]
    if metric != own.metrics[0]:
        name, title = f"{name}_{metric}", f"{title}, {METRIC_NAMES[metric]}"
    changed = {"clip_seconds": frames.seconds, "v1": None}
    changed |= {"frames": frames.kind, "most_rate": frames.most_rate}
    return replace(task, name=name, title=title, **changed)


def _read(own: OwnTask, labels: Labels, frames_of: Mapping[str, int]) -> Labelled:
    folders = [str(Path(clip.wav).resolve().parent) for clip in labels.clips]
    folder = Path(os.path.commonpath(folders))
    clips, is_key = labels.clips, own.metric in KEY_SCORES
    if is_key:
        clips = [_with_key(clip, own) for clip in clips]
    if own.label == NOTES and own.kind == "frames":
        clips = [_with_notes(clip) for clip in clips]
    kind = "multi" if own.kind == "multi" else "single"
    probe = ProbeTask(own.label, kind, labels.group, own.ignore)
    tags: dict[int, list[str]] = {}
    values: dict[int, float] = {}
    if own.kind in ("numbers", "frames"):
        parts, groups, notes = _parts(probe, clips)
        if own.kind == "frames":
            for part, most in frames_of.items():
                parts[part] = evenly(parts[part], groups, most)
            for at in chain(*parts.values()):
                FRAMES[own.label].kind.truth(clips[at].labels, clips[at].name)
            classes = _frame_classes(own.label, [clips[at] for at in parts["train"]])
        else:
            values = _numbers(probe, clips, parts, notes)
            classes = [own.label]
    else:
        with or_without(probe):
            data = task_data(probe, clips)
        parts, classes, notes = data.parts, data.classes, data.notes
        for part, places in parts.items():
            for place, target in zip(places, data.targets[part], strict=True):
                has = np.flatnonzero(target) if kind == "multi" else [target]
                tags[place] = [classes[at] for at in has]
    found = [
        TaggedClip(
            Path(clips[at].wav).resolve().relative_to(folder).as_posix(),
            part,
            tags.get(at, []),
            {**clips[at].labels, **({VALUES: [values[at]]} if values else {})},
        )
        for part in PARTS
        for at in parts[part]
    ]
    classes = list(KEYS) if is_key else classes
    about = {"notes": notes, "group": labels.group}
    return Labelled(labels.name, folder, found, classes, **about)


def _with_notes(clip: Clip) -> Clip:
    """With the notes that its MIDI file plays, if it has one."""
    if MIDI not in clip.labels:
        return clip
    notes = played_notes(clip.labels[MIDI]).tolist()
    return replace(clip, labels={**clip.labels, NOTES: notes})


def _frame_classes(label: str, train: Sequence[Clip]) -> list[str]:
    """What is learned to be told apart, by the training part."""
    if label == CHORDS:
        return TRIADS
    if label == BEATS:
        return ["beat", "downbeat"]
    has = [{str(row[-1]) for row in clip.labels[label]} for clip in train]
    if label == NOTES:
        has = [{str(int(row[-1])) for row in clip.labels[label]} for clip in train]
    counts = Counter(name for names in has for name in names)
    classes = [name for name, count in counts.items() if count >= FEWEST]
    if len(classes) < 2:
        raise UserError(
            f"The label {label!r} leaves too little to read: the training part has "
            f"{len(train)} recordings with it, and {len(classes)} classes in {FEWEST} "
            "of them. Add others, or remove the task."
        )
    return sorted(classes, key=int if label == NOTES else str)


def _parts(
    probe: ProbeTask, clips: list[Clip]
) -> tuple[dict[str, list[int]], dict[int, str], list[str]]:
    """Recordings of each part that have a label, and their groups; what was decided."""
    one = dict.fromkeys(labelled(probe, clips), [probe.label])
    if not one:
        raise UserError(f"No recording has the label {probe.label!r}.")
    notes: list[str] = []
    part_of, groups = clip_parts(probe, clips, one, 0, notes)
    parts = {part: [at for at in one if part_of[at] == part] for part in PARTS}
    if not parts["valid"]:
        parts["train"], parts["valid"] = stopping_clips(parts["train"], one, groups)
        notes.append("There is no validation part: every fifth training clip is it.")
    return parts, groups, notes


def _numbers(
    probe: ProbeTask, clips: list[Clip], parts: dict[str, list[int]], notes: list[str]
) -> dict[int, float]:
    """Numbers as they are learned: standardised by the training part."""
    values = {}
    for at, value in labelled(probe, clips).items():
        try:
            values[at] = float(value)
        except (TypeError, ValueError):
            values[at] = float("nan")
        if not np.isfinite(values[at]):
            raise UserError(
                f"{clips[at].name!r} has the {probe.label} {value!r}, which is no "
                "number: correct it, or take it out of the labels."
            )
    known = np.array([values[at] for at in parts["train"]])
    if not len(known) or known.std() == 0:
        raise UserError(
            f"The {len(known)} recordings to train on have one {probe.label}: there is "
            "nothing to learn. Add others, or remove the task."
        )
    notes.append(f"Standardised: {known.mean():.4g} ± {known.std():.4g} in training.")
    return {at: (one - known.mean()) / known.std() for at, one in values.items()}


def _with_key(clip: Clip, own: OwnTask) -> Clip:
    """With one of the 24 keys, however it is written."""
    value = clip.labels.get(own.label)
    if value is None or str(value) in as_text(own.ignore):
        return clip
    key = key_name(str(value))
    if key is None:
        raise UserError(
            f"{clip.name!r} has the {own.label} {value!r}, which is no key such as 'Eb "
            "minor': correct it, or take it out of the labels."
        )
    return replace(clip, labels={**clip.labels, own.label: key})
