"""Probes of one encoder: trained on the CPU, layer by layer, from kept features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from muq_plugins.evaluation.kept import digest
from muq_plugins.evaluation.marble.protocols import ALL_LAYERS, Plan, Protocol, Read
from muq_plugins.evaluation.marble.task import MarbleTask, Opened
from muq_plugins.evaluation.probing.clips import ProbeError
from muq_plugins.evaluation.probing.readers import (
    LayerReader,
    Rows,
    Targets,
    train_reader,
)
from muq_plugins.evaluation.probing.results import (
    HIDDEN,
    MIXTURE,
    Found,
    Row,
    kept_in,
    spread,
)
from muq_plugins.evaluation.probing.store import Stored
from muq_plugins.evaluation.scores import metric_score, metric_scores

logger = get_logger(__name__)

# Raised whenever a change of the code changes what is read.
FORMAT = 2
# Of the weights of a mixture, which are few and start equal.
MIXTURE_LR = 3e-2
AT_ONCE = 1024


class Tried(NamedTuple):
    """What one training has come to."""

    reached: float  # in validation
    scores: np.ndarray  # of everything that is scored in the test part
    metrics: dict[str, float]
    weights: np.ndarray  # of the layers in the mixture


@dataclass(frozen=True)
class Reading(ABC):
    """One task that is read off one encoder."""

    task: MarbleTask
    protocol: Protocol
    plan: Plan
    name: str  # of the encoder
    parts: Mapping[str, Any]  # what there is of each part, with its features as `x`
    classes: list[str]
    seeds: list[int]

    @abstractmethod
    def about(self, part: Any) -> list:
        """What a result depends on in one part, besides its features."""

    @abstractmethod
    def training(self, x: Stored) -> tuple[Rows, Targets, nn.Module]:
        """What a probe is trained on, and its loss."""

    @abstractmethod
    def reached(self, reader: LayerReader, x: Stored) -> float:
        """How good it is in validation."""

    @abstractmethod
    def tested(
        self, reader: LayerReader, x: Mapping[str, Stored]
    ) -> tuple[np.ndarray, dict[str, float]]:
        """What it says of the test part, or how good that is, and all metrics."""

    def of_layers(self, x: Stored, layers: list[int]) -> Stored:
        """Features of some layers."""
        return x.only(layers)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that a head gives."""

    @abstractmethod
    def constant(self) -> float:
        """What an answer reaches that is always the same, known from the training."""

    def found(self, folder: str | Path) -> Found:
        """A row and predictions (seeds, what is scored, ...) of everything it reads.

        Each is kept: what was stopped goes on with the next layer.
        """
        found, layers = [], self.parts["train"].x.shape[0]
        parts = {
            part: [its.x.key, digest(its.x.rows.tobytes()), *self.about(its)]
            for part, its in self.parts.items()
        }
        recipe = self.plan.recipe._replace(frames=repr(self.plan.frames))
        for read in self.protocol.reads(self.plan.recipe, layers):
            content = {
                "format": FORMAT,
                "task": [self.task.name, self.task.kind, self.plan.metric],
                "protocol": asdict(self.protocol),
                "plan": [*recipe, self.plan.lrs, self.plan.aggregate],
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
        x = {part: self.of_layers(its.x, read.used) for part, its in self.parts.items()}
        first, *others = self.seeds
        tried = [(self._fit(read, x, lr, first), lr) for lr in self.plan.lrs]
        tried = [(one, lr) for one, lr in tried if one is not None]
        if not tried:
            raise ProbeError(
                f"{self.task.name}: no probe of {self.name} could be trained with the "
                f"learning rates {self.plan.lrs}: look at the features."
            )
        best, lr = max(tried, key=lambda one: one[0].reached)
        every = [best, *(self._fit(read, x, lr, seed) for seed in others)]
        every, metric = [one for one in every if one is not None], self.plan.metric
        by_seed = [one.metrics for one in every]
        means = {key: float(np.mean([m[key] for m in by_seed])) for key in by_seed[0]}
        row = Row(
            *(self.name, HIDDEN, read.layer, *[means[metric]] * 3, means),
            validation=float(np.mean([one.reached for one in every])),
            seed_std=spread([m[metric] for m in by_seed]),
            lr=lr,
        )
        if read.layer == MIXTURE:
            mixed = np.zeros(self.parts["train"].x.shape[0])
            mixed[read.used] = np.mean([one.weights for one in every], axis=0)
            row = replace(row, weights=mixed.round(4).tolist())
        return row, np.array([one.scores for one in every])

    def _fit(
        self, read: Read, x: Mapping[str, Stored], lr: float, seed: int
    ) -> Tried | None:
        """One training; None if validation was never a number."""
        recipe, protocol = self.plan.recipe, self.protocol
        rows, targets, loss = self.training(x["train"])
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
                    optimizer, "max", factor=factor, patience=patience
                )
            found = train_reader(
                *(reader, optimizer, loss, rows, targets),
                lambda: -self.reached(reader, x["valid"]),
                *(recipe.batch_size, recipe.max_epochs, recipe.patience),
                *(scheduler, protocol.keep_last, recipe.most_updates),
            )
        if found is None:
            return None
        with torch.no_grad():
            value = -found[1]
            if protocol.keep_last:
                value = self.reached(reader, x["valid"])
            return Tried(value, *self.tested(reader, x), reader.weights.numpy())

    def _reader(self, x: Stored, read: Read) -> LayerReader:
        mean, std = torch.zeros(x.shape), torch.ones(x.shape)
        if self.protocol.standardised:
            mean, std = x.moments()
        reduce = read.layer == ALL_LAYERS
        head = self.protocol.hidden_size, self.protocol.dropout, reduce
        return LayerReader(mean, std, self.outputs, *head)


