"""The report of a probe, made from the files in its folder and nothing else.

Authors
 * The MuQ for SpeechBrain team 2026
"""

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
from muq_plugins.evaluation.run_folder import FIGURES_FOLDER, HYPERPARAMETERS_FILE

# The report shows this many numbers first.
FACTS = 6


def probing_report(folder: str | Path, subtitle: str = "") -> Path:
    """Write the report of a probe.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``scores.json`` and, if it was saved, ``hyperparams.yaml``.
    subtitle : str
        Which encoder.

    Returns
    -------
    pathlib.Path
        The HTML page, ``report.html`` in the folder.

    Raises
    ------
    FileNotFoundError
        If there is no ``scores.json``.
    ValueError
        If it holds no results.

    Example
    -------
    >>> from muq_plugins.evaluation.probing.result import Row
    >>> from muq_plugins.evaluation.probing.storage import save_results
    >>> rows = [Row(TRAINED, reader, 0, 0.5, 0.4, 0.6, {"accuracy": 0.5}, chosen=True)
    ...         for reader in (LINEAR, HIDDEN)]
    >>> clips = {"train": 9, "valid": 3, "test": 3}
    >>> result = TaskResult("key", "single", "piece", None, "balanced_accuracy", 0.1,
    ...                     ["C", "D"], clips, 3, rows)
    >>> folder = getfixture("tmp_path")
    >>> _ = save_results(folder, [result])
    >>> probing_report(folder).name
    'report.html'
    """
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
    """One line for each task, for the terminal.

    Arguments
    ---------
    results : list of TaskResult
        The results.

    Returns
    -------
    list of str
        The lines.

    Example
    -------
    >>> from muq_plugins.evaluation.probing.result import Row
    >>> row = Row(TRAINED, LINEAR, 3, 0.5, 0.4, 0.6, {}, chosen=True)
    >>> result = TaskResult("key", "single", None, None, "balanced_accuracy", 0.1,
    ...                     ["C", "D"], {}, 3, [row])
    >>> probing_headline([result])
    ['key 50.0% (chance 10.0%)']
    """
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
