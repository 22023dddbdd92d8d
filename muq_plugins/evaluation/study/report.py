"""The report of a study, made from `study.json` and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from muq_plugins.evaluation.health import Verdict, announce
from muq_plugins.evaluation.report import Fact, Section, write_report
from muq_plugins.evaluation.run_files import FIGURES_FOLDER
from muq_plugins.evaluation.study import sections
from muq_plugins.evaluation.study.answers import Answer, answer_question
from muq_plugins.evaluation.study.cells import against_base, different
from muq_plugins.evaluation.study.estimates import Term, estimate, mean_and_std
from muq_plugins.evaluation.study.groups import group_sections, references
from muq_plugins.evaluation.study.measures import headline_measure
from muq_plugins.evaluation.study.reading import read_study
from muq_plugins.evaluation.study.study import Study

# Resampling fewer pieces says nothing about other pieces.
FEWEST_PIECES = 5


def study_report(folder: str | Path) -> Path:
    """Write the report of a study."""
    folder = Path(folder)
    study = read_study(folder)
    answers = [answer_question(study, question) for question in study.questions]
    figures = folder / FIGURES_FOLDER
    parts: list[Section] = [sections.answers_section(answers)] if answers else []
    for group in study.groups:
        parts += group_sections(study, group, figures)
    parts.append(sections.budget_section(study))
    if study.tasks:
        parts.append(sections.tasks_section(study))
    parts.append(sections.experiments_section(study))
    return write_report(
        folder,
        study.title,
        study_facts(study),
        announce(study_verdicts(study, answers)),
        parts,
        _settings(study),
        ", ".join(f"{name} {value}" for name, value in study.machine.items()),
    )


def study_headline(folder: str | Path) -> list[str]:
    """What came out, line by line, for the terminal."""
    study = read_study(folder)
    answers = [answer_question(study, question) for question in study.questions]
    lines = [*study_facts(study), *study_verdicts(study, answers)]
    return [str(line) for line in lines]


def study_facts(study: Study) -> list[Fact]:
    """The numbers that head the report."""
    facts = [
        Fact(
            "Runs",
            f"{len(study.runs)} of {len(study.runs) + len(study.missing)}",
            f"experiments: {len(study.experiments)}, seeds: {len(study.seeds)}",
        )
    ]
    if not study.runs:
        return facts
    measure = headline_measure(study)
    facts.append(
        Fact(
            "Budget",
            f"{different([run.updates for run in study.runs])} updates",
            f"{different([run.audio_seconds for run in study.runs])} s of audio for "
            "each run",
        )
    )
    sign = "%" if measure.unit == "points" else " nat"
    levels = ", ".join(
        f"{name} {measure.show(level)}{sign}"
        for name, level in references(study).items()
    )
    means = {
        name: estimate(study, measure, {Term(name): 1.0}).value
        for name in study.experiments
        if study.runs_of(name)
    }
    best = max(means, key=means.__getitem__)
    for title, name in (("base", study.base), ("highest", best)):
        if name not in means or (title, name) == ("highest", study.base):
            continue
        values = [measure.value(study, run) for run in study.runs_of(name)]
        mean, std = mean_and_std(values)
        shown = measure.show(mean) + sign
        shown += "" if std is None else f" ± {measure.show(std)}"
        note = levels
        if title == "highest":
            note = f"minus {study.label(study.base)}: " + against_base(
                study, measure, Term(name)
            )
        label = f"{measure.title}, {title}: {study.label(name)}"
        facts.append(Fact(label, shown, note))
    return facts


def study_verdicts(study: Study, answers: list[Answer]) -> list[Verdict]:
    """Whether the study can be trusted, then its answers."""
    verdicts = [budget_verdict(study)] if study.runs else []
    if study.missing:
        names = [f"{study.label(name)} (seed {seed})" for name, seed in study.missing]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        verdicts.append(
            Verdict(
                "warning",
                f"not finished, {len(names)} of {len(names) + len(study.runs)} runs: "
                f"{', '.join(names[:5])}{more}. Run the study again; what is finished "
                "is reused.",
            )
        )
    if len(study.seeds) == 1:
        verdicts.append(
            Verdict(
                "warning",
                "there is one seed, so nothing can be decided: another seed may turn "
                "every difference around.",
            )
        )
    few = {
        name: pieces
        for name, task in study.tasks.items()
        if (pieces := len(set(task.pieces.tolist()))) < FEWEST_PIECES
    }
    if few:
        words = ", ".join(f"{name} ({pieces})" for name, pieces in few.items())
        verdicts.append(
            Verdict(
                "warning",
                f"too few test pieces for intervals that mean something: {words}.",
            )
        )
    return verdicts + [answer.verdict for answer in answers]


def budget_verdict(study: Study) -> Verdict:
    """Whether all runs had the same updates and seconds of audio."""
    budgets = [(run.updates, run.audio_seconds) for run in study.runs]
    usual = max(sorted(set(budgets)), key=budgets.count)
    words = f"{usual[0]:,} updates and {usual[1]:,.10g} seconds of audio"
    others = [
        f"{study.label(run.experiment)} with seed {run.seed} ({run.updates:,} updates, "
        f"{run.audio_seconds:,.10g} s)"
        for run in study.runs
        if (run.updates, run.audio_seconds) != usual
    ]
    if others:
        return Verdict(
            "problem",
            f"the budgets differ, so nothing below is a fair comparison: most runs had "
            f"{words}, but not {', '.join(others)}.",
        )
    return Verdict("good", f"all {len(study.runs)} runs had the same budget: {words}.")


def _settings(study: Study) -> str:
    """The command and the budget, as YAML."""
    values = {"command": study.command, "seeds": study.seeds, **study.budget}
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
