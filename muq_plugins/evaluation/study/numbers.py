"""A study on arrays: what its runs have measured, contrasts of them, and answers.

A measure is an array of rows and seeds. Rows are the experiments, then what probes of
the base read off an untrained encoder and off log-mel statistics. Where a run is
missing, or has no such number, there is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import (
    Estimate,
    Paired,
    draws,
    paired,
    recall_draws,
    spread_ratio,
)
from muq_plugins.evaluation.probing.results import TRAINED
from muq_plugins.evaluation.study.faults import (
    COSTS,
    KINDS,
    REFERENCES,
    faults,
    hits_of,
)
from muq_plugins.files import read_json

STUDY_FILE = "study.json"
SAMPLES = 1000  # draws of test pieces


class Measure(NamedTuple):
    """A number of a run: its name for a person, which way is better, and its unit."""

    title: str
    better: int = 1
    unit: str = "points"  # hundredths; or "nat", or "" for a bare number

    @property
    def sign(self) -> str:
        """What stands behind a value in a sentence."""
        return {"points": "%", "": ""}.get(self.unit, f" {self.unit}")

    @property
    def column(self) -> str:
        """Heading of a column with its values."""
        unit = self.sign.strip()
        return f"{self.title} ({unit})" if unit else self.title

    @property
    def lower_case(self) -> str:
        """Its name within a sentence."""
        is_word = self.title[1:2].islower()
        return self.title[0].lower() + self.title[1:] if is_word else self.title

    def show(self, value: float, plus: str = "") -> str:
        """A value without its unit, and with its sign if ``plus`` is "+"."""
        scale, decimals = (100, 1) if self.unit == "points" else (1, 3)
        return f"{scale * value:{plus}.{decimals}f}"


MEASURES = {
    "probe": Measure("Probe score"),
    "gain": Measure("Gain over counting", unit="nat"),
    "gain_area": Measure("Mean gain over counting", unit="nat"),
    "loss_area": Measure("Mean cross-entropy", -1, "nat"),
    "accuracy": Measure("Masked accuracy"),
    "map_at_10": Measure("mAP at 10", unit=""),
    "recall_at_1": Measure("Recall at 1"),
    "recall_at_5": Measure("Recall at 5"),
    "recall_at_10": Measure("Recall at 10"),
    "median_rank": Measure("Median rank", -1, ""),
    "music_to_text": Measure("Music to text, mAP at 10", unit=""),
    "chinese": Measure("Chinese, mAP at 10", unit=""),
    "roc_auc": Measure("Zero-shot ROC-AUC", unit=""),
    "average_precision": Measure("Zero-shot PR-AUC", unit=""),
}
# Comparable between codebooks of the same size only, and means of a validation curve.
SAME_SIZE, CURVES = ("accuracy", "loss_area"), ("gain_area", "loss_area")


class Study(NamedTuple):
    """What `study.json` says, and all its numbers as arrays."""

    file: str
    about: dict[str, Any]
    names: list[str]
    seeds: list[int]
    runs: dict[tuple[str, int], dict]
    values: dict[str, np.ndarray]  # of measures and costs: (rows, seeds)
    draws: dict[str, np.ndarray]  # of test pieces: (rows, seeds, draws)

    @property
    def headline(self) -> str:
        """The measure that the study is judged by first."""
        return "probe" if self.about["tasks"] else next(iter(self.scores), "gain")

    @property
    def scores(self) -> dict[str, dict]:
        """What music and text were tested with, by measure; nothing without them."""
        return self.about.get("scores") or {}

    def label(self, name: str) -> str:
        """Name of an experiment for a person."""
        return self.about["experiments"][name]["label"]

    def runs_of(self, name: str) -> list[dict]:
        """The finished runs of an experiment, seed by seed."""
        seeds = sorted(self.seeds)
        return [self.runs[name, seed] for seed in seeds if (name, seed) in self.runs]

    def rows(self, names: Sequence[str]) -> list[int]:
        """Where experiments and references are in the arrays."""
        return [[*self.names, *REFERENCES].index(name) for name in names]

    def of(self, measure: str, name: str) -> np.ndarray:
        """What the finished runs of an experiment or a reference have measured."""
        runs_of = self.about["base"] if name in REFERENCES else name
        there = [(runs_of, seed) in self.runs for seed in self.seeds]
        if measure not in self.values:
            return np.full(sum(there), np.nan)
        return self.values[measure][self.rows([name])[0], there]

    def measure(self, name: str) -> Measure:
        """One of the measures that this study has."""
        tasks = [f"probe:{task}" for task in self.about["tasks"]]
        known = {x: MEASURES[x] for x in MEASURES if x in self.values}
        known |= {x: Measure(f"Probe score of {x[6:]}") for x in tasks}
        if name not in known:
            words = f"unknown measure {name!r}; this study has {', '.join(known)}"
            raise UserError(f"{self.file}: {words}")
        return known[name]


def read_study(folder: str | Path) -> Study:
    """Reads what a study has found, or refuses it by file, key and value."""
    path = Path(folder) / STUDY_FILE
    if not path.is_file():
        raise UserError(f"there is no {path}: the study has not been collected")
    remedy = "run the study again, which reuses finished runs and writes the file anew"
    return parse_study(read_json(path, remedy), path)


def parse_study(content: Any, file: str | Path = STUDY_FILE) -> Study:
    """Makes a study of what its file holds."""
    for fault in faults(content, MEASURES):
        raise UserError(f"{file}: {fault}")
    names, seeds = list(content["experiments"]), content["seeds"]
    runs = {(run["experiment"], run["seed"]): run for run in content["runs"]}
    study = Study(str(file), content, names, seeds, runs, {}, {})
    for (name, seed), run in runs.items():
        column = seeds.index(seed)
        for key, value in _numbers(run).items():
            _put(study, study.values, key, name, column, value)
        for measure, test in study.scores.items():
            score = run["scores"][measure]
            _put(study, study.values, measure, name, column, score["value"])
            if drawn := score.get("draws") or _drawn(score, test):
                _put(study, study.draws, measure, name, column, drawn)
        for task, about in content["tasks"].items():
            for features, score in run["probe"][task].items():
                if features == TRAINED or name == content["base"]:
                    row = name if features == TRAINED else features
                    value, drawn = _probed(score, about)
                    chance = about["chance"]
                    _put(study, study.values, task, row, column, value)
                    value, drawn = ((x - chance) / (1 - chance) for x in (value, drawn))
                    _put(study, study.values, f"probe:{task}", row, column, value)
                    _put(study, study.draws, f"probe:{task}", row, column, drawn)
    for arrays in (study.values, study.draws):
        if probed := [arrays[name] for name in arrays if name.startswith("probe:")]:
            arrays["probe"] = np.mean(probed, axis=0)
    return study


def _put(study, arrays, measure: str, row: str, column: int, value) -> None:
    shape = len(study.names) + len(REFERENCES), len(study.seeds), *np.shape(value)
    array = arrays.setdefault(measure, np.full(shape, np.nan))
    array[study.rows([row])[0], column] = np.nan if value is None else value


def _numbers(run: dict) -> dict[str, float | None]:
    """The plain numbers of a run; None where there is none."""
    cost = {key: run.get(key) for key in COSTS}
    if "learning" not in run:  # music and text
        return cost
    steps, losses = run["learning"]["updates"], run["learning"]["cross_entropy"]
    entropy, area = run["code_entropy"], math.nan
    if len(steps) > 1:  # the mean over the updates that the curve spans
        area = trapezoid(losses, steps) / (steps[-1] - steps[0])
    errors = run.get("reconstruction_error_per_level") or [None]
    return {
        **cost,
        **{key: run[key] for key in ("accuracy", "cross_entropy", "code_entropy")},
        "gain": entropy - run["cross_entropy"],
        "gain_area": entropy - area,
        "loss_area": area,
        "usage": np.mean(run["usage"]),
        "perplexity": np.mean(run["perplexity"]),
        "reconstruction": errors[-1],
    }


def _drawn(score: dict, test: dict) -> list[float]:
    """The mean over queries in draws of test pieces; empty if queries are unknown."""
    if "per_query" not in score:
        return []
    weights = draws(test["pieces"], SAMPLES)
    return (weights @ score["per_query"] / weights.sum(axis=1)).tolist()


def _probed(score: dict, task: dict) -> tuple[float, np.ndarray]:
    """Balanced accuracy of the chosen layer, and in draws of test pieces."""
    drawn = np.full(SAMPLES, np.nan)
    if score.get("hits") is not None:
        clips = task["targets"], task["pieces"]
        drawn = recall_draws(hits_of(score), *clips, samples=SAMPLES)
    return score["layers"][score["chosen"]], drawn


def layer_scores(study: Study, name: str, features: str = TRAINED) -> list[np.ndarray]:
    """Probe score of every layer, the mean over the tasks, run by run."""
    found = []
    for run in study.runs_of(name):
        by_task = []
        for task, about in study.about["tasks"].items():
            layers = np.array(run["probe"][task][features]["layers"])
            by_task.append((layers - about["chance"]) / (1 - about["chance"]))
        size = min(map(len, by_task))
        found.append(np.mean([layers[:size] for layers in by_task], axis=0))
    return found


def contrast(study: Study, measure: str, weights: dict[str, float]) -> Paired | None:
    """A mean (one weight of 1), a difference (1 and -1) or a slope, paired by seed.

    Test pieces are drawn for all experiments at once. None if they share no seed.
    """
    if measure not in study.values:
        return None
    rows, factors = study.rows(list(weights)), np.array(list(weights.values()))
    sums = factors @ study.values[measure][rows]
    there = np.isfinite(sums)
    if not there.any():
        return None
    drawn = study.draws.get(measure)
    if drawn is not None:
        drawn = np.einsum("e,esd->sd", factors, drawn[rows][:, there])
    return paired(sums[there], drawn)


def slope_weights(x: Sequence[float]) -> list[float]:
    """Weights whose sum with y is its slope by least squares, per doubling of x."""
    doublings = np.log2(x) - np.log2(x).mean()
    return (doublings / (doublings**2).sum()).tolist()


class Answer(NamedTuple):
    """What the runs say about a question."""

    question: str
    answer: str  # "supported", "refuted", "undecided" or "unfinished"
    numbers: str  # with the interval, or why there is none
    compared: str = ""
    measure: Measure | None = None
    unit: str = ""
    found: Paired | Estimate | None = None

    @property
    def sentence(self) -> str:
        """The answer as a finding of the report."""
        if self.answer == "unfinished":
            return f"{self.question} Not finished, {self.numbers}."
        words = f"{self.answer.capitalize()} at this budget: {self.numbers}"
        return f"{self.question} {words} ({self.compared})."


def kind_of(question: dict) -> str:
    """What is asked: one of "better", "rises" and "less_spread"."""
    return next(kind for kind in KINDS if kind in question)


def along(numbers: dict[str, float]) -> list[str]:
    """Experiments in the order of their numbers."""
    return sorted(numbers, key=numbers.__getitem__)


def answer(study: Study, question: dict) -> Answer:
    """Answers a question by numbers alone.

    Supported if the whole 95 % interval lies on the side that the question asks about,
    refuted if it lies on the other side, else undecided. An interval that leaves the
    test pieces out is too narrow to decide.
    """
    kind, text = kind_of(question), question["question"]
    x = question.get("rises", {})
    names = along(x) if x else [question[kind], question["than"]]
    missing = [
        f"{study.label(name)} (seed {seed})"
        for name, seed in study.about["missing"]
        if name in names
    ]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        words = f"missing: {', '.join(missing[:5])}{more}"
        return Answer(text, "unfinished", words)
    measure = study.measure(question["measure"])
    first, last = study.label(names[0]), study.label(names[-1])
    what = measure.lower_case
    if measure.better < 0 and kind != "less_spread":
        what += ", where lower is better"
    compared = {
        "better": f"{what}: {first} minus {last}",
        "rises": f"{what}: slope from {first} to {last}",
        "less_spread": f"standard deviation of the {what}: {first} divided by {last}",
    }[kind]
    unit = (measure.unit + (" per doubling" if x else "")).strip()
    if reason := not_comparable(study, question["measure"], names):
        return Answer(text, "undecided", reason, compared, measure, unit)
    seeds, over = len(study.seeds), f"over {len(study.seeds)} seeds"
    decides = True
    if kind == "less_spread":
        better, null = -1, 1
        both = [study.of(question["measure"], name) for name in names]
        found = spread_ratio(*both) if seeds > 1 else None
        if found is None:
            words = "at least one of the two does not vary at all"
            words = words if seeds > 1 else "one seed"
            return Answer(text, "undecided", words, compared, measure, unit)
        words = f"ratio {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] {over}"
    else:
        better, null = measure.better, 0
        weights = slope_weights([x[name] for name in names]) if x else [1.0, -1.0]
        weights = dict(zip(names, weights, strict=True))
        found = contrast(study, question["measure"], weights)
        words = f"{measure.show(found.value, '+')} {unit}".strip()
        if question["measure"] in study.scores and math.isnan(found.from_groups):
            decides, over = False, f"{over} only, without the choice of test pieces"
        several = f"{words} {ends(measure, found)} {over}"
        words = f"one seed, {words}" if math.isnan(found.low) else several
    low, high = sorted(better * (end - null) for end in (found.low, found.high))
    said = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
    said = said if decides else "undecided"
    return Answer(text, said, words, compared, measure, unit, found)


def ends(measure: Measure, found: Paired) -> str:
    """An interval for a person."""
    return f"[{measure.show(found.low)}, {measure.show(found.high)}]"


def not_comparable(study: Study, measure: str, names: Sequence[str]) -> str:
    """Why a measure says nothing about some experiments; empty if it does."""
    runs = [run for name in names for run in study.runs_of(name)]
    sizes = sorted({run.get("codebook_size") for run in runs})
    if measure in SAME_SIZE and len(sizes) > 1:
        words = " and ".join(map(str, sizes))
        return f"not comparable, as codebooks have {words} entries"
    if measure in CURVES:
        steps = {tuple(run["learning"]["updates"]) for run in runs}
        if len(steps) > 1:
            return "not comparable, as the runs were validated after different updates"
        if any(len(once) < 2 for once in steps):
            return "not measured, as the runs were validated too seldom for a curve"
    return ""
