"""Doing tasks of MARBLE: features once, then probes on the CPU, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from muq_plugins.data.manifest import PARTS
from muq_plugins.evaluation.kept import digest
from muq_plugins.evaluation.marble.protocols import ALL_LAYERS, Plan, Protocol, Read
from muq_plugins.evaluation.marble.tasks import MarbleTask, Opened
from muq_plugins.evaluation.probing.clips import ProbeError
from muq_plugins.evaluation.probing.features import Extractor
from muq_plugins.evaluation.probing.means import Means, clip_means
from muq_plugins.evaluation.probing.readers import LayerReader, train_reader
from muq_plugins.evaluation.probing.results import (
    HIDDEN,
    MIXTURE,
    Found,
    Row,
    TaskResult,
    kept_in,
    mean_of_initialisations,
    resampled,
)
from muq_plugins.evaluation.scores import chance, metric_score, metric_scores

logger = get_logger(__name__)

# Raised whenever a change of the code changes what is read.
FORMAT = 1
# Of the weights of a mixture, which are few and start equal.
MIXTURE_LR = 3e-2
AT_ONCE = 1024


class Part(NamedTuple):
    """The clips of one part of a task, and what is scored of them."""

    x: Means
    targets: np.ndarray  # of the clips
    unit: np.ndarray  # what is scored, of each clip: its recording, or itself
    truth: np.ndarray  # of what is scored
    groups: list[str]


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
    if not seeds:
        raise ProbeError("seeds must list at least one number.")
    task, plan = opened.task, protocol.plan(opened.task)
    where = plan.cutting, features_folder, batch_size
    read = {
        name: [
            clip_means(one, opened.recordings, *where, f"{task.name} {name}", progress)
            for one in several
        ]
        for name, several in encoders.items()
    }
    every = [whose for several in read.values() for _, whose in several]
    usable = set.intersection(*(set(whose.tolist()) for whose in every))
    rows, predictions, known = [], {}, None
    with threadpool_limits(1):  # the matrices are small
        for name, several in read.items():
            initialisations = []
            for means, whose in several:
                parts = {
                    part: _part(opened, means, whose, part, plan, usable)
                    for part in PARTS
                }
                known = known or parts
                about = name, parts, opened.labelled.classes, list(seeds)
                its = Reading(task, protocol, plan, *about)
                initialisations.append(its.found(features_folder))
            found = mean_of_initialisations(initialisations)
            best = int(np.argmax([row.validation for row, _ in found]))
            for index, (row, scores) in enumerate(found):
                rows.append(replace(row, chosen=index == best))
                predictions[row.key] = scores
    test, train = known["test"], known["train"]
    fingerprints = {n: [one.fingerprint for one in x] for n, x in encoders.items()}
    hashes = {n: [means.key for means, _ in several] for n, several in read.items()}
    result = TaskResult(
        label=task.name,
        kind=task.kind,
        group=opened.labelled.group if _knows_groups(opened) else None,
        level=None,
        metric=task.metric,
        chance=constant(task, train.truth, test.truth),
        classes=opened.labelled.classes,
        clips={part: len(its.truth) for part, its in known.items()},
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
            "encoders": fingerprints,
            "heard": {
                name: [of[0].sample_rate, of[0].frame_rate, of[0].layers]
                for name, of in encoders.items()
            },
            "features": hashes,
            "cutting": plan.cutting._asdict(),
            "aggregate": plan.aggregate,
            "learning_rates": list(plan.lrs),
            "seeds": list(seeds),
            "published": _published(task, protocol),
        },
        predictions={
            "targets": test.truth,
            "groups": np.array(test.groups),
            **predictions,
        },
    )
    ours, *others = encoders
    return resampled(result, ours, others)


def _part(opened, means: Means, whose, part: str, plan: Plan, usable: set) -> Part:
    """What one encoder says of one part."""
    of_part = [one.part == part for one in opened.recordings]
    places = np.array([at for at in np.flatnonzero(of_part) if at in usable], dtype=int)
    rows = np.flatnonzero(np.isin(whose, places))
    if not len(rows):
        raise ProbeError(f"{opened.task.name}: no recording of {part} could be read.")
    recording = whose[rows]
    if plan.aggregate is None:
        unit, scored = np.arange(len(rows)), recording
    else:
        unit, scored = np.searchsorted(places, recording), places
    groups = [
        str(one.labels.get(opened.labelled.group) or one.name)
        for one in (opened.recordings[at] for at in scored)
    ]
    targets = opened.targets
    return Part(means.at(rows), targets[recording], unit, targets[scored], groups)


@dataclass(frozen=True)
class Reading:
    """One task that is read off one encoder."""

    task: MarbleTask
    protocol: Protocol
    plan: Plan
    name: str  # of the encoder
    parts: Mapping[str, Part]
    classes: list[str]
    seeds: list[int]

    def found(self, folder: str | Path) -> Found:
        """A row and predictions (seeds, what is scored, ...) of everything it reads.

        Each is kept: what was stopped goes on with the next layer.
        """
        found, layers = [], self.parts["train"].x.layers
        parts = {
            part: [its.x.key, its.groups]
            + [digest(a.tobytes()) for a in (its.x.rows, its.unit, its.targets)]
            for part, its in self.parts.items()
        }
        for read in self.protocol.reads(self.plan.recipe, layers):
            content = {
                "format": FORMAT,
                "task": [self.task.name, self.task.kind, self.task.metric],
                "protocol": asdict(self.protocol),
                "plan": [*self.plan.recipe, self.plan.lrs, self.plan.aggregate],
                "read": [self.name, *read],
                "seeds": self.seeds,
                "parts": parts,
                "classes": self.classes,
            }
            found += kept_in(folder, content, lambda read=read: [self._read(read)])
            logger.info(f"{self.task.name}, {self.name}: read {found[-1][0].place}.")
        return found

    def _read(self, read: Read) -> tuple[Row, np.ndarray]:
        """Searches the learning rate with the first seed, then trains with the others.

        A protocol that tests its last epoch is judged by that one too.
        """
        x = {part: its.x.only(read.used) for part, its in self.parts.items()}
        first, *others = self.seeds
        tried = [(*self._fit(read, x, lr, first), lr) for lr in self.plan.lrs]
        reached, scores, weights, lr = max(tried, key=lambda one: one[0])
        if reached == -np.inf:
            raise ProbeError(
                f"{self.task.name}: no probe of {self.name} could be trained with the "
                f"learning rates {self.plan.lrs}: look at the features."
            )
        every = [(reached, scores, weights)]
        every += [self._fit(read, x, lr, seed) for seed in others]
        scores = np.array([scores for _, scores, _ in every])
        truth, metric = self.parts["test"].truth, self.task.metric
        by_seed = [metric_scores(metric, truth, one, self.classes) for one in scores]
        means = {key: float(np.mean([m[key] for m in by_seed])) for key in by_seed[0]}
        row = Row(
            *(self.name, HIDDEN, read.layer, *[means[metric]] * 3, means),
            validation=float(np.mean([reached for reached, *_ in every])),
            seed_std=float(np.std([m[metric] for m in by_seed])),
            lr=lr,
        )
        if read.layer == MIXTURE:
            mixed = np.zeros(self.parts["train"].x.layers)
            mixed[read.used] = np.mean([weights for *_, weights in every], axis=0)
            row = replace(row, weights=mixed.round(4).tolist())
        return row, scores

    def _fit(
        self, read: Read, x: Mapping[str, Means], lr: float, seed: int
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """What one training reaches in validation, its test scores, and its mixture."""
        recipe, protocol, train = self.plan.recipe, self.protocol, self.parts["train"]
        targets = torch.as_tensor(train.targets)
        targets = targets.long() if self.task.kind == "single" else targets.float()
        metric = recipe.chosen_by or self.task.metric
        valid = self.parts["valid"]

        def reached() -> float:
            scores = self._scores(reader, x["valid"], valid)
            return metric_score(metric, valid.truth, scores)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reader = self._reader(x["train"], read)
            head = [*reader.head.parameters()]
            if reader.reduce is not None:
                head += reader.reduce.parameters()
            optimizer = torch.optim.Adam(
                [
                    {"params": head, "lr": lr},
                    {
                        "params": [reader.mixture],
                        "lr": MIXTURE_LR if protocol.standardised else lr,
                    },
                ]
            )
            scheduler = None
            if not protocol.standardised:
                factor, patience = recipe.plateau
                scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
                    optimizer, factor=factor, patience=patience
                )
            found = train_reader(
                *(reader, optimizer, LOSSES[self.task.kind](), x["train"], targets),
                lambda: -reached(),
                *(recipe.batch_size, recipe.max_epochs, recipe.patience),
                *(scheduler, protocol.keep_last),
            )
        if found is None:
            return -np.inf, np.empty(0), np.empty(0)
        value = reached() if protocol.keep_last else -found[1]
        scores = self._scores(reader, x["test"], self.parts["test"])
        return value, scores, reader.weights.numpy()

    def _reader(self, x: Means, read: Read) -> LayerReader:
        shape = x.values.shape[1:]
        mean, std = torch.zeros(shape), torch.ones(shape)
        if self.protocol.standardised:
            mean, std = x.moments()
        reduce = read.layer == ALL_LAYERS
        head = self.protocol.hidden_size, self.protocol.dropout, reduce
        return LayerReader(mean, std, len(self.classes), *head)

    @torch.no_grad()
    def _scores(self, reader: LayerReader, x: Means, part: Part) -> np.ndarray:
        """What is said of everything that is scored: a class, or numbers."""
        some = [
            reader(x[slice(start, start + AT_ONCE)])
            for start in range(0, len(x), AT_ONCE)
        ]
        outputs = torch.cat(some)
        if self.plan.aggregate == "probabilities":
            outputs = outputs.softmax(dim=1)
        mean = _mean_of(outputs, torch.as_tensor(part.unit)).numpy()
        return mean.argmax(axis=1) if self.task.kind == "single" else mean


LOSSES = {
    "single": nn.CrossEntropyLoss,
    "multi": nn.BCEWithLogitsLoss,
    "numbers": nn.MSELoss,
}


def _mean_of(outputs: Tensor, unit: Tensor) -> Tensor:
    """The mean over the clips of each unit; every unit has one at least."""
    total = torch.zeros(int(unit.max()) + 1, outputs.shape[1], dtype=outputs.dtype)
    return total.index_add(0, unit, outputs) / unit.bincount()[:, None]


def constant(task: MarbleTask, train: np.ndarray, test: np.ndarray) -> float:
    """What an answer reaches that is always the same and known from the training."""
    if task.kind == "multi":
        return chance(test)
    if task.kind == "numbers":
        return 0.0  # of the mean, by the definition of R²
    always = np.full(len(test), np.bincount(train).argmax())
    return metric_score(task.metric, test, always)


def _knows_groups(opened: Opened) -> bool:
    return any(one.labels.get(opened.labelled.group) for one in opened.recordings)


def _left_out(opened: Opened, usable: set) -> list[str]:
    notes = []
    if not _knows_groups(opened):
        lacking = f"{(opened.labelled.group or 'group').capitalize()}s are not known"
        notes.append(f"{lacking}: the interval is over recordings.")
    lost = len(opened.recordings) - len(usable)
    if lost or opened.left_out:
        notes.append(
            f"{len(opened.left_out)} recordings without a file or broken, and {lost} "
            "that could not be read, are left out."
        )
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
