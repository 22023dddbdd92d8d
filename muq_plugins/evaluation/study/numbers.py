"""A study on arrays: what it may ask, what its runs have measured, and contrasts.

A measure is an array of rows and seeds. Rows are the experiments, then what probes of
the base read off an untrained encoder and off log-mel statistics. Where a run is
missing, or has no such number, there is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from muq_plugins.errors import UserError, nearest
from muq_plugins.evaluation.intervals import Paired, mean_draws, paired, recall_draws
from muq_plugins.evaluation.probing.frame_labels import NOTES
from muq_plugins.evaluation.probing.results import LOG_MEL, TRAINED, UNTRAINED
from muq_plugins.evaluation.probing.tasks import ProbeTask
from muq_plugins.evaluation.study.collect import (
    STUDY_FILE,
    compared_experiments,
)
from muq_plugins.files import read_json

SAMPLES = 1000  # draws of test pieces
REFERENCES = (UNTRAINED, LOG_MEL)
KINDS = ("better", "rises", "less_spread")  # of questions


class Measure(NamedTuple):
    """A number of a run: its name for a person, which way is better, and its unit."""

    title: str
    better: int = 1
    unit: str = "points"  # hundredths; or "nat", or "" for a bare number
    scale: float = 1.0  # from the lowest to the highest value that there can be

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
        scale, decimals = self.form
        return f"{scale * value:{plus}.{decimals}f}"

    def ends(self, found: Paired) -> str:
        """An interval for a person; empty for one seed."""
        if math.isnan(found.low):
            return "(the seeds say nothing)" if len(found.per_seed) > 1 else ""
        return f"[{self.show(found.low)}, {self.show(found.high)}]"

    @property
    def form(self) -> tuple[int, int]:
        """What its values are multiplied by, and decimals."""
        return (100, 1) if self.unit == "points" else (1, 3)


MEASURES = {
    "probe": Measure("Probe score"),
    NOTES: Measure("Notes AP"),
    "gain": Measure("Gain over counting", 1, "nat", math.inf),
    "gain_area": Measure("Mean gain over counting", 1, "nat", math.inf),
    "loss_area": Measure("Mean cross-entropy", -1, "nat", math.inf),
    "accuracy": Measure("Masked accuracy"),
    "map_at_10": Measure("mAP at 10", unit=""),
    "recall_at_1": Measure("Recall at 1"),
    "recall_at_5": Measure("Recall at 5"),
    "recall_at_10": Measure("Recall at 10"),
    "median_rank": Measure("Median rank", -1, "", math.inf),
    "music_to_text": Measure("Music to text, mAP at 10", unit=""),
    "chinese": Measure("Chinese, mAP at 10", unit=""),
    "roc_auc": Measure("Zero-shot ROC-AUC", unit=""),
    "average_precision": Measure("Zero-shot PR-AUC", unit=""),
}
# Comparable between codebooks of the same size only, and means of a validation curve.
SAME_SIZE, CURVES = ("accuracy", "loss_area"), ("gain_area", "loss_area")
# Of a training on codes; the others but those of probes are of music and text.
OF_CODES = ("gain", "gain_area", "loss_area", "accuracy")
OF_PROBES = ("probe", NOTES)
MUSIC_SCRIPT = "train_mulan.py"

# What runs have cost: names for a person, and keys of `study.json`.
BUDGET = {
    "Updates": "updates",
    "Audio (s)": "audio_seconds",
    "Time (s)": "training_seconds",
    "Parameters": "parameters",
    "Tokenizer: updates": "tokenizer_updates",
    "Tokenizer: audio (s)": "tokenizer_audio_seconds",
    "Tokenizer: time (s)": "tokenizer_seconds",
}

# What there must be: a type, a test, and both in words. A list has one rule for all its
# elements; a mapping one for each key ("?": may be null or left out) or, under "*", one
# for all keys.
TEXT = str, str.strip, "a text"
NUMBER = (int, float), math.isfinite, "a finite number"
MAPPING = dict, lambda value: True, "an object"
MEMBERS = (list, dict), len, "experiments, or the number of each on the axis 'x'"
ANY = object, lambda value: True, ""
ASKED = {
    **{"title": TEXT, "base": TEXT, "budget": MAPPING},
    "experiments": {"*": {"label": TEXT, "overrides?": MAPPING}},
    "groups": [{"title": TEXT, "x?": TEXT, "experiments": MEMBERS}],
    "questions": [{"question": TEXT, "measure": TEXT}],
}
# Of the file that `collect_study` writes, the keys that are read.
FORMATS = 1, 2
OF_A_RUN = ("num_codebooks", "codebook_size", "learning", "usage", "perplexity")
PRETRAINED = (*OF_A_RUN, "accuracy", "cross_entropy", "code_entropy")
TASK = ("chance", "classes", "pieces")
FILE = {
    "format": (
        object,
        FORMATS.__contains__,
        f"one of {FORMATS}, which this version reads",
    ),
    **ASKED,
    **dict.fromkeys(("command", "machine", "seeds", "missing"), ANY),
    "tasks": {"*": dict.fromkeys(TASK, ANY)},
    "runs": [dict.fromkeys(("experiment", "seed", "updates", "audio_seconds"), ANY)],
}
REMEDY = "run the study again, which reuses finished runs and writes the file anew"


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
        if not self.about["tasks"]:
            return next(iter(self.scores), "gain")
        asked = {question["measure"] for question in self.about["questions"]}
        return NOTES if NOTES in asked and NOTES in self.values else "probe"

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

    def is_silent(self, name: str) -> bool:
        """Whether a run of an experiment names no codes."""
        return any("learning" not in run for run in self.runs_of(name))

    def rows(self, names: Sequence[str]) -> list[int]:
        """Where experiments and references are in the arrays."""
        return [[*self.names, *REFERENCES].index(name) for name in names]

    def put(self, measure: str, name: str, seed: int, value, drawn=None) -> None:
        """Takes down a number of a run, and the same in draws of test pieces."""
        place = self.rows([name])[0], self.seeds.index(seed)
        rows = len(self.names) + len(REFERENCES), len(self.seeds)
        value = math.nan if value is None else value
        for arrays, found in ((self.values, value), (self.draws, drawn)):
            if found is not None:
                empty = np.full((*rows, *np.shape(found)), np.nan)
                arrays.setdefault(measure, empty)[place] = found

    def of(self, measure: str, name: str) -> np.ndarray:
        """What the finished runs of an experiment or a reference have measured."""
        runs_of = self.about["base"] if name in REFERENCES else name
        there = [(runs_of, seed) in self.runs for seed in self.seeds]
        if measure not in self.values:
            return np.full(sum(there), np.nan)
        return self.values[measure][self.rows([name])[0], there]

    def knows(self, reference: str) -> bool:
        """Whether all probes of the base have read a reference too."""
        values = self.of("probe", reference)
        return bool(len(values)) and bool(np.isfinite(values).all())

    @property
    def levels(self) -> dict[str, float]:
        """What the headline is compared with."""
        if self.scores:
            return {"chance": self.scores[self.headline]["chance"]}
        if not self.about["tasks"]:
            return {"a model that only counts codes": 0.0}
        known = filter(self.knows, REFERENCES)
        levels = {name: float(self.of(self.headline, name).mean()) for name in known}
        tasks = self.about["tasks"].items() if self.headline == NOTES else ()
        chances = [about["chance"] for name, about in tasks if is_notes(name)]
        return {**levels, "chance": next(iter(chances), 0.0)}

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
    return parse_study(read_json(path, REMEDY), path)


def parse_study(content: Any, file: str | Path = STUDY_FILE) -> Study:
    """Makes a study of what its file holds."""
    for fault in _faults(content):
        raise UserError(f"{file}: {fault}: {REMEDY}.")
    names, seeds = list(content["experiments"]), content["seeds"]
    runs = {(run["experiment"], run["seed"]): run for run in content["runs"]}
    study = Study(str(file), content, names, seeds, runs, {}, {})
    for (name, seed), run in runs.items():
        for measure, value in _numbers(run).items():
            study.put(measure, name, seed, value)
        for measure, test in study.scores.items():
            score = run["scores"][measure]
            drawn = score.get("draws") or _drawn(score, test)
            study.put(measure, name, seed, score["value"], drawn)
        for task, about in content["tasks"].items():
            for features, score in run["probe"][task].items():
                if features == TRAINED or name == content["base"]:
                    row = name if features == TRAINED else features
                    value, drawn = _probed(score, about)
                    study.put(task, row, seed, value)
                    if is_notes(task):
                        study.put(NOTES, row, seed, value, drawn)
                    chance = about["chance"]
                    value, drawn = ((x - chance) / (1 - chance) for x in (value, drawn))
                    study.put(f"probe:{task}", row, seed, value, drawn)
    for arrays in (study.values, study.draws):
        if probed := [arrays[name] for name in arrays if name.startswith("probe:")]:
            arrays["probe"] = np.mean(probed, axis=0)
    return study


def is_notes(task: str) -> bool:
    """Whether a task of a probe is that of notes."""
    return task.split("/")[-1] == NOTES


def _numbers(run: dict) -> dict[str, float | None]:
    """The plain numbers of a run; None where there is none."""
    cost = {key: run.get(key) for key in BUDGET.values()}
    if "learning" not in run:  # it names no codes
        return cost
    steps, losses = run["learning"]["updates"], run["learning"]["cross_entropy"]
    entropy, area = entropy_of(run), math.nan
    if len(steps) > 1:  # the mean over the updates that the curve spans
        area = trapezoid(losses, steps) / (steps[-1] - steps[0])
    errors = run.get("reconstruction_error_per_level") or [None]
    return {
        **cost,
        **{key: run[key] for key in ("accuracy", "cross_entropy")},
        "code_entropy": entropy,
        "gain": entropy - run["cross_entropy"],
        "gain_area": entropy - area,
        "loss_area": area,
        "usage": np.mean(run["usage"]),
        "perplexity": np.mean(run["perplexity"]),
        "reconstruction": errors[-1],
    }


def entropy_of(run: dict) -> float:
    """The entropy of the codes; its bias was not taken off in files of before."""
    return run["code_entropy"] + run.get("entropy_bias", 0.0)


def _drawn(score: dict, test: dict) -> np.ndarray | None:
    """The mean over queries in draws of test pieces; None if queries are unknown."""
    if "per_query" not in score:
        return None
    return mean_draws(score["per_query"], test["pieces"], SAMPLES)


def _probed(score: dict, task: dict) -> tuple[float, np.ndarray]:
    """The score of the chosen layer, and in draws of test pieces."""
    drawn = np.full(SAMPLES, np.nan)
    if "per_clip" in score:
        drawn = mean_draws(score["per_clip"], task["pieces"], SAMPLES)
    if score.get("hits") is not None:
        every = [score["hits"]] if isinstance(score["hits"], str) else score["hits"]
        hits = np.mean([[letter == "1" for letter in hits] for hits in every], axis=0)
        drawn = recall_draws(hits, task["targets"], task["pieces"], SAMPLES)
    return score["layers"][score["chosen"]], drawn


def layer_scores(study: Study, name: str, features: str = TRAINED) -> list[np.ndarray]:
    """The headline of every layer, the mean over its tasks, run by run."""
    found, of_notes = [], study.headline == NOTES
    for run in study.runs_of(name):
        by_task = []
        for task, about in study.about["tasks"].items():
            layers = np.array(run["probe"][task][features]["layers"])
            if not of_notes:
                by_task.append((layers - about["chance"]) / (1 - about["chance"]))
            elif is_notes(task):
                by_task.append(layers)
        found.append(np.mean(by_task, axis=0))
    return found


def contrast(study: Study, measure: str, weights: dict[str, float]) -> Paired | None:
    """A mean (one weight of 1), a difference (1 and -1) or a slope, paired by seed.

    Test pieces are drawn for all experiments at once. None if they share no seed; an
    interval that is wider than the scale of the measure is none.
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
    found = paired(sums[there], drawn)
    if found.high - found.low > study.measure(measure).scale:
        nothing = dict.fromkeys(("low", "high", "from_seeds"), math.nan)
        found = found._replace(**nothing)
    return found


