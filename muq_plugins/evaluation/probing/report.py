"""The report of a probe, made from the files in its folder and nothing else."""

from __future__ import annotations

from pathlib import Path

from muq_plugins.evaluation import sections
from muq_plugins.evaluation.health import announce, worst_first
from muq_plugins.evaluation.probing.result import (
    HIDDEN,
    LINEAR,
    LOG_MEL,
    TRAINED,
    UNTRAINED,
    TaskResult,
)
from muq_plugins.evaluation.probing.storage import load_results
from muq_plugins.evaluation.probing.verdicts import probing_verdicts
from muq_plugins.evaluation.report import Fact, percent, write_report
from muq_plugins.evaluation.run_files import FIGURES_FOLDER, HYPERPARAMETERS_FILE

# The report shows this many numbers first.
FACTS = 6


def probing_report(folder: str | Path, subtitle: str = "") -> Path:
    """Write the report of a probe."""
    folder = Path(folder)
    results = load_results(folder)
    if not results:
        raise ValueError(f"{folder} holds no results to report on")
    figures = folder / FIGURES_FOLDER
    hyperparameters = folder / HYPERPARAMETERS_FILE
    return write_report(
        folder,
        "Probe",
        [_fact(result) for result in results[:FACTS]],
        announce(worst_first(probing_verdicts(results))),
        [
            sections.scores_section(results),
            *(
                sections.layer_section(results, reader, figures)
                for reader in (LINEAR, HIDDEN)
                if any(result.row(TRAINED, reader) for result in results)
            ),
            *sections.mixture_section(results, figures),
            *(sections.task_section(result) for result in results),
        ],
        hyperparameters.read_text("utf-8") if hyperparameters.exists() else "",
        subtitle,
    )


def probing_headline(results: list[TaskResult]) -> list[str]:
    """One line for each task, for the terminal."""
    return [str(_fact(result)) for result in results]


def _fact(result: TaskResult) -> Fact:
    """The trained encoder's score beside all references."""
    notes = [f"chance {percent(result.chance)}"]
    for name, word in ((LOG_MEL, "log-mel"), (UNTRAINED, "untrained")):
        if row := result.row(name, LINEAR):
            notes.append(f"{word} {percent(row.value)}")
    score = result.row(TRAINED, LINEAR).value
    label = result.label.replace("_", " ")
    return Fact(label[0].upper() + label[1:], percent(score), ", ".join(notes))
