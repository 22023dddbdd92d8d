"""The tables of a study: means over seeds, differences to the base, costs."""

from __future__ import annotations

from collections.abc import Callable

from muq_plugins.evaluation.probing.result import LOG_MEL, TRAINED, UNTRAINED
from muq_plugins.evaluation.report import Table
from muq_plugins.evaluation.study.cells import (
    NOTHING,
    against_base,
    cell,
    code_sizes,
    different,
    has_features,
    over_seeds,
    row_label,
)
from muq_plugins.evaluation.study.estimates import Term, mean_and_std
from muq_plugins.evaluation.study.measures import measure_named
from muq_plugins.evaluation.study.record import Group, Run
from muq_plugins.evaluation.study.study import Study


def probe_table(study: Study, group: Group) -> Table:
    """What can be read off the encoders of a group."""
    probe = measure_named(study, "probe")
    rows = []
    for name in group.experiments:
        row = [row_label(study, name), over_seeds(study, name, probe)]
        row.append(against_base(study, probe, Term(name)))
        rows.append(row + [_task_cell(study, name, task) for task in study.tasks])
    for features in (UNTRAINED, LOG_MEL):
        if not has_features(study, features):
            continue
        row = [features, over_seeds(study, study.base, probe, features)]
        row.append(against_base(study, probe, Term(study.base, features)))
        rows.append(
            row
            + [_task_cell(study, study.base, task, features) for task in study.tasks]
        )
    chances = [f"{100 * task.chance:.1f}" for task in study.tasks.values()]
    rows.append(["chance", "0.0", NOTHING, *chances])
    return Table(
        [
            "Experiment",
            probe.column,
            f"Minus {study.label(study.base)}",
            *(f"{task} (%)" for task in study.tasks),
        ],
        rows,
    )


def codes_table(study: Study, group: Group) -> Table:
    """The targets of a group, and how well they are predicted."""
    gain = measure_named(study, "gain")
    asked = {question.measure for question in study.questions}
    others = [
        measure_named(study, name)
        for name in ("gain_area", "loss_area")
        if name in asked
    ]
    columns: dict[str, Callable[[Run], float | None]] = {
        "Masked accuracy (%)": lambda run: 100 * run.accuracy,
        "Cross-entropy (nat)": lambda run: run.cross_entropy,
        "Code entropy (nat)": lambda run: run.code_entropy,
        "Usage (%)": lambda run: 100 * mean_and_std(run.usage)[0],
        "Perplexity": lambda run: mean_and_std(run.perplexity)[0],
        "Reconstruction error": lambda run: run.reconstruction_error,
    }
    decimals = (1, 3, 3, 1, 1, 3)
    rows = []
    for name in group.experiments:
        runs = study.runs_of(name)
        row = [row_label(study, name), code_sizes(runs), over_seeds(study, name, gain)]
        row.append(against_base(study, gain, Term(name)))
        for measure in others:
            row.append(over_seeds(study, name, measure))
            row.append(against_base(study, measure, Term(name)))
        for column, digits in zip(columns.values(), decimals, strict=True):
            row.append(cell([column(run) for run in runs], f".{digits}f"))
        rows.append(row)
    difference = f"Minus {study.label(study.base)}"
    header = ["Experiment", "Codes", gain.column, difference]
    for measure in others:
        header += [measure.column, difference]
    return Table([*header, *columns], rows)


def budget_table(study: Study) -> Table:
    """What every experiment was given, and what its tokenizer cost besides."""
    rows = []
    for name in study.experiments:
        runs = study.runs_of(name)
        rows.append(
            [
                study.label(name),
                f"{len(runs)} of {len(study.seeds)}",
                different([run.updates for run in runs]),
                different([run.audio_seconds for run in runs]),
                cell([run.training_seconds for run in runs], ",.0f"),
                different([run.parameters for run in runs]),
                different([run.tokenizer_updates for run in runs]),
                different([run.tokenizer_audio_seconds for run in runs]),
                cell([run.tokenizer_seconds for run in runs], ",.0f"),
            ]
        )
    return Table(
        [
            "Experiment",
            "Runs",
            "Updates",
            "Audio (s)",
            "Time (s)",
            "Parameters",
            "Tokenizer: updates",
            "Tokenizer: audio (s)",
            "Tokenizer: time (s)",
        ],
        rows,
    )


def tasks_table(study: Study) -> Table:
    """What was probed for."""
    return Table(
        ["Task", "Kind", "Classes", "Test clips", "Test pieces", "Chance (%)"],
        [
            [
                task.name,
                task.level or NOTHING,
                str(len(task.classes)),
                str(len(task.targets)),
                str(len(set(task.pieces.tolist()))),
                f"{100 * task.chance:.1f}",
            ]
            for task in study.tasks.values()
        ],
    )


def _task_cell(study: Study, name: str, task: str, features: str = TRAINED) -> str:
    runs = study.runs_of(name)
    return cell([100 * run.probe[task][features].value for run in runs], ".1f")
