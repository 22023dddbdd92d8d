"""The probes: logistic regressions, and those that are trained by gradient.

A logistic regression on standardised features is the weakest reader there is, so that
the score belongs to the features and not to the reader. Clips of one piece are alike,
so cross-validation never splits a piece. It chooses the strength of the penalty, and
the layer where there are several: which one tells most about a label is not known
before, and choosing by the test part would flatter whoever has more layers.

A learned mixture of layers and a hidden layer are trained by gradient. The mixture is
that of SUPERB (arXiv 2105.01051): a weight for every layer, softmax over them, learned
with the rest. Each layer is standardised first, so that a weight says how much a layer
is used and not how loud it is. With one layer nothing is mixed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from muq_plugins.evaluation.probing.clips import ProbeError
from muq_plugins.evaluation.probing.results import HIDDEN, LINEAR

READERS = (LINEAR, HIDDEN)
# Inverse strengths of the L2 penalty, from which cross-validation chooses.
PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5


@dataclass(frozen=True)
class ReaderSettings:
    """Which probes there are, and how they are trained."""

    readers: Sequence[str] = READERS  # "linear", "hidden layer" or both
    mixture: bool = True  # whether they also read a learned mixture of all layers
    # of the cross-validation that chooses the penalty and the layer for logistic
    # regressions
    folds: int = FOLDS
    hidden_size: int = 512  # width of the hidden layer, for probes that have one
    dropout: float = 0.2  # in the hidden layer
    lr: float = 1e-3  # learning rate of Adam
    mixture_lr: float = 3e-2  # that of the layer weights, which are few and start equal
    batch_size: int = 64  # clips in an update
    max_epochs: int = 200  # most passes over the training part
    patience: int = 20  # passes without a better validation loss after which it stops

    def __post_init__(self):
        if LINEAR not in self.readers or set(self.readers) - set(READERS):
            raise ProbeError(
                f"reader.readers must be [{LINEAR}] or [{', '.join(READERS)}], got "
                f"{list(self.readers)}: verdicts compare linear probes."
            )
        for name, value in vars(self).items():
            if name not in ("readers", "mixture", "dropout") and not value > 0:
                raise ProbeError(f"reader.{name} must be more than 0, got {value}.")
        if self.folds < 2:
            raise ProbeError(f"reader.folds must be 2 or more, got {self.folds}.")
        if not 0 <= self.dropout < 1:
            raise ProbeError(f"reader.dropout must be in 0..1, got {self.dropout}.")


class Regression(NamedTuple):
    """A logistic regression of one layer."""

    predictions: np.ndarray  # class of every test clip
    penalty: float  # the chosen inverse strength of the L2 penalty
    validation: float  # mean balanced accuracy over the folds of the training part


def fit_layers(
    x: np.ndarray,
    classes: np.ndarray,
    groups: Sequence[str],
    test_x: np.ndarray,
    seed: int = 0,
    folds: int = FOLDS,
) -> list[Regression]:
    """Probe every layer of (clips, layers, size) by itself.

    Classes weigh the same however many clips they have.
    """
    x, test_x = (np.asarray(part, dtype=np.float64) for part in (x, test_x))
    splits = _folds(classes, np.asarray(groups), seed, folds)
    results = []
    # The matrices are small: more threads cost forty times what they give.
    with threadpool_limits(1), warnings.catch_warnings():
        # It warns of predicted classes that a fold does not have.
        warnings.simplefilter("ignore", UserWarning)
        for layer in range(x.shape[1]):
            search = GridSearchCV(
                make_pipeline(
                    StandardScaler(),
                    LogisticRegression(class_weight="balanced", max_iter=1000),
                ),
                {"logisticregression__C": PENALTIES},
                scoring="balanced_accuracy",
                cv=splits,
                error_score="raise",
            ).fit(x[:, layer], classes)
            penalty, validation = search.best_params_, float(search.best_score_)
            predictions = search.predict(test_x[:, layer])
            results.append(Regression(predictions, *penalty.values(), validation))
    return results


def _folds(y, groups, seed: int, wanted: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Splits into training and held-out clips that do not split a piece."""
    pieces = len(np.unique(groups))
    largest_class = np.unique(y, return_counts=True)[1].max()
    folds = min(wanted, pieces, largest_class)
    if folds >= 2:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It warns of classes with fewer clips than folds. They take part in the
            # folds that they reach.
            warnings.simplefilter("ignore", UserWarning)
            splits = list(splitter.split(y, y, groups))
        splits = [split for split in splits if len(np.unique(y[split[0]])) >= 2]
        if splits:
            return splits
    raise ProbeError(
        f"the train part has {len(y)} clips of {pieces} pieces: too few to choose the "
        "penalty on folds that do not split a piece and train on two classes"
    )


