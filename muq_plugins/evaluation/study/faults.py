"""What is wrong with a `study.json`: the key, the value, and what there should be."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from muq_plugins.evaluation.probing.results import LOG_MEL, TRAINED, UNTRAINED

FORMAT = 1
METRIC = "balanced_accuracy"
ROUNDING = 1e-4  # numbers in the file have six digits
REFERENCES = (UNTRAINED, LOG_MEL)
KINDS = ("better", "rises", "less_spread")

# What there must be: a type, a test, and both in words. A list has one rule for all its
# elements; a mapping one for each key ("?": may be null or left out) or, under "*", one
# for all keys.
TEXT = str, str.strip, "a text"
NUMBER = (int, float), math.isfinite, "a finite number"
WHOLE = int, lambda value: value >= 0, "a whole number that is not negative"
ANY = object, lambda value: True, ""
PAIR = [((str, int), lambda value: True, "an experiment or a seed")]
MAPPING = dict, lambda value: True, "an object"
_COSTS = {
    "updates": WHOLE,
    "audio_seconds": NUMBER,
    "training_seconds?": NUMBER,
    "parameters?": WHOLE,
    "tokenizer_updates?": NUMBER,
    "tokenizer_audio_seconds?": NUMBER,
    "tokenizer_seconds?": NUMBER,
}
COSTS = tuple(key.rstrip("?") for key in _COSTS)
RUN = {"experiment": TEXT, "seed": WHOLE, **_COSTS}
PRETRAINED = {
    **{"num_codebooks": WHOLE, "codebook_size": WHOLE},
    "learning": {"updates": [WHOLE], "cross_entropy": [NUMBER]},
    **{"cross_entropy": NUMBER, "accuracy": NUMBER, "code_entropy": NUMBER},
    **{"usage": [NUMBER], "perplexity": [NUMBER]},
    "reconstruction_error_per_level?": [NUMBER],
}
SCORE = {"layers": [NUMBER], "chosen": WHOLE, "value": NUMBER, "hits?": TEXT}
TASK = {
    "metric": (str, METRIC.__eq__, f"{METRIC!r}, which hits are enough for"),
    "level?": TEXT,
    "chance": ((int, float), lambda share: 0 <= share < 1, "a share below 1"),
    "classes": [TEXT],
    "targets": [WHOLE],
    "pieces": [WHOLE],
}
FILE = {
    "format": (object, FORMAT.__eq__, f"{FORMAT}, the one this version reads"),
    **{"title": TEXT, "command": TEXT, "machine": MAPPING, "budget": MAPPING},
    "experiments": {"*": {"label": TEXT, "file": TEXT, "overrides": MAPPING}},
    **{"base": TEXT, "seeds": [WHOLE]},
    "groups": [{"title": TEXT, "x?": TEXT, "experiments": ANY}],
    "questions": [{"question": TEXT, "measure": TEXT}],
    "scores?": {"*": {"chance": NUMBER, "pieces?": [ANY]}},
    **{"tasks": {"*": TASK}, "runs": [RUN], "missing": [PAIR]},
}


def hits_of(score: dict) -> np.ndarray:
    """1 for every test clip that was recognised, else 0."""
    return np.array([letter == "1" for letter in score["hits"]], dtype=float)


def balanced_accuracy(hits: np.ndarray, targets: Sequence[int]) -> float:
    """The mean recall of the classes that occur."""
    totals, found = np.bincount(targets), np.bincount(targets, weights=hits)
    return float((found[totals > 0] / totals[totals > 0]).mean())


def faults(content: Any, measures: Iterable[str]) -> Iterator[str]:
    """What is wrong with a file. Only the first is sure: the next ones rely on it."""
    yield from _misfits(content, FILE)
    names, seeds, tasks = (content[key] for key in ("experiments", "seeds", "tasks"))
    if len({about["label"] for about in names.values()}) < len(names):
        yield _must("experiments", "experiments with different labels", names)
    if not seeds or len(set(seeds)) < len(seeds):
        yield _must("seeds", "different seeds, at least one", seeds)
    named = [("base", content["base"])]
    for index, group in enumerate(content["groups"]):
        place, members = f"groups[{index}]", group["experiments"]
        yield from _unknown(place, group, ("title", "x", "experiments"))
        if isinstance(members, list) and "x" in group:
            words = "an object from experiment to number, as there is an 'x'"
            yield _must(f"{place}.experiments", words, members)
        rule = {"*": NUMBER} if "x" in group else [TEXT]
        yield from _misfits(members, rule, f"{place}.experiments")
        if not members:
            yield _must(f"{place}.experiments", "at least one experiment", members)
        named += [(f"{place}.experiments", name) for name in members]
    for index, question in enumerate(content["questions"]):
        place = f"questions[{index}]"
        yield from _faults_of_question(place, question, measures)
        keys = {"better", "less_spread", "than"} & set(question)
        named += [(f"{place}.{key}", question[key]) for key in sorted(keys)]
        named += [(f"{place}.rises", name) for name in question.get("rises", {})]
    for place, name in named:
        if name not in names:
            yield _must(place, f"one of the experiments {', '.join(names)}", name)
    for name, task in tasks.items():
        place, clips, classes = f"tasks.{name}", task["targets"], len(task["classes"])
        if not clips or max(clips) >= classes:
            words = f"numbers below {classes}, of the classes"
            yield _must(f"{place}.targets", words, clips)
        if len(task["pieces"]) != len(clips):
            words = f"one number for each of the {len(clips)} clips"
            yield _must(f"{place}.pieces", words, task["pieces"])
    for index, run in enumerate(content["runs"]):
        if scores := content.get("scores"):
            yield from _faults_of_scores(f"runs[{index}]", run, scores)
        else:
            yield from _faults_of_run(f"runs[{index}]", run, tasks)
    there = Counter((run["experiment"], run["seed"]) for run in content["runs"])
    there += Counter(map(tuple, content["missing"]))
    expected = {(name, seed) for name in names for seed in seeds}
    for pair in [*there, *sorted(expected)]:
        words = "{} with seed {}".format(*(*pair, "?")[:2])
        if pair not in expected:
            yield f"there is {words}, which is not one of its experiments and seeds"
        if there[pair] > 1:
            yield f"{words} is {there[pair]} times in runs and missing together"
        if there[pair] < 1:
            yield f"{words} is neither in runs nor in missing"


def _faults_of_question(place: str, question: dict, measures) -> Iterator[str]:
    name, kinds = question["measure"], [kind for kind in KINDS if kind in question]
    if name not in measures and not name.startswith("probe:"):
        words = f"one of {', '.join(measures)} and probe:<task>"
        yield _must(f"{place}.measure", words, name)
    if len(kinds) != 1:
        words = "a question with one of 'better', 'rises' and 'less_spread'"
        yield _must(place, words, question)
    kind = kinds[0]
    rule = {"rises": {"*": NUMBER}} if kind == "rises" else {kind: TEXT, "than": TEXT}
    yield from _unknown(place, question, ("question", "measure", *rule))
    yield from _misfits(question, rule, place)
    x = question["rises"].values() if kind == "rises" else (1, 2)
    if len(set(x)) < 2 or min(x) <= 0:
        words = "at least two different numbers above 0"
        yield _must(f"{place}.rises", words, question["rises"])
    if kind != "rises" and question[kind] == question["than"]:
        yield _must(
            f"{place}.than", f"another experiment than {kind!r}", question[kind]
        )


def _faults_of_scores(place: str, run: dict, tests: dict) -> Iterator[str]:
    score = {"value": NUMBER, "per_query?": [NUMBER], "draws?": [NUMBER]}
    yield from _misfits(run, {"scores": dict.fromkeys(tests, score)}, place)
    for name, test in tests.items():
        value, found = (
            run["scores"][name]["value"],
            run["scores"][name].get("per_query"),
        )
        where, queries = f"{place}.scores.{name}", len(test.get("pieces") or ())
        if found is not None and len(found) != queries:
            words = f"one number for each of the {queries} queries"
            yield _must(f"{where}.per_query", words, found)
        if found and abs(value - np.mean(found)) > ROUNDING:
            yield _must(f"{where}.value", f"{np.mean(found):.6g}, their mean", value)


def _faults_of_run(place: str, run: dict, tasks: dict) -> Iterator[str]:
    yield from _misfits(run, PRETRAINED, place)
    learning, codebooks = run["learning"], run["num_codebooks"]
    steps, losses = learning["updates"], learning["cross_entropy"]
    if len(steps) != len(losses) or steps != sorted(set(steps)):
        words = "as many cross-entropies as updates, and rising updates"
        yield _must(f"{place}.learning", words, learning)
    for key in ("usage", "perplexity"):
        if len(run[key]) != codebooks or not codebooks:
            words = f"one number for each of the {codebooks} codebooks"
            yield _must(f"{place}.{key}", words, run[key])
    by_features = {TRAINED: SCORE, **{f"{name}?": SCORE for name in REFERENCES}}
    if tasks:
        rule = {"probe": dict.fromkeys(tasks, by_features)}
        yield from _misfits(run, rule, place)
    for name, task in tasks.items():
        clips = len(task["targets"])
        for features, score in run["probe"][name].items():
            where = f"{place}.probe.{name}.{features}"
            layers, chosen, hits = score["layers"], score["chosen"], score.get("hits")
            if chosen >= len(layers):
                words = f"one of {len(layers)} layers, counted from 0"
                yield _must(f"{where}.chosen", words, chosen)
            if abs(score["value"] - layers[chosen]) > ROUNDING:
                words = f"{layers[chosen]}, that of the chosen layer {chosen}"
                yield _must(f"{where}.value", words, score["value"])
            if hits is None:
                if features == TRAINED:
                    yield _must(where, "an object with the key 'hits'", score)
                continue
            if len(hits) != clips or set(hits) - {"0", "1"}:
                words = f"a 0 or 1 for each of the {clips} test clips"
                yield _must(f"{where}.hits", words, hits)
            counted = balanced_accuracy(hits_of(score), task["targets"])
            if abs(score["value"] - counted) > ROUNDING:
                words = f"{counted:.6g}, the balanced accuracy of the hits"
                yield _must(f"{where}.value", words, score["value"])


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
            known = ", ".join(sorted(keys))
            yield f"{place}.{key} is not known; there may be {known}"


def _must(place: str, expected: str, value: Any) -> str:
    words = repr(value)
    words = words if len(words) < 80 else f"{words[:77]}..."
    return f"{place or 'the file'} must be {expected}, got {words}"
