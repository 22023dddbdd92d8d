"""Answers to the questions of a study: computed, never written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from muq_plugins.evaluation.health import Verdict
from muq_plugins.evaluation.study.estimates import (
    Estimate,
    Ratio,
    Term,
    estimate,
    slope_weights,
    spread_ratio,
)
from muq_plugins.evaluation.study.measures import Measure, measure_named
from muq_plugins.evaluation.study.record import Question
from muq_plugins.evaluation.study.study import Study


@dataclass(frozen=True)
class Answer:
    """What the runs say about a question."""

    question: Question  # the question
    # "supported", "refuted", "undecided" or "unfinished"
    answer: Literal["supported", "refuted", "undecided", "unfinished"]
    measure: Measure | None  # what was compared; None if it has not finished
    compared: str  # the same, for a person
    numbers: str  # the number with its interval, or why there is none
    estimate: Estimate | Ratio | None  # the number; None if there is none

    @property
    def unit(self) -> str:
        """Unit of the number."""
        return _unit(self.question, self.measure)

    @property
    def verdict(self) -> Verdict:
        """The answer as a finding of the report."""
        if self.answer == "unfinished":
            words = f"Not finished, {self.numbers}"
        else:
            words = (
                f"{self.answer.capitalize()} at this budget: {self.numbers} "
                f"({self.compared})"
            )
        return Verdict(self.answer, f"{self.question.text} {words}.")


def answer_question(study: Study, question: Question) -> Answer:
    """Answer one question.

    The answer is "supported" if the whole 95 % interval lies on the side that the
    question asks about, "refuted" if it lies on the other side, else "undecided".
    """
    missing = [
        f"{study.label(name)} (seed {seed})"
        for name, seed in study.missing
        if name in question.experiments
    ]
    if missing:
        words = ", ".join(missing[:5])
        words += f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        return Answer(question, "unfinished", None, "", f"missing: {words}", None)
    measure = measure_named(study, question.measure)

    def give(answer, numbers, found=None):
        compared = _compared(study, question, measure)
        return Answer(question, answer, measure, compared, numbers, found)

    if reason := not_comparable(study, measure, question.experiments):
        return give("undecided", reason)
    if question.kind == "less_spread":
        return give(*_compare_spread(study, question, measure))
    return give(*_compare_means(study, question, measure))


def not_comparable(study: Study, measure: Measure, experiments: list[str]) -> str:
    """Why a measure says nothing about some experiments."""
    runs = [run for name in experiments for run in study.runs_of(name)]
    sizes = sorted({run.codebook_size for run in runs})
    if measure.same_size_only and len(sizes) > 1:
        return (
            f"not comparable, as codebooks have {' and '.join(map(str, sizes))} entries"
        )
    if measure.is_curve and len({tuple(run.learning_updates) for run in runs}) > 1:
        return "not comparable, as the runs were validated after different updates"
    return ""


def show_interval(measure: Measure, found: Estimate) -> str:
    """Write an interval for a person."""
    return f"[{measure.show(found.low)}, {measure.show(found.high)}]"


def _compare_means(
    study: Study, question: Question, measure: Measure
) -> tuple[str, str, Estimate]:
    """Answer, numbers and estimate of a difference or a slope."""
    weights = slope_weights(question.x) if question.kind == "rises" else [1.0, -1.0]
    terms = map(Term, question.experiments)
    found = estimate(study, measure, dict(zip(terms, weights, strict=True)))
    numbers = f"{measure.show_change(found.value)} {_unit(question, measure)}"
    if found.half_width is None:
        return "undecided", f"one seed, {numbers}", found
    numbers += f" {show_interval(measure, found)} over {len(study.seeds)} seeds"
    low, high = sorted((measure.better * found.low, measure.better * found.high))
    answer = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
    return answer, numbers, found


def _compare_spread(
    study: Study, question: Question, measure: Measure
) -> tuple[str, str, Ratio | None]:
    """Answer, numbers and ratio of two standard deviations."""
    if len(study.seeds) < 2:
        return "undecided", "one seed", None
    values = [
        [measure.value(study, run) for run in study.runs_of(name)]
        for name in question.experiments
    ]
    found = spread_ratio(*values)
    if found is None:
        return "undecided", "at least one of the two does not vary at all", None
    numbers = (
        f"ratio {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] over "
        f"{len(study.seeds)} seeds"
    )
    answer = "supported" if found.high < 1 else "refuted" if found.low > 1 else None
    return answer or "undecided", numbers, found


def _unit(question: Question, measure: Measure) -> str:
    return measure.unit + (" per doubling" if question.kind == "rises" else "")


def _compared(study: Study, question: Question, measure: Measure) -> str:
    name = measure.lower_case
    if measure.better < 0 and question.kind != "less_spread":
        name += ", where lower is better"
    labels = [study.label(experiment) for experiment in question.experiments]
    if question.kind == "less_spread":
        return f"standard deviation of the {name}: {labels[0]} divided by {labels[1]}"
    if question.kind == "rises":
        return f"{name}: slope from {labels[0]} to {labels[-1]}"
    return f"{name}: {labels[0]} minus {labels[1]}"