class Part(NamedTuple):
    """The clips of one part of a task, and what is scored of them."""

    x: Stored
    targets: np.ndarray  # of the clips
    unit: np.ndarray  # what is scored, of each clip: its recording, or itself
    truth: np.ndarray  # of what is scored
    groups: list[str]


def clip_part(
    opened: Opened, x: Stored, whose: np.ndarray, places: np.ndarray, plan: Plan
) -> Part:
    """What one encoder says of some recordings."""
    rows = np.flatnonzero(np.isin(whose, places))
    recording = whose[rows]
    if plan.aggregate is None:
        unit, scored = np.arange(len(rows)), recording
    else:
        unit, scored = np.searchsorted(places, recording), places
    groups = groups_of(opened, scored)
    targets = opened.targets
    return Part(x.at(rows), targets[recording], unit, targets[scored], groups)


def groups_of(opened: Opened, places: Sequence[int]) -> list[str]:
    """What intervals are over: the artist of a recording, or itself."""
    every = (opened.recordings[at] for at in places)
    group = opened.labelled.group
    return [str(one.labels.get(group) or one.name) for one in every]


class ClipReading(Reading):
    """What holds of a whole recording is read off means of its clips."""

    def about(self, part: Part) -> list:
        """See `Reading`."""
        return [part.groups, *(digest(a.tobytes()) for a in (part.unit, part.targets))]

    def of_layers(self, x: Stored, layers: list[int]) -> Stored:
        """One alone is read at once."""
        x = x.only(layers)
        return x.in_memory() if len(layers) == 1 else x

    def training(self, x: Stored):
        """See `Reading`."""
        targets = torch.as_tensor(self.parts["train"].targets)
        targets = targets.long() if self.task.kind == "single" else targets.float()
        return x, targets, LOSSES[self.task.kind]()

    def reached(self, reader: LayerReader, x: Stored) -> float:
        """See `Reading`."""
        metric = self.plan.recipe.chosen_by or self.plan.metric
        valid = self.parts["valid"]
        return metric_score(metric, valid.truth, self._scores(reader, x, valid))

    def tested(self, reader: LayerReader, x: Mapping[str, Stored]):
        """See `Reading`."""
        test, metric = self.parts["test"], self.plan.metric
        scores = self._scores(reader, x["test"], test)
        return scores, metric_scores(metric, test.truth, scores, self.classes)

    @property
    def outputs(self) -> int:
        """See `Reading`."""
        return len(self.classes)

    def constant(self) -> float:
        """See `Reading`."""
        return constant(self.task, self.parts["train"].truth, self.parts["test"].truth)

    @torch.no_grad()
    def _scores(self, reader: LayerReader, x: Stored, part: Part) -> np.ndarray:
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
        return metric_score(task.metric, test, np.zeros(test.shape))
    if task.kind == "numbers":
        # Of the mean of what is tested, by the definition of R²: no constant that only
        # knows the training part reaches more.
        return 0.0
    always = np.full(len(test), np.bincount(train).argmax())
    return metric_score(task.metric, test, always)
