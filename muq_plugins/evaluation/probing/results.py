"""Scores and predictions of a probe: in memory, and as the files in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import Estimate, ends, interval, mean_draws
from muq_plugins.evaluation.kept import digest, load_arrays, save_arrays
from muq_plugins.evaluation.scores import DRAWS, metric_draws
from muq_plugins.files import read_json, replace_file

LOG_MEL = "log-mel statistics"
UNTRAINED = "untrained encoder"
TRAINED = "trained encoder"

LINEAR = "linear"
HIDDEN = "hidden layer"
MIXTURE = "mixture"

SCORES_FILE = "scores.json"
TASKS_FOLDER = "tasks"
FINAL_FOLDER = "probe"  # of the probe that ends a training, in its run folder
FINAL_LABEL = "family"
FILE_OF_BEFORE = "probe.json"  # in place of that folder

# What decides a score beside the encoder, as `TaskResult.about` has it. The first two
# are of a benchmark; the others were not always noted.
PLACE = ("protocol", "split")
SETTINGS = (
    *("cutting", "aggregate", "learning_rates", "seeds"),
    *("windows", "reader", "annotations"),
)


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
    high: float
    metrics: dict[str, float]  # all metrics, likewise means over seeds
    # the primary metric where the layer is chosen: the folds of the training part, or
    # the validation part
    validation: float | None = None
    chosen: bool = False  # whether this is the layer that validation chooses
    # standard deviation of the primary metric over seeds; None without seeds
    seed_std: float | None = None
    penalty: float | None = None  # the chosen inverse strength of the L2 penalty
    lr: float | None = None  # the chosen learning rate, where there was a choice
    weights: list[float] | None = None  # the learned mixture, the mean over seeds
    # the primary metric of every initialisation of the untrained encoder, which all the
    # other numbers are means over; None for one that is not untrained, or of before
    initialisations: list[float] | None = None

    @property
    def key(self) -> str:
        """What its predictions are called."""
        return f"{self.features}/{self.reader}/{self.layer}"

    @property
    def place(self) -> str:
        """Its layer, for a table."""
        return "-" if self.layer is None else str(self.layer)


@dataclass(frozen=True)
class Comparison:
    """How much better the trained encoder is than a reference, on the same clips."""

    reader: str  # "linear" or "hidden layer"
    reference: str  # the other features; each at the layer that validation chooses
    difference: float  # in the primary metric
    low: float  # ends of its 95 % interval, from a paired bootstrap over pieces
    high: float

    def __str__(self):
        points = f"difference {100 * self.difference:+.1f} points"
        return f"{points}, {ends(self.low, self.high)}"


@dataclass(frozen=True)
class TaskResult:
    """All scores for one label."""

    label: str
    kind: str
    group: str | None
    level: str | None
    metric: str  # the primary metric
    chance: float  # what guessing reaches in it
    classes: list[str]
    clips: dict[str, int]  # clips of each part
    test_groups: int  # pieces in the test part
    rows: list[Row] = field(default_factory=list)  # the scores
    # of the trained encoder with what it has to beat
    comparisons: list[Comparison] = field(default_factory=list)
    # for each hidden state of the trained encoder, the share of resamplings of the test
    # part in which the linear probe is best there
    best_layers: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out or decided
    about: dict = field(default_factory=dict)  # what it rests on, see `SETTINGS`
    # "targets" and "groups" of the test part, and scores (seeds, clips, ...) by the key
    # of their row; they have a file of their own. Of the kind "frames", there is the
    # primary metric of each clip in their place, or with what it counts, (..., 2)
    predictions: dict[str, np.ndarray] = field(
        default_factory=dict, compare=False, repr=False
    )

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

    def called(self, features: str) -> str:
        """What a person reads for a kind of features: frames are no statistics."""
        is_frames = self.kind == "frames" and features == LOG_MEL
        return "log-mel frames" if is_frames else features

    def against(self, reference: str) -> list[Estimate]:
        """Each layer of the trained encoder minus a reference, on the same clips.

        That is the same layer, or all there is where it has none.
        """
        ours, theirs = (self.curve(name, LINEAR) for name in (TRAINED, reference))
        theirs = theirs or [self.row(reference, LINEAR)] * len(ours)
        return [
            interval(one.value - other.value, self.draws(one) - self.draws(other))
            for one, other in zip(ours, theirs, strict=True)
        ]

    def chosen(self, reader: str = LINEAR) -> list[Row]:
        """Each kind of features at its layer, the trained encoder last."""
        return [row for row in self.rows if row.chosen and row.reader == reader]

    def recalls(self, row: Row) -> dict[str, float]:
        """Share of the test clips of each class that is recognised."""
        targets = self.predictions["targets"]
        hits = (self.predictions[row.key] == targets).mean(axis=0)
        return {
            self.classes[number]: float(hits[targets == number].mean())
            for number in np.unique(targets)
        }

    def draws(self, row: Row) -> np.ndarray:
        """The primary metric in many resamplings of the pieces, the mean over seeds."""
        known = self.predictions
        if self.kind == "frames":
            each, groups = known[row.key], known["groups"]
            if each.ndim == 2:
                return mean_draws(each.mean(axis=0), groups, DRAWS)
            # Of a benchmark, where not all count the same.
            drawn = [mean_draws(some[:, 0], groups, DRAWS, some[:, 1]) for some in each]
            return np.mean(drawn, axis=0)
        return np.mean(
            [
                metric_draws(self.metric, known["targets"], scores, known["groups"])
                for scores in known[row.key]
            ],
            axis=0,
        )

    @property
    def headline(self) -> Row:
        """The score of what was asked for: the first encoder, or the trained one."""
        name = next(iter(self.about.get("encoders", [TRAINED])))
        return self.row(name, LINEAR) or self.row(name, HIDDEN)

    def differs(self, other: TaskResult) -> str | None:
        """Why another result of this task is not to be compared; None if it is."""
        for name in ("kind", "metric", "classes"):
            if getattr(self, name) != getattr(other, name):
                return f"the {name} differ"
        known = [
            name for name in SETTINGS if name in self.about and name in other.about
        ]
        for name in (*PLACE, *known):
            values = [one.about.get(name) for one in (self, other)]
            if values[0] != values[1]:
                return f"{name} {values[0]} is not {values[1]}"
        readers = [one.headline.reader for one in (self, other)]
        if readers[0] != readers[1]:
            return f"one is read by a {readers[0]} probe, one by a {readers[1]} probe"
        for key in ("targets", "groups"):
            pair = (probe.predictions.get(key) for probe in (self, other))
            if not np.array_equal(*pair):
                return "they were not tested on the same clips"
        return None

    def gain(self, other: TaskResult) -> Estimate | None:
        """How much better the encoder is than that of another probe.

        Of the same pieces, so that those that are hard for both do not widen the
        interval; None if the other one was not tested on the same clips.
        """
        if self.differs(other):
            return None
        ours, theirs = self.headline, other.headline
        return interval(
            ours.value - theirs.value, self.draws(ours) - other.draws(theirs)
        )


Found = list[tuple[Row, np.ndarray]]  # a row and its predictions


def kept_in(
    folder: str | Path,
    about: dict,
    read: Callable[[], Found],
    skipped: Sequence[str] = (),
) -> Found:
    """What was read before of the same, or is read now and kept for the next time.

    Unless something was ``skipped`` meanwhile, which may be read the next time.
    """
    path = Path(folder) / f"reading-{digest(about)}.npz"
    if path.is_file():
        arrays = load_arrays(path)
        rows = [Row(**row) for row in json.loads(str(arrays["rows"]))]
        return [(row, arrays[f"scores_{i}"]) for i, row in enumerate(rows)]
    found = read()
    if skipped:
        return found
    arrays = {f"scores_{i}": scores for i, (_, scores) in enumerate(found)}
    rows = json.dumps([asdict(row) for row, _ in found])
    save_arrays(path, rows=np.array(rows), **arrays)
    return found


def mean_of_initialisations(found: list[Found]) -> Found:
    """What was read off several initialisations, as the mean over them."""
    if not found[1:]:
        return found[0]
    merged = []
    for same in zip(*found, strict=True):
        rows, scores = zip(*same, strict=True)
        values, first = [row.value for row in rows], rows[0]
        known = {
            "metrics": {
                key: float(np.mean([row.metrics[key] for row in rows]))
                for key in first.metrics
            },
            "penalty": None,  # each has its own
            "lr": None,
            "initialisations": values,
        }
        for key in ("value", "low", "high", "validation", "seed_std"):
            if getattr(first, key) is not None:
                known[key] = float(np.mean([getattr(row, key) for row in rows]))
        if first.weights is not None:
            mixed = np.mean([row.weights for row in rows], axis=0)
            known["weights"] = mixed.round(4).tolist()
        merged.append((replace(first, **known), np.concatenate(scores)))
    return merged


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; one seed has none."""
    return float(np.std(values)) if len(values) > 1 else None