def along(numbers: dict[str, float]) -> list[str]:
    """Experiments in the order of their numbers."""
    return sorted(numbers, key=numbers.__getitem__)


def slope_weights(x: Sequence[float]) -> list[float]:
    """Weights whose sum with y is its slope by least squares, per doubling of x."""
    doublings = np.log2(x) - np.log2(x).mean()
    return (doublings / (doublings**2).sum()).tolist()


def check_study(
    hparams: dict[str, Any],
    file: str | Path,
    tasks_of: Callable[[dict], list[ProbeTask]] | None = None,
) -> None:
    """Refuse, before anything runs, what could not be answered when all has run.

    ``tasks_of`` gives the tasks of a probe, and refuses those of no clip.
    """
    probe = {"experiment": TEXT, "overrides?": MAPPING}
    experiments = {"*": {"label": TEXT, **probe}}
    rules = {
        **ASKED,
        "experiments": experiments,
        "seeds?": [NUMBER],
        "devices?": [TEXT],
    }
    if tasks_of:
        rules["probes?"] = {"*": probe}
    for fault in _misfits(hparams, rules):
        raise UserError(f"{file}: {fault}")
    names = compared_experiments(hparams)
    scripts = {hparams["experiments"][name].get("script", "") for name in names}
    of_music = [x for x in MEASURES if x not in (*OF_CODES, *OF_PROBES)]
    measures = of_music if scripts == {MUSIC_SCRIPT} else list(OF_CODES)
    probes = hparams["probes"] or {}
    measures += ["probe"] if probes else []
    for name, about in probes.items():
        tasks = tasks_of(about) if tasks_of else []
        for task in tasks:
            if task.kind == "multi":
                raise UserError(
                    f"{file}: probes.{name}: a study compares labels with one class a "
                    f"clip or frame by frame; {task.label} has several: take it out of "
                    "the tasks."
                )
        labels = [task.label for task in tasks] if tasks_of else [""]
        measures += [NOTES] * (not tasks_of or NOTES in labels)
        measures += [f"probe:{name}/{label}" for label in labels]
    for fault in _wrongly_asked(hparams, names, measures):
        raise UserError(f"{file}: {fault}")


