"""The parts of a study's report."""

from __future__ import annotations

from muq_plugins.evaluation.report import Section, Table
from muq_plugins.evaluation.study import tables
from muq_plugins.evaluation.study.answers import Answer, show_interval
from muq_plugins.evaluation.study.estimates import Estimate
from muq_plugins.evaluation.study.study import Study


def answers_section(answers: list[Answer]) -> Section:
    """All questions with the numbers behind their answers."""
    rows = []
    for answer in answers:
        found = answer.estimate
        cells = ["-"] * 5
        if isinstance(found, Estimate):
            measure = answer.measure
            halves = (found.from_seeds, found.from_pieces)
            has_interval = found.half_width is not None
            cells = [
                f"{measure.show_change(found.value)} {answer.unit}",
                show_interval(measure, found) if has_interval else "-",
                *("-" if half is None else f"±{measure.show(half)}" for half in halves),
                ", ".join(map(measure.show_change, found.per_seed.values())),
            ]
        elif found is not None:
            cells[:2] = f"x {found.value:.2f}", f"[{found.low:.2f}, {found.high:.2f}]"
        rows.append([answer.question.text, answer.answer, *cells])
    text = (
        "An answer is computed: supported if the whole 95% interval lies on the side "
        "that the question asks about, refuted if it lies on the other side, undecided "
        "otherwise. It holds for this budget, this model and these data. Half the "
        "width of the interval is the root of the sum of two squares: Student's "
        "interval over the seeds, of differences within a seed, and 1.96 standard "
        "errors over the test pieces, from 1,000 bootstrap draws that are the same "
        "for both sides. Slopes are per doubling, fitted for each seed; ratios of "
        "standard deviations have the interval of the F distribution."
    )
    if len(rows) > 1:
        text += (
            f"\n\n{len(rows)} questions are asked and each interval is for its "
            "question alone, without a correction for their number: of twenty "
            "questions whose truth is no difference, about one is decided by chance."
        )
    return Section(
        "Questions and answers",
        text,
        table=Table(
            [
                "Question",
                "Answer",
                "Result",
                "95% interval",
                "From seeds",
                "From test pieces",
                "Every seed",
            ],
            rows,
        ),
    )


def budget_section(study: Study) -> Section:
    """What every experiment cost."""
    return Section(
        "Was the budget the same?",
        "Updates and seconds of audio must be equal for all. The training of a "
        "tokenizer comes on top and is listed apart: targets without one have not "
        "been given its time for anything else.",
        table=tables.budget_table(study),
    )


def tasks_section(study: Study) -> Section:
    """What was probed for."""
    return Section(
        "What was probed for?",
        "Pieces of the test part are in no other part; intervals resample them.",
        table=tables.tasks_table(study),
    )


def experiments_section(study: Study) -> Section:
    """Which files were run."""
    rows = []
    for name, experiment in study.experiments.items():
        changes = [f"{key}: {value}" for key, value in experiment.overrides.items()]
        rows.append(
            [name, experiment.label, experiment.file, ", ".join(changes) or "-"]
        )
    return Section(
        "What was run?",
        f"The base is {study.label(study.base)}. Seeds: "
        f"{', '.join(map(str, study.seeds))}. All numbers and figures of this report "
        "come from study.json beside it.",
        table=Table(["Experiment", "Name here", "File", "Changed in it"], rows),
    )
