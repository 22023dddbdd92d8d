"""All stages of an experiment shortened together by one word, for a first look."""

from __future__ import annotations

from typing import Any

from muq_plugins.errors import UserError, nearest
from muq_plugins.experiment.extends import parse_yaml, resolve_experiment, tag_of
from muq_plugins.shipped import find_experiment

OPTION = "budget"
# Also in the files of MARBLE and zero-shot, which name their corpus where they read it.
CORPUS_MINUTES = (
    "corpus_minutes",
    "labels.corpus_minutes",
    "clips.prepare.corpus_minutes",
)
# With fewer, a label that probes read has no two classes to train and to test on.
LABELLED_MINUTES = 40
# Of these keys, an experiment gets those that it has.
BUDGETS: dict[str, dict[str, int]] = {
    "tiny": {
        **dict.fromkeys(CORPUS_MINUTES, 20),
        "tokenizer.optimizer_step_limit": 100,
        "tokenizer.valid_interval": 50,
        "optimizer_step_limit": 50,
        "warmup_steps": 10,
        "valid_interval": 25,
        "log_interval": 5,
        "number_of_epochs": 4,
        "frozen_epochs": 3,
    },
    "small": {
        **dict.fromkeys(CORPUS_MINUTES, 100),
        "tokenizer.optimizer_step_limit": 300,
        "tokenizer.valid_interval": 100,
        "optimizer_step_limit": 200,
        "warmup_steps": 30,
        "valid_interval": 100,
        "log_interval": 10,
        "number_of_epochs": 10,
        "frozen_epochs": 8,
    },
    "full": {},
}


def spend(path: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides of a command line, with those that its budget stands for."""
    tree = parse_yaml(resolve_experiment(path), path)
    given = {key: value for key, value in overrides.items() if key != OPTION}
    name = overrides[OPTION]
    if OPTION in tree:  # a study has one of its own
        if isinstance(name, dict):
            return overrides
        raise UserError(
            f"--{OPTION} {name}: {path} has a {OPTION} of its own for all of its "
            f"runs. Give --{OPTION}.optimizer_step_limit, --{OPTION}.corpus_minutes."
        )
    if name not in BUDGETS:
        raise UserError(
            f"--{OPTION} {name} is none of {', '.join(BUDGETS)}; the nearest is "
            f"{nearest(name, BUDGETS)}."
        )
    found = _shortened(tree, BUDGETS[name])
    if not found and BUDGETS[name]:
        raise UserError(f"--{OPTION} {name} says nothing about {path}: leave it out.")
    return found | given


def _shortened(tree: dict[str, Any], budget: dict[str, int]) -> dict[str, int]:
    found = {key: value for key, value in budget.items() if _has(tree, key.split("."))}
    if "tasks" in tree:
        its_minutes = found.keys() & {*CORPUS_MINUTES}
        found |= {key: max(found[key], LABELLED_MINUTES) for key in its_minutes}
    for key, stage in tree.items():
        if isinstance(stage, dict) and {"experiment", "overrides"} <= stage.keys():
            path = str(find_experiment(stage["experiment"]))
            inner = _shortened(parse_yaml(resolve_experiment(path), path), budget)
            handed_on = {**(tree.get("overrides") or {}), **stage["overrides"]}
            found |= {
                f"{key}.overrides.{name}": value
                for name, value in inner.items()
                if tag_of(handed_on.get(name)) != "!ref"
            }
    return found


def _has(tree: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