class LayerReader(nn.Module):
    """Standardised layers, their mixture, and a linear or one-hidden-layer probe.

    The mixture is a weight for each layer, or one linear map of all of them to one.
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        outputs: int,
        hidden_size: int = 0,
        dropout: float = 0.0,
        reduce: bool = False,
    ):
        super().__init__()
        layers, size = mean.shape
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mixture = nn.Parameter(torch.zeros(layers))
        self.reduce = nn.Linear(layers * size, size) if reduce else None
        if hidden_size:
            self.head = nn.Sequential(
                nn.Linear(size, hidden_size),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden_size, outputs),
            )
        else:
            self.head = nn.Linear(size, outputs)

    @property
    def weights(self) -> Tensor:
        """How much of each layer is in the mixture (layers,), 1 in all."""
        return self.mixture.softmax(0).detach()

    def forward(self, x: Tensor) -> Tensor:
        """Read features."""
        x = (x - self.mean) / self.std
        if self.reduce is not None:
            return self.head(self.reduce(x.flatten(1)))
        return self.head(torch.einsum("nls,l->ns", x, self.mixture.softmax(0)))


class Rows(Protocol):
    """What a probe is trained on: features (rows, layers, size), a batch at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor: ...


class Targets(Protocol):
    """What it should say of them."""

    def __getitem__(self, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Fit:
    """A trained probe."""

    reader: LayerReader  # at its best validation loss
    epochs: int  # passes until then
    loss: float  # that loss

    @torch.no_grad()
    def scores(self, x: np.ndarray) -> np.ndarray:
        """Logits of the classes."""
        return self.reader(torch.as_tensor(x, dtype=torch.float32)).numpy()


def fit_reader(
    x: np.ndarray,
    targets: np.ndarray,
    valid_x: np.ndarray,
    valid_targets: np.ndarray,
    classes: int,
    hidden: bool,
    settings: ReaderSettings,
    seed: int = 0,
) -> Fit:
    """Train a probe, and stop when unseen clips stop to profit."""
    x, valid_x = (torch.as_tensor(part, dtype=torch.float32) for part in (x, valid_x))
    targets, valid_targets = map(torch.as_tensor, (targets, valid_targets))
    std = x.std(dim=0, correction=0)
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    criterion = _criterion(targets, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden_size = settings.hidden_size if hidden else 0
        reader = LayerReader(x.mean(dim=0), std, classes, hidden_size, settings.dropout)
        optimizer = torch.optim.Adam(
            [
                {"params": reader.head.parameters(), "lr": settings.lr},
                {"params": [reader.mixture], "lr": settings.mixture_lr},
            ]
        )
        found = train_reader(
            *(reader, optimizer, criterion, x, targets),
            lambda: criterion(reader(valid_x), valid_targets).item(),
            *(settings.batch_size, settings.max_epochs, settings.patience),
        )
    if found is None:
        raise ProbeError(
            f"A probe's validation loss was never finite: lower reader.lr "
            f"({settings.lr}) or look at the features."
        )
    return Fit(reader, *found)


def train_reader(
    reader: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Tensor, Tensor], Tensor],
    x: Rows,
    targets: Targets,
    judge: Callable[[], float],
    batch_size: int,
    max_epochs: int,
    patience: int,
    scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None,
    keep_last: bool = False,
    most_updates: int | None = None,
) -> tuple[int, float] | None:
    """Trains until what judges it does not get lower any more; leaves the best weights.

    Gives the best epoch and what it reached, None if that was never a number.
    `keep_last` leaves the weights of the last epoch. An epoch ends after so many
    updates. A scheduler is told the score, which is to rise: of its negative, a share
    that it has to fall by would be added.
    """
    best, lowest, best_epoch = None, float("inf"), 0
    for epoch in range(1, max_epochs + 1):
        reader.train()
        for batch in torch.randperm(len(x)).split(batch_size)[:most_updates]:
            optimizer.zero_grad()
            criterion(reader(x[batch]), targets[batch]).backward()
            optimizer.step()
        reader.eval()
        with torch.no_grad():
            reached = judge()
        if scheduler is not None:
            scheduler.step(-reached)
        if reached < lowest:
            best, lowest = copy.deepcopy(reader.state_dict()), reached
            best_epoch = epoch
        elif epoch - best_epoch >= patience:
            break
    if best is None:
        return None
    if not keep_last:
        reader.load_state_dict(best)
    return best_epoch, lowest


def _criterion(targets: Tensor, classes: int):
    """Cross-entropy of the kind that the targets ask for."""
    if targets.ndim == 2:
        return lambda logits, y: nn.functional.binary_cross_entropy_with_logits(
            logits, y.to(logits.dtype)
        )
    counts = torch.bincount(targets, minlength=classes).clamp(min=1)
    return nn.CrossEntropyLoss(weight=len(targets) / (classes * counts.float()))
