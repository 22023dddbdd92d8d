"""Tasks whose label is a time series, read frame by frame: which notes sound when.

One window of each clip is heard, its middle, and read at the same few times in every
row: frames that are 40 ms apart say nearly the same. A layer gives its frame at that
time, the log-mel spectrogram all of its own frames within it, side by side. The reader
is a ridge regression on standardised values, one for each class; pieces are never split
when its penalty is chosen. Pages call these scores by the name of the task: notes AP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from muq_plugins.data.windows import spread
from muq_plugins.evaluation.kept import digest, file_stamp
from muq_plugins.evaluation.probing.clips import Clip, ProbeError, window_batches
from muq_plugins.evaluation.probing.features import Extractor, FeatureSettings
from muq_plugins.evaluation.probing.frame_labels import (
    PITCHES,
    played_notes,
    sounding,
)
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    Found,
    Row,
    TaskResult,
    kept_in,
    mean_of_initialisations,
    resampled,
)
from muq_plugins.evaluation.probing.tasks import (
    FEWEST,
    ProbeTask,
    clip_parts,
    labelled,
    unread,
)
from muq_plugins.evaluation.scores import PRIMARY, clip_precision, macro_precision

# Raised whenever a change of the code changes what is read.
FORMAT = 2
# Times a second at which frames are read.
TIMES = 5.0
# Most clips of each part, of as many different pieces as there are.
MOST = {"train": 96, "test": 192}
# Strengths of the penalty, as a share of the variance; cross-validation chooses.
PENALTIES = (0.001, 0.01, 0.1, 1.0)
FOLDS = 4


@dataclass(frozen=True)
class FrameData:
    """The clips of such a task."""

    task: ProbeTask
    classes: list[str]
    clips: dict[str, list[Clip]]  # for "train" and "test"
    targets: dict[str, list[np.ndarray]]  # bool (times, classes), one of each clip
    groups: dict[str, list[str]]
    chance: float  # of always naming the classes that are frequent in training
    notes: list[str] = field(default_factory=list)  # what was left out


def frame_data(
    task: ProbeTask, clips: Sequence[Clip], seconds: float, seed: int = 0
) -> FrameData:
    """Sort out the clips of a task, and read what there is in their windows when."""
    files = labelled(task, clips)
    notes = [f"One window of each clip, read {TIMES:g} times a second."]
    named = dict.fromkeys(files, [task.key])
    parts, of_clip = clip_parts(task, clips, named, seed, notes)
    chosen = {
        part: evenly([i for i in parts if parts[i] == part], of_clip, most)
        for part, most in MOST.items()
    }
    targets = {
        part: [_targets(clips[i], files[i], seconds) for i in places]
        for part, places in chosen.items()
    }
    groups = {part: [of_clip[i] for i in places] for part, places in chosen.items()}
    of_group: dict[str, np.ndarray] = {}
    for group, found in zip(groups["train"], targets["train"], strict=True):
        of_group[group] = of_group.get(group, False) | found.any(axis=0)
    known = np.zeros(len(PITCHES), dtype=bool)
    if of_group:
        known = np.sum(list(of_group.values()), axis=0) >= FEWEST
    tested = [found[:, known].any() for found in targets["test"]]
    if sum(known) < 2 or not any(tested) or len(of_group) < 2:
        raise ProbeError(
            f"The label {task.label!r} leaves too little to read: "
            f"{len(of_group)} {task.group or 'clip'}s to train on, which share "
            f"{sum(known)} classes, and {sum(tested)} test clips with any of them. "
            f"Add clips with {task.key!r}."
        )
    every = np.concatenate(targets["test"])
    if lost := every[:, ~known].sum():
        notes.append(
            f"Left out, since fewer than {FEWEST} pieces of the training part have "
            f"them: classes with {lost / every.sum():.1%} of what sounds in the test."
        )
    keep = {"train": [True] * len(targets["train"]), "test": tested}
    pick = {part: np.flatnonzero(kept) for part, kept in keep.items()}
    targets = {p: [targets[p][i][:, known] for i in at] for p, at in pick.items()}
    frequent = np.concatenate(targets["train"]).mean(axis=0)
    always = [
        clip_precision(y, np.broadcast_to(frequent, y.shape)) for y in targets["test"]
    ]
    return FrameData(
        task,
        [name for name, there in zip(PITCHES, known, strict=True) if there],
        {p: [clips[chosen[p][i]] for i in at] for p, at in pick.items()},
        targets,
        {p: [groups[p][i] for i in at] for p, at in pick.items()},
        float(np.mean(always)),
        notes,
    )


def _targets(clip: Clip, file: str, seconds: float) -> np.ndarray:
    (start,) = spread(clip.duration, seconds, 1)
    times = start + _times(min(seconds, clip.duration))
    return sounding(played_notes(file), times)


def _times(seconds: float) -> np.ndarray:
    """The middles of even parts of a window; one at least."""
    return (np.arange(max(1, int(seconds * TIMES))) + 0.5) / TIMES


def evenly(places: Sequence[int], group_of: Mapping[int, str], most: int) -> list[int]:
    """At most so many clips: one of each group, then a second one, and so on."""
    turn: dict[str, int] = {}
    rounds = []
    for place in places:
        turn[group_of[place]] = turn.get(group_of[place], -1) + 1
        rounds.append((turn[group_of[place]], place))
    kept = sorted(rounds)
    last = kept[most][0] if len(kept) > most else -1
    # Of the round that does not fit whole, clips from all over the list.
    whole = [place for number, place in kept if number < last or last < 0]
    rest = [place for number, place in kept if number == last >= 0]
    spare = most - len(whole)
    some = np.linspace(0, len(rest) - 1, spare).round().astype(int) if rest else []
    return sorted([*whole, *(rest[i] for i in some)])


def read_frames(
    extractor: Extractor,
    clips: Sequence[Clip],
    settings: FeatureSettings,
    skipped: list[str],
) -> list[np.ndarray | None]:
    """Frames (times, layers, size) of each clip; None if it could not be read."""
    found: list[np.ndarray | None] = [None] * len(clips)
    windows = settings.window_seconds, 1, extractor.sample_rate, settings.batch_size
    for places, wavs, lens in window_batches(clips, *windows, skipped):
        layers, _ = extractor.frames(wavs, lens)
        samples = (lens * wavs.shape[1]).round().int().tolist()
        for row, place in enumerate(places):
            times = _times(samples[row] / extractor.sample_rate)
            at = (times * extractor.frame_rate).astype(int)
            at = np.minimum(at, layers[0].shape[1] - 1)
            picked = [layer[row, at].float().cpu().numpy() for layer in layers]
            found[place] = np.stack(picked, axis=1)
    return found


def probe_frames(
    data: FrameData,
    extractors: Mapping[str, Sequence[Extractor]],
    settings: FeatureSettings,
) -> TaskResult:
    """Read a task off every layer of everything that has frames."""
    rows: list[Row] = []
    predictions = {"groups": np.array(data.groups["test"])}
    skipped: list[str] = []
    for name, several in extractors.items():
        found = mean_of_initialisations(
            [FrameReading(data, one, name, settings).found(skipped) for one in several]
        )
        best = int(np.argmax([row.validation for row, _ in found]))
        for index, (row, scores) in enumerate(found):
            rows.append(replace(row, chosen=index == best))
            predictions[row.key] = scores
    # Without those that could not be read, even if only for one row.
    each = np.concatenate([predictions[row.key] for row in rows])
    finite, notes = np.isfinite(each), list(data.notes)
    heard, metric = finite.all(axis=0), PRIMARY[data.task.kind]
    if lost := len(set(skipped)):
        notes.append(unread(lost, sum(map(len, data.clips.values()))))
    predictions = {key: array[..., heard] for key, array in predictions.items()}
    if (finite.any(axis=0) & ~heard).any():  # what rows say is of different clips
        rows = [_rescored(row, predictions[row.key], metric) for row in rows]
    task, groups = data.task, set(predictions["groups"].tolist())
    return resampled(
        TaskResult(
            *(task.label, task.kind, task.group, task.level),
            metric,
            data.chance,
            data.classes,
            {"train": len(data.clips["train"]), "valid": 0, "test": int(heard.sum())},
            len(groups),
            rows,
            notes=notes,
            about={
                "windows": [settings.window_seconds, 1],
                "annotations": digest(np.concatenate(data.targets["test"]).tobytes()),
            },
            predictions=predictions,
        )
    )


def _rescored(row: Row, each: np.ndarray, metric: str) -> Row:
    """A row of fewer clips (initialisations, clips), with what can be said of them."""
    values = each.mean(axis=1).tolist()
    return replace(
        row,
        value=(value := float(np.mean(values))),
        metrics={metric: value},
        initialisations=row.initialisations and values,
    )


@dataclass(frozen=True)
class FrameReading:
    """One task that is read off one kind of features."""

    data: FrameData
    extractor: Extractor
    name: str  # of the features
    settings: FeatureSettings

    def found(self, skipped: list[str]) -> Found:
        """A row and the score of every test clip (1, clips) of each layer.

        Kept in the folder of the features; frames themselves are not, they are many.
        What says why a clip could not be read is added to ``skipped``.
        """
        if self.settings.folder is None:
            return self._read(skipped)
        data, settings = self.data, self.settings
        content = {
            "format": FORMAT,
            "extractor": [type(self.extractor).__name__, self.extractor.fingerprint],
            "about": [self.name, settings.window_seconds],
            "files": {
                part: [[*file_stamp(clip.wav), clip.duration] for clip in clips]
                for part, clips in data.clips.items()
            },
            "groups": data.groups,
            "classes": data.classes,
            "targets": {
                part: digest(np.concatenate(found).tobytes())
                for part, found in data.targets.items()
            },
        }
        lost: list[str] = []
        found = kept_in(settings.folder, content, lambda: self._read(lost), lost)
        skipped += lost
        return found

    def _read(self, skipped: list[str]) -> Found:
        data = self.data
        frames = {
            part: read_frames(self.extractor, clips, self.settings, skipped)
            for part, clips in data.clips.items()
        }
        there = {
            part: [at for at, one in enumerate(found) if one is not None]
            for part, found in frames.items()
        }
        groups = [data.groups["train"][at] for at in there["train"]]
        if len(set(groups)) < 2 or not there["test"]:
            raise ProbeError("Too few clips could be read; see the log.")
        heard, targets = {}, {}
        for part, places in there.items():
            pairs = [(frames[part][at], data.targets[part][at]) for at in places]
            # Where a file is shorter than it said, so are its labels.
            sizes = [min(map(len, pair)) for pair in pairs]
            cut = [(x[:n], y[:n]) for (x, y), n in zip(pairs, sizes, strict=True)]
            heard[part], targets[part] = map(list, zip(*cut, strict=True))
        layers = heard["train"][0].shape[1]
        found = []
        with threadpool_limits(1):  # the matrices are small
            for layer in range(layers):
                train, test = ([x[:, layer] for x in heard[p]] for p in heard)
                fit = fit_ridge(train, targets["train"], groups, test)
                each = np.full(len(frames["test"]), np.nan)
                for at, truth, scores in zip(
                    there["test"], targets["test"], fit.scores, strict=True
                ):
                    each[at] = clip_precision(truth, scores)
                value = float(np.nanmean(each))
                every = np.concatenate(targets["test"]), np.concatenate(fit.scores)
                row = Row(
                    *(self.name, LINEAR),
                    layer if layers > 1 else None,
                    *[value] * 3,
                    {
                        PRIMARY[data.task.kind]: value,
                        "average_precision": macro_precision(*every),
                    },
                    fit.validation,
                    penalty=fit.penalty,
                )
                found.append((row, each[None]))
        return found


class Ridge(NamedTuple):
    """What a ridge regression of one layer has found."""

    scores: list[np.ndarray]  # (times, classes) of each test clip
    penalty: float
    validation: float  # mean average precision of the held-out training clips


def fit_ridge(
    train: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    groups: Sequence[str],
    test: Sequence[np.ndarray],
) -> Ridge:
    """Read one layer, given as frames (times, size) of each clip.

    With the eigenvectors of the covariance every penalty costs one multiplication.
    """
    x, y = np.concatenate(train).astype(np.float64), np.concatenate(targets)
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std < 1e-6] = 1.0
    x, y = (x - mean) / std, y - y.mean(axis=0)
    ends = np.cumsum([len(part) for part in train])
    of_clip = np.repeat(np.arange(len(train)), [len(part) for part in train])
    folds = min(FOLDS, len(set(groups)))
    reached: dict[float, list[float]] = {penalty: [] for penalty in PENALTIES}
    for kept, held_out in GroupKFold(folds).split(train, groups=groups):
        rows = np.isin(of_clip, kept)
        solve = _solver(x[rows], y[rows])
        for penalty in PENALTIES:
            weights = solve(penalty)
            for clip in held_out:
                rows = slice(ends[clip] - len(train[clip]), ends[clip])
                if targets[clip].any():
                    ap = clip_precision(targets[clip], x[rows] @ weights)
                    reached[penalty].append(ap)
    validation = {penalty: float(np.mean(found)) for penalty, found in reached.items()}
    best = max(validation, key=validation.__getitem__)
    weights = _solver(x, y)(best)
    scores = [((clip - mean) / std) @ weights for clip in test]
    return Ridge(scores, best, validation[best])


def _solver(x: np.ndarray, y: np.ndarray) -> Callable[[float], np.ndarray]:
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    moments = vectors.T @ (x.T @ y) / len(x)
    return lambda penalty: vectors @ (moments / (values + penalty)[:, None])
