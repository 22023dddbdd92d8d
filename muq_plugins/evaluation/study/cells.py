"""The cells of a study's tables: means over seeds and differences to the base."""

from __future__ import annotations

from collections.abc import Sequence

from muq_plugins.evaluation.probing.result import TRAINED
from muq_plugins.evaluation.study.answers import not_comparable, show_interval
from muq_plugins.evaluation.study.estimates import Term, estimate, mean_and_std
from muq_plugins.evaluation.study.measures import Measure
from muq_plugins.evaluation.study.record import Run
from muq_plugins.evaluation.study.study import Study

NOTHING = "-"
# A space at which no line of a narrow column ends.
UNBROKEN = "\N{NO-BREAK SPACE}"


def against_base(study: Study, measure: Measure, term: Term) -> str:
    """A cell with the difference to the base."""
    base = Term(study.base)
    if term == base:
        return "base"
    knows_hits = all(study.knows_hits(*side) for side in (term, base))
    if measure.tasks and not knows_hits:
        return NOTHING
    if not_comparable(study, measure, [term.experiment, base.experiment]):
        return NOTHING
    found = estimate(study, measure, {term: 1.0, base: -1.0})
    if found is None:
        return NOTHING
    change = measure.show_change(found.value)
    if found.half_width is None:
        return change
    return f"{change} {show_interval(measure, found)}".replace(" ", UNBROKEN)


def row_label(study: Study, name: str) -> str:
    """Name of an experiment, and how many of its seeds there are if not all."""
    if study.is_finished(name):
        return study.label(name)
    seeds = f"{len(study.runs_of(name))} of {len(study.seeds)} seeds"
    return f"{study.label(name)} ({seeds})"


def has_features(study: Study, features: str) -> bool:
    """Tell whether all probes of the base know some features."""
    probes = [task for run in study.runs_of(study.base) for task in run.probe.values()]
    return bool(probes) and all(features in task for task in probes)


def over_seeds(
    study: Study, name: str, measure: Measure, features: str = TRAINED
) -> str:
    r"""A cell with a measure of an experiment."""
    values = [measure.value(study, run, features) for run in study.runs_of(name)]
    if measure.unit == "points":
        return cell([100 * value for value in values], ".1f")
    return cell(values, ".3f")


def cell(values: Sequence[float | None], form: str) -> str:
    r"""Mean and standard deviation."""
    if not values or None in values:
        return NOTHING
    mean, std = mean_and_std(values)
    if std is None:
        return f"{mean:{form}}"
    return f"{mean:{form}} ± {std:{form}}".replace(" ", UNBROKEN)


def code_sizes(runs: list[Run]) -> str:
    """A cell with the shape of the codes."""
    sizes = {f"{run.num_codebooks} x {run.codebook_size}" for run in runs}
    return " or ".join(sorted(sizes)) or NOTHING


def different(values: Sequence[float | None]) -> str:
    """A cell with what should be the same for all."""
    if not values or None in values:
        return NOTHING
    return " or ".join(f"{value:,.10g}" for value in sorted(set(values)))
