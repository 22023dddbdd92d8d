"""The results of probing for one label."""

from __future__ import annotations

from dataclasses import dataclass, field

LOG_MEL = "log-mel statistics"
UNTRAINED = "untrained encoder"
TRAINED = "trained encoder"

LINEAR = "linear"
HIDDEN = "hidden layer"
MIXTURE = "mixture"


@dataclass(frozen=True)
class Row:
    """Score of one kind of features, read in one way."""

    features: str  # "log-mel statistics", "untrained encoder" or "trained encoder"
    reader: str  # "linear" or "hidden layer"
    # the hidden state, 0 being the front end; "mixture" for the learned one; None if
    # there are no layers
    layer: int | str | None
    value: float  # the primary metric on the test part, the mean over seeds
    low: float  # ends of its 95 % interval, over pieces
    high: float  # ends of its 95 % interval, over pieces
    metrics: dict[str, float]  # all metrics, likewise means over seeds
    # the primary metric where the layer is chosen: the folds of the training part, or
    # the validation part
    validation: float | None = None
    chosen: bool = False  # whether this is the layer that validation chooses
    # standard deviation of the primary metric over seeds; None without seeds
    seed_std: float | None = None
    penalty: float | None = None  # the chosen inverse strength of the L2 penalty
    weights: list[float] | None = None  # the learned mixture, the mean over seeds


@dataclass(frozen=True)
class Comparison:
    """How much better the trained encoder is than a reference, on the same clips."""

    reader: str  # "linear" or "hidden layer"
    reference: str  # the other features; each at the layer that validation chooses
    difference: float  # in the primary metric
    low: float  # ends of its 95 % interval, from a paired bootstrap over pieces
    high: float  # ends of its 95 % interval, from a paired bootstrap over pieces


@dataclass(frozen=True)
class TaskResult:
    """All scores for one label."""

    label: str
    kind: str
    group: str | None
    level: str | None
    metric: str  # the primary metric
    chance: float  # what guessing reaches in it
    classes: list[str]  # the classes
    clips: dict[str, int]  # clips of each part
    test_groups: int  # pieces in the test part
    rows: list[Row] = field(default_factory=list)  # the scores
    # of the trained encoder with what it has to beat
    comparisons: list[Comparison] = field(default_factory=list)
    # for each hidden state of the trained encoder, the share of resamplings of the test
    # part in which the linear probe is best there
    best_layers: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out or decided

    def row(self, features: str, reader: str, layer="chosen") -> Row | None:
        """One of the rows."""
        for row in self.rows:
            if (row.features, row.reader) == (features, reader) and (
                row.chosen if layer == "chosen" else row.layer == layer
            ):
                return row
        return None

    def curve(self, features: str, reader: str) -> list[Row]:
        """The rows of single layers."""
        return [
            row
            for row in self.rows
            if (row.features, row.reader) == (features, reader)
            and isinstance(row.layer, int)
        ]