def resampled(
    result: TaskResult,
    ours: str = TRAINED,
    references: Sequence[str] = (UNTRAINED, LOG_MEL),
) -> TaskResult:
    """A result with what resamplings of the test part say about its rows."""
    draws = {row.key: result.draws(row) for row in result.rows}
    rows = []
    for row in result.rows:
        _, low, high = interval(row.value, draws[row.key])
        rows.append(replace(row, low=low, high=high))
    chosen = {(row.features, row.reader): row for row in rows if row.chosen}
    comparisons = []
    for reader in (LINEAR, HIDDEN):
        for reference in references:
            row, other = chosen.get((ours, reader)), chosen.get((reference, reader))
            if row is not None and other is not None:
                sample = draws[row.key] - draws[other.key]
                found = interval(row.value - other.value, sample)
                comparisons.append(Comparison(reader, reference, *found))
    shares = []
    if layers := [draws[row.key] for row in result.curve(ours, LINEAR)]:
        best = np.bincount(np.argmax(layers, axis=0), minlength=len(layers))
        shares = (best / best.sum()).round(4).tolist()
    return replace(result, rows=rows, comparisons=comparisons, best_layers=shares)


def save_results(folder: str | Path, results: list[TaskResult]) -> None:
    """Write the predictions of a probe, and all scores into one JSON file."""
    for result in results:
        save_arrays(predictions_file(folder, result.label), **result.predictions)
    content = [asdict(replace(result, predictions={})) for result in results]
    text = json.dumps(content, indent=1)
    replace_file(Path(folder) / SCORES_FILE, text.encode())


