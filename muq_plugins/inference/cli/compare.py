"""``muq-plugins compare``: two encoders on the same test recordings, task by task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muq_plugins.errors import UserError
from muq_plugins.inference.cli.options import report_problems

if TYPE_CHECKING:
    from muq_plugins.evaluation.probing.results import TaskResult

RESULT = typer.Argument(help="Folder of a probe or of MARBLE, or its scores.json.")


def compare(ours: Annotated[Path, RESULT], theirs: Annotated[Path, RESULT]) -> int:
    """How much better is one encoder than another, on the same test recordings?

    Takes two results of `recipes/MARBLE/probe.py` or of `recipes/MuQ/probe.py`, each
    with its first encoder at the layer that validation has chosen. The interval is that
    of the difference, by a paired bootstrap. Results under different protocols or
    settings, or on other recordings, are not compared; the exit code is 1 if there are
    any.
    """
    from muq_plugins.evaluation.intervals import ends

    found, others = _results(ours), _results(theirs)
    if not (shared := [label for label in found if label in others]):
        raise UserError(
            f"{ours} and {theirs} share no task: there are {', '.join(found)} and "
            f"{', '.join(others)}."
        )
    problems = []
    for label in shared:
        one, other = found[label], others[label]
        if reason := one.differs(other):
            problems.append(f"{label}: {reason}")
            continue
        gain = one.gain(other)
        values = f"{one.headline.value:.1%} and {other.headline.value:.1%}"
        points = f"{100 * gain.value:+.1f} points, {ends(gain.low, gain.high)}"
        print(f"{label} ({one.metric}): {values}, {points}")
    return report_problems("Not to be compared:", problems)


def _results(path: Path) -> dict[str, TaskResult]:
    """The tasks of one result with their predictions, by label."""
    from muq_plugins.evaluation.probing.results import (
        SCORES_FILE,
        load_predictions,
        load_results,
    )

    folder = path.parent if path.name == SCORES_FILE else path
    if not (folder / SCORES_FILE).is_file():
        raise UserError(
            f"{folder} holds no {SCORES_FILE}: give the folder of a finished probe."
        )
    return {
        one.label: replace(one, predictions=load_predictions(folder, one.label))
        for one in load_results(folder)
    }