def _faults(content: Any) -> Iterator[str]:
    """What is wrong with a file. Only the first is sure: the next ones rely on it."""
    yield from _misfits(content, FILE)
    yield from _wrongly_asked(content, content["experiments"], [*MEASURES, "probe:"])
    rule = {}
    if content.get("scores"):
        rule = {"scores": dict.fromkeys(content["scores"], {"value": ANY})}
    if content["tasks"]:
        rule["probe"] = {
            name: {TRAINED: dict.fromkeys(("layers", "chosen", kept), ANY)}
            for name, task in content["tasks"].items()
            for kept in ["hits" if "targets" in task else "per_clip"]
        }
    for index, run in enumerate(content["runs"]):
        # What names no codes is compared by its probes.
        of_codes = dict.fromkeys(PRETRAINED, ANY) if run.keys() & {*PRETRAINED} else {}
        yield from _misfits(run, {**of_codes, **rule}, f"runs[{index}]")


def _wrongly_asked(content: dict, names, measures: list[str]) -> Iterator[str]:
    """What is wrong with groups and questions about the experiments ``names``.

    A measure that ends in ":" or "/" stands for all that begin with it.
    """
    one = str, lambda name: name in names, f"one of the experiments {', '.join(names)}"
    above = (int, float), lambda value: 0 < value < math.inf, "a number above 0"
    yield from _misfits(content, {"base": one})
    labels = [content["experiments"][name]["label"] for name in names]
    if len(set(labels)) < len(labels):
        yield _must("experiments", "experiments with different labels", labels)
    for index, group in enumerate(content["groups"]):
        place = f"groups[{index}]"
        yield from _unknown(place, group, ("title", "x", "experiments"))
        rule = {"experiments": {"*": NUMBER} if "x" in group else [TEXT]}
        yield from _misfits(group, rule, place)
        for name in group["experiments"]:
            yield from _misfits(name, one, f"{place}.experiments")
    for index, question in enumerate(content["questions"]):
        place, name = f"questions[{index}]", question["measure"]
        if not any(name == x or x[-1] in ":/" and name.startswith(x) for x in measures):
            words = f"one of {', '.join(measures)}, which this study can measure"
            yield _must(f"{place}.measure", words, name)
        kinds = [kind for kind in KINDS if kind in question]
        if len(kinds) != 1:
            words = "a question with one of 'better', 'rises' and 'less_spread'"
            yield _must(place, words, question)
        kind, asked = kinds[0], question[kinds[0]]
        keys = (kind,) if kind == "rises" else (kind, "than")
        yield from _unknown(place, question, ("question", "measure", *keys))
        if kind == "rises":
            yield from _misfits(question, {kind: {"*": above}}, place)
            if len(set(asked.values())) < 2:
                yield _must(f"{place}.rises", "at least two different numbers", asked)
            for name in asked:
                yield from _misfits(name, one, f"{place}.rises")
        else:
            yield from _misfits(question, {kind: one, "than": one}, place)
            if asked == question["than"]:
                yield _must(f"{place}.than", f"another experiment than {kind!r}", asked)