def load_results(folder: str | Path) -> list[TaskResult]:
    """The scores of a probe, without the predictions."""
    path = Path(folder) / SCORES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: the probe has not finished.")
    results = []
    for about in read_json(path, "probe again"):
        about["rows"] = [Row(**row) for row in about["rows"]]
        about["comparisons"] = [Comparison(**row) for row in about["comparisons"]]
        results.append(TaskResult(**about))
    return results


def load_predictions(folder: str | Path, label: str) -> dict[str, np.ndarray]:
    """The predictions of a finished task."""
    path = predictions_file(folder, label)
    if not path.is_file():
        raise UserError(
            f"There is no {path}: {SCORES_FILE} alone has no predictions, which are in "
            f"the folder {TASKS_FOLDER} beside it. Copy the whole folder of the probe."
        )
    return load_arrays(path)


def predictions_file(folder: str | Path, label: str) -> Path:
    """Where the predictions of a task are, which odd labels may share."""
    name = re.sub(r"[^\w.-]", "_", label)
    return Path(folder) / TASKS_FOLDER / f"{name}.npz"


def load_final_probe(run_folder: str | Path) -> TaskResult | None:
    """The probe that ended a training, with its predictions, if there was one."""
    folder, old = (Path(run_folder) / it for it in (FINAL_FOLDER, FILE_OF_BEFORE))
    if (folder / SCORES_FILE).is_file():
        (result,) = load_results(folder)
        return replace(result, predictions=load_predictions(folder, result.label))
    if old.is_file():
        return _of_before(read_json(old))
    return None


def _of_before(probes: list[dict]) -> TaskResult:
    """What a run has kept in probe.json before its probe was as all the others."""
    last = probes[-1]
    number = {label: index for index, label in enumerate(last["classes"])}
    targets = np.array([number[label] for label in last["labels"]])
    known = {"targets": targets, "groups": np.array(last["groups"])}
    rows = []
    for old in probes:
        scores = {"balanced_accuracy": old["balanced_accuracy"]}
        scores |= {"accuracy": old["accuracy"], "macro_f1": old["macro_f1"]}
        place = old["name"], LINEAR, old["layer"], old["balanced_accuracy"]
        valid, penalty = old.get("validation"), old["penalty"]
        row = Row(*place, *old["interval"], scores, valid, True, penalty=penalty)
        known[row.key] = np.array([[number[label] for label in old["predictions"]]])
        rows.append(row)
    clips = {"train": last["train_clips"], "valid": 0, "test": len(targets)}
    task = FINAL_LABEL, "single", "piece", None, "balanced_accuracy", last["chance"]
    about = last["classes"], clips, len(set(last["groups"])), rows
    return resampled(TaskResult(*task, *about, predictions=known))
