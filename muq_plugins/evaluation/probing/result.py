"""The results of probing for one label.

Authors
 * The MuQ for SpeechBrain team 2026
"""

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
    """Score of one kind of features, read in one way.

    Arguments
    ---------
    features : str
        "log-mel statistics", "untrained encoder" or "trained encoder".
    reader : str
        "linear" or "hidden layer".
    layer : int, str or None
        The hidden state, 0 being the front end; "mixture" for the learned one; None if
        there are no layers.
    value : float
        The primary metric on the test part, the mean over seeds.
    low, high : float
        Ends of its 95 % interval, over pieces.
    metrics : dict of float
        All metrics, likewise means over seeds.
    validation : float or None
        The primary metric where the layer is chosen: the folds of the training part,
        or the validation part.
    chosen : bool
        Whether this is the layer that validation chooses.
    seed_std : float or None
        Standard deviation of the primary metric over seeds; None without seeds.
    penalty : float or None
        The chosen inverse strength of the L2 penalty.
    weights : list of float or None
        The learned mixture, the mean over seeds.

    Example
    -------
    >>> Row(TRAINED, LINEAR, 3, 0.5, 0.4, 0.6, {"balanced_accuracy": 0.5}).chosen
    False
    """

    features: str
    reader: str
    layer: int | str | None
    value: float
    low: float
    high: float
    metrics: dict[str, float]
    validation: float | None = None
    chosen: bool = False
    seed_std: float | None = None
    penalty: float | None = None
    weights: list[float] | None = None


@dataclass(frozen=True)
class Comparison:
    """How much better the trained encoder is than a reference, on the same clips.

    Arguments
    ---------
    reader : str
        "linear" or "hidden layer".
    reference : str
        The other features; each at the layer that validation chooses.
    difference : float
        In the primary metric.
    low, high : float
        Ends of its 95 % interval, from a paired bootstrap over pieces.

    Example
    -------
    >>> Comparison(LINEAR, UNTRAINED, 0.1, 0.02, 0.18).low
    0.02
    """

    reader: str
    reference: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskResult:
    """All scores for one label.

    Arguments
    ---------
    label, kind, group, level
        See `ProbeTask`.
    metric : str
        The primary metric.
    chance : float
        What guessing reaches in it.
    classes : list of str
        The classes.
    clips : dict of int
        Clips of each part.
    test_groups : int
        Pieces in the test part.
    rows : list of Row
        The scores.
    comparisons : list of Comparison
        Of the trained encoder with what it has to beat.
    best_layers : list of float
        For each hidden state of the trained encoder, the share of resamplings of the
        test part in which the linear probe is best there.
    notes : list of str
        What was left out or decided.

    Example
    -------
    >>> result = TaskResult("key", "single", None, None, "balanced_accuracy", 0.5,
    ...                     ["C", "D"], {"train": 8}, 4)
    >>> result.row(TRAINED, LINEAR) is None
    True
    """

    label: str
    kind: str
    group: str | None
    level: str | None
    metric: str
    chance: float
    classes: list[str]
    clips: dict[str, int]
    test_groups: int
    rows: list[Row] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    best_layers: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, features: str, reader: str, layer="chosen") -> Row | None:
        """One of the rows.

        Arguments
        ---------
        features, reader : str
            See `Row`.
        layer : int or str
            A hidden state, "mixture", or "chosen" for what validation chooses.

        Returns
        -------
        Row or None
            None if there is none.
        """
        for row in self.rows:
            if (row.features, row.reader) == (features, reader) and (
                row.chosen if layer == "chosen" else row.layer == layer
            ):
                return row
        return None

    def curve(self, features: str, reader: str) -> list[Row]:
        """The rows of single layers.

        Arguments
        ---------
        features, reader : str
            See `Row`.

        Returns
        -------
        list of Row
            From the front end to the last layer.
        """
        return [
            row
            for row in self.rows
            if (row.features, row.reader) == (features, reader)
            and isinstance(row.layer, int)
        ]
