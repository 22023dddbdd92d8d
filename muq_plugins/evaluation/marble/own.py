"""Tasks on labels of your own: the embedded corpus, manifests, or a CSV file.

Such a task is a mapping in an experiment file: a label that recordings have, and what
kind of label it is. It is opened, probed and reported as any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from muq_plugins.data.datasets.emomusic import VALUES
from muq_plugins.data.datasets.keys import KEYS, key_name
from muq_plugins.data.datasets.tagged import Labelled, Sheet, TaggedClip
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.preparation import Manifests, prepare_annotated
from muq_plugins.errors import UserError, nearest
from muq_plugins.evaluation.marble.task import MarbleTask, Recipe
from muq_plugins.evaluation.probing.clips import Clip, corpus_clips, csv_clips
from muq_plugins.evaluation.probing.tasks import (
    ProbeTask,
    clip_parts,
    labelled,
    stopping_clips,
    task_data,
)
from muq_plugins.evaluation.scores import KEY_SCORES

# What each kind is scored by unless a task says otherwise.
KINDS = {"single": "accuracy", "multi": "average_precision", "numbers": "r2"}
METRICS = {"single": ("accuracy", *KEY_SCORES), "multi": ("average_precision",)}


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
        if self.kind not in KINDS:
            raise UserError(
                f"The task {self.label!r} has kind {self.kind!r}: it must be one of "
                f"{', '.join(KINDS)}."
            )
        known = METRICS.get(self.kind, (KINDS[self.kind],))
        if self.metric not in ("", *known):
            raise UserError(
                f"The task {self.label!r} has the metric {self.metric!r}: of the kind "
                f"{self.kind} it must be one of {', '.join(known)}."
            )


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
    about: Mapping, labels: Callable[[], Labels] | None, seconds: float, most: int
) -> MarbleTask:
    """A task of an experiment file; of each recording, at most so many clips."""
    known = [one.name for one in fields(OwnTask)]
    if "label" not in about or (unknown := sorted(set(about) - set(known))):
        wrong = f"not {nearest(unknown[0], known)!r}?" if "label" in about else "label"
        raise UserError(
            f"A task is a name, or a mapping with the key label and any of "
            f"{', '.join(known[1:])}, got {dict(about)!r} ({wrong})."
        )
    if labels is None:
        raise UserError(
            f"The task {about['label']!r} is on labels of your own: say in `labels` "
            "where they are, as hparams/marble/own.yaml does."
        )
    own = OwnTask(**about)
    return MarbleTask(
        own.label,
        own.label.replace("_", " ").capitalize(),
        OWN,
        lambda _: _read(own, labels()),
        own.kind,
        own.metric or KINDS[own.kind],
        seconds,
        Recipe(seconds, most, max_epochs=100),
        None,
        most_clips=most,
    )


def _read(own: OwnTask, labels: Labels) -> Labelled:
    folders = [str(Path(clip.wav).resolve().parent) for clip in labels.clips]
    folder = Path(os.path.commonpath(folders))
    clips, is_key = labels.clips, (own.metric or "") in KEY_SCORES
    if is_key:
        clips = [_with_key(clip, own) for clip in clips]
    kind = "multi" if own.kind == "multi" else "single"
    probe = ProbeTask(own.label, kind, labels.group, own.ignore)
    if own.kind == "numbers":
        parts, values, notes = _numbers(probe, clips)
        tags, classes = dict.fromkeys(values, []), [own.label]
    else:
        data = task_data(probe, clips)
        parts, classes, notes = data.parts, data.classes, data.notes
        tags, values = {}, {}
        for part, places in parts.items():
            for place, target in zip(places, data.targets[part], strict=True):
                has = np.flatnonzero(target) if kind == "multi" else [target]
                tags[place] = [classes[at] for at in has]
    found = [
        TaggedClip(
            Path(clips[at].wav).resolve().relative_to(folder).as_posix(),
            part,
            tags[at],
            {**clips[at].labels, **({VALUES: [values[at]]} if values else {})},
        )
        for part in PARTS
        for at in parts[part]
    ]
    classes = list(KEYS) if is_key else classes
    about = {"notes": notes, "group": labels.group}
    return Labelled(labels.name, folder, found, classes, **about)


def _with_key(clip: Clip, own: OwnTask) -> Clip:
    """With one of the 24 keys, however it is written."""
    value = clip.labels.get(own.label)
    if value in (None, "", *own.ignore):
        return clip
    key = key_name(str(value))
    if key is None:
        raise UserError(
            f"{clip.name!r} has the {own.label} {value!r}, which is no key such as 'Eb "
            "minor': correct it, or take it out of the labels."
        )
    return replace(clip, labels={**clip.labels, own.label: key})


def _numbers(
    probe: ProbeTask, clips: list[Clip]
) -> tuple[dict[str, list[int]], dict[int, float], list[str]]:
    """Parts, and numbers as they are learned: standardised by the training part."""
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
    one = dict.fromkeys(values, [probe.label])
    part_of, _ = clip_parts(probe, clips, one, 0)
    parts = {part: [at for at in values if part_of[at] == part] for part in PARTS}
    notes = []
    if not parts["valid"]:
        parts["train"], parts["valid"] = stopping_clips(parts["train"], one)
        notes.append("There is no validation part: every fifth training clip is it.")
    known = np.array([values[at] for at in parts["train"]])
    if not len(known) or known.std() == 0:
        raise UserError(
            f"The {len(known)} recordings to train on have one {probe.label}: there is "
            "nothing to learn. Add others, or remove the task."
        )
    notes.append(f"Standardised: {known.mean():.4g} ± {known.std():.4g} in training.")
    values = {at: (one - known.mean()) / known.std() for at, one in values.items()}
    return parts, values, notes
