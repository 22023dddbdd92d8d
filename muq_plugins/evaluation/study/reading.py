"""Reading `study.json`, and refusing what does not fit together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from muq_plugins.evaluation.study.entries import Entry, read_entry
from muq_plugins.evaluation.study.reading_runs import read_run
from muq_plugins.evaluation.study.record import Experiment, Group, Question, Task
from muq_plugins.evaluation.study.study import Study

STUDY_FILE = "study.json"
FORMAT = 1
METRIC = "balanced_accuracy"
MEASURES = ("probe", "gain", "gain_area", "loss_area", "accuracy")


def read_study(folder: str | Path) -> Study:
    """Read what a study has found."""
    return parse_study(read_entry(Path(folder) / STUDY_FILE))


def parse_study(content: Entry) -> Study:
    """Make a study of what its file holds."""
    if content["format"].value != FORMAT:
        content["format"].fail(f"{FORMAT}, the one this version reads")
    experiments = {
        name: _experiment(entry)
        for name, entry in content["experiments"].mapping().items()
    }
    names = list(experiments)
    if len({experiment.label for experiment in experiments.values()}) < len(names):
        content["experiments"].fail("experiments with different labels")
    tasks = {
        name: _task(name, entry) for name, entry in content["tasks"].mapping().items()
    }
    seeds = [entry.whole() for entry in content["seeds"].elements()]
    if not seeds or len(set(seeds)) < len(seeds):
        content["seeds"].fail("different seeds, at least one")
    study = Study(
        file=content.file,
        title=content["title"].text(),
        command=content["command"].text(),
        machine={k: e.value for k, e in content["machine"].mapping().items()},
        budget={k: e.value for k, e in content["budget"].mapping().items()},
        base=_one_of(content["base"], names),
        seeds=seeds,
        experiments=experiments,
        groups=[_group(entry, names) for entry in content["groups"].elements()],
        questions=[
            _question(entry, names) for entry in content["questions"].elements()
        ],
        tasks=tasks,
        runs=[read_run(entry, tasks) for entry in content["runs"].elements()],
        missing=[_pair(entry, names) for entry in content["missing"].elements()],
    )
    _check_all_accounted_for(study)
    return study


def _experiment(entry: Entry) -> Experiment:
    return Experiment(
        entry["label"].text(),
        entry["file"].text(),
        {key: value.value for key, value in entry["overrides"].mapping().items()},
    )


def _task(name: str, entry: Entry) -> Task:
    if entry["metric"].value != METRIC:
        entry["metric"].fail(f"{METRIC!r}, which hits are enough for")
    classes = [c.text() for c in entry["classes"].elements()]
    targets = [c.whole() for c in entry["targets"].elements()]
    pieces = [c.whole() for c in entry["pieces"].elements()]
    if not targets:
        entry["targets"].fail("the class of at least one clip")
    if max(targets) >= len(classes):
        entry["targets"].fail(f"numbers below {len(classes)}, of the classes")
    if len(pieces) != len(targets):
        entry["pieces"].fail(f"one number for each of the {len(targets)} clips")
    chance = entry["chance"].number()
    if not 0 <= chance < 1:
        entry["chance"].fail("a share below 1")
    level = entry.optional("level")
    return Task(
        name,
        None if level is None else level.text(),
        chance,
        classes,
        np.array(targets),
        np.array(pieces),
    )


def _group(entry: Entry, names: list[str]) -> Group:
    _only(entry, {"title", "x", "experiments"})
    title, members = entry["title"].text(), entry["experiments"]
    if isinstance(members.value, list):
        if "x" in entry.mapping():
            members.fail("an object from experiment to number, as there is an 'x'")
        found = [_one_of(member, names) for member in members.elements()]
        group = Group(title, found)
    else:
        group = Group(title, *_along(members, names, entry["x"].text()))
    if not group.experiments:
        members.fail("at least one experiment")
    return group


def _question(entry: Entry, names: list[str]) -> Question:
    text, measure = entry["question"].text(), entry["measure"].text()
    if measure not in MEASURES and not measure.startswith("probe:"):
        entry["measure"].fail(f"one of {', '.join(MEASURES)} and probe:<task>")
    kinds = [k for k in ("better", "rises", "less_spread") if k in entry.mapping()]
    if len(kinds) != 1:
        entry.fail("a question with one of 'better', 'rises' and 'less_spread'")
    kind = kinds[0]
    if kind == "rises":
        _only(entry, {"question", "measure", "rises"})
        experiments, _, x = _along(entry["rises"], names, "")
        if len(set(x)) < 2 or min(x) <= 0:
            entry["rises"].fail("at least two different numbers above 0")
        return Question(text, measure, kind, experiments, x)
    _only(entry, {"question", "measure", "than", kind})
    pair = [_one_of(entry[key], names) for key in (kind, "than")]
    if pair[0] == pair[1]:
        entry["than"].fail(f"another experiment than {kind!r}")
    return Question(text, measure, kind, pair)


def _along(entry: Entry, names: list[str], x_name: str):
    """Experiments, the name of their number, and the numbers, lowest first."""
    for name in entry.mapping():
        _one_of(Entry(name, entry.file, f"a key of {entry.place}"), names)
    numbers = {name: value.number() for name, value in entry.mapping().items()}
    found = sorted(numbers, key=numbers.__getitem__)
    return found, x_name, [numbers[name] for name in found]


def _pair(entry: Entry, names: list[str]) -> tuple[str, int]:
    elements = entry.elements()
    if len(elements) != 2:
        entry.fail("an experiment and a seed")
    return _one_of(elements[0], names), elements[1].whole()


def _one_of(entry: Entry, names: list[str]) -> str:
    if entry.text() not in names:
        entry.fail(f"one of the experiments {', '.join(names)}")
    return entry.text()


def _only(entry: Entry, keys: set[str]) -> None:
    for key, value in entry.mapping().items():
        if key not in keys:
            raise ValueError(
                f"{value.file}: {value.place} is not known; there may be "
                f"{', '.join(sorted(keys))}"
            )


def _check_all_accounted_for(study: Study) -> None:
    """Every run is there or missing, once."""
    pairs = [(run.experiment, run.seed) for run in study.runs] + study.missing
    expected = {(name, seed) for name in study.experiments for seed in study.seeds}
    for (name, seed), times in Counter(pairs).items():
        if (name, seed) not in expected:
            raise ValueError(
                f"{study.file}: there is a run of {name} with seed {seed}, which is "
                "not one of the seeds and experiments of the study"
            )
        if times > 1:
            raise ValueError(
                f"{study.file}: {name} with seed {seed} is {times} times in runs and "
                "missing together"
            )
    if lost := sorted(expected - set(pairs)):
        raise ValueError(
            f"{study.file}: {lost[0][0]} with seed {lost[0][1]} is neither in runs nor "
            "in missing"
        )