def _misfits(value: Any, rule: Any, place: str = "") -> Iterator[str]:
    """What is not as its rule says."""
    if isinstance(rule, tuple):
        kind, test, words = rule
        is_bool = isinstance(value, bool) and kind is not object
        if is_bool or not isinstance(value, kind) or not test(value):
            yield _must(place, words, value)
    elif not isinstance(value, type(rule)):
        yield _must(place, "a list" if isinstance(rule, list) else "an object", value)
    elif isinstance(rule, list):
        for index, element in enumerate(value):
            yield from _misfits(element, rule[0], f"{place}[{index}]")
    else:
        rules = dict.fromkeys(value, rule["*"]) if "*" in rule else rule
        for key, inner in rules.items():
            name = key if "*" in rule else key.rstrip("?")
            if name not in value and name == key:
                yield f"{place or 'the file'} has no key {name!r}"
            if value.get(name) is not None or name == key:
                yield from _misfits(value[name], inner, f"{place}.{name}".lstrip("."))


def _unknown(place: str, value: dict, keys: Sequence[str]) -> Iterator[str]:
    for key in value:
        if key not in keys:
            yield f"{place}.{key} is not known; the nearest key is {nearest(key, keys)}"


def _must(place: str, expected: str, value: Any) -> str:
    words = repr(value)
    words = words if len(words) < 80 else f"{words[:77]}..."
    return f"{place or 'the file'} must be {expected}, got {words}"
