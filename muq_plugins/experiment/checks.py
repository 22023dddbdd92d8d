"""Checks of a merged experiment before any of its objects is built."""

import inspect
import math
import pydoc
from collections.abc import Callable
from typing import Any

from muq_plugins.errors import UserError, nearest
from muq_plugins.experiment.extends import (
    CALLABLE_TAGS,
    Location,
    hint,
    spell,
    tag_of,
    walk,
)

# Of any stage of a training; what is no number (False is 0) is for others to judge.
ABOVE_ZERO = {
    *("clip_seconds", "windows_per_clip", "max_windows", "optimizer_step_limit"),
    *("seconds", "number_of_epochs", "window_seconds", "corpus_minutes"),
    # With 0, each new checkpoint would take all others along, and itself.
    *("log_interval", "valid_interval", "checkpoints_to_keep"),
}
NOT_BELOW_ZERO = {"lr", "weight_decay", "warmup_steps", "num_workers"}
# The others may be infinite: no validation before the end, all windows.
FINITE = {"clip_seconds", "seconds", "window_seconds", "corpus_minutes", "lr"}
SHARES = {"max_bad_fraction"}


def check_placeholders(tree: dict) -> None:
    """Refuse an experiment with values that the user still has to give."""
    missing = []
    for location, node in walk(tree):
        if tag_of(node) == "!PLACEHOLDER":
            # The command line reaches a list only as a whole.
            keys = [part for part in location if not isinstance(part, int)]
            missing.append(f"--{spell(tuple(keys))} VALUE")
    if missing:
        raise UserError(
            "The experiment needs values that only you know; add to the command: "
            + " ".join(dict.fromkeys(missing))
        )


def check_numbers(tree: dict) -> None:
    """Refuse lengths, counts and rates that nothing can be trained with."""
    for location, value in walk(tree):
        if not isinstance(value, (int, float)):
            continue
        name = location[-1]
        if name in ABOVE_ZERO and not value > 0:
            raise UserError(f"{spell(location)} is {value}: give a number above 0.")
        if name in NOT_BELOW_ZERO and not value >= 0:
            raise UserError(f"{spell(location)} is {value}: give 0 or more.")
        if name in SHARES and not 0 <= value <= 1:
            raise UserError(f"{spell(location)} is {value}: give a share from 0 to 1.")
        if name in FINITE and math.isinf(value):
            raise UserError(f"{spell(location)} is {value}: give a finite number.")


def check_callables(tree: dict) -> None:
    """Refuse classes and functions that do not exist or do not take the arguments."""
    for location, node in walk(tree):
        tag = tag_of(node)
        if not tag.startswith(CALLABLE_TAGS):
            continue
        kind, name = tag.split(":", maxsplit=1)
        target = pydoc.locate(name)
        if target is None:
            raise UserError(
                f"{spell(location)}: there is no class or function {name}"
                f"{_likely(name)}; check its spelling, and that its package is "
                f"installed."
            )
        if callable(target):
            _check_arguments(location, name, target, node, partial=kind == "!name")


def _likely(name: str) -> str:
    """What a name most likely means whose last part alone is wrong."""
    module, _, last = name.rpartition(".")
    known = pydoc.locate(module) if module else None
    close = "" if known is None else nearest(last, dir(known), 0.6)
    return f", but {module}.{close}" if close else ""


def _check_arguments(
    location: Location, name: str, target: Callable, node: Any, partial: bool
) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some builtins do not tell their arguments
        return
    args, kwargs = _arguments(node)
    parameters = signature.parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in kwargs:
            if key not in parameters:
                raise UserError(
                    f"{spell(location)}: {name} has no argument '{key}'"
                    f"{hint(key, parameters, location)}."
                )
    try:
        bind = signature.bind_partial if partial else signature.bind
        bind(*args, **kwargs)
    except TypeError as error:
        raise UserError(
            f"{spell(location)}: {name}: {error}; it takes {signature}."
        ) from error


def _arguments(node: Any) -> tuple[list, dict]:
    if isinstance(node, dict):
        if node.keys() == {"_args", "_kwargs"}:  # HyperPyYAML's form of both
            return node["_args"], node["_kwargs"]
        return [], node
    if isinstance(node, list):
        return node, {}
    return [], {}
