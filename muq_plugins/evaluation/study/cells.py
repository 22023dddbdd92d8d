"""The cells of a study's tables: means over seeds and differences to the base.

Authors
 * The MuQ for SpeechBrain team 2026
"""

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
    """A cell with the difference to the base.

    Arguments
    ---------
    study : Study
        The study.
    measure : Measure
        What is compared.
    term : Term
        What is compared with the base.

    Returns
    -------
    str
        The difference with its interval, or "base", or "-".

    Example
    -------
    >>> from muq_plugins.evaluation.study.measures import measure_named
    >>> from muq_plugins.evaluation.study.simulation import small_study
    >>> study = small_study()
    >>> against_base(study, measure_named(study, "gain"), Term("mel_rvq"))
    'base'
    """
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
    """Name of an experiment, and how many of its seeds there are if not all.

    Arguments
    ---------
    study : Study
        The study.
    name : str
        Name of an experiment.

    Returns
    -------
    str
        Its label.

    Example
    -------
    >>> from muq_plugins.evaluation.study.simulation import small_study
    >>> row_label(small_study(), "bestrq")
    'BEST-RQ'
    """
    if study.is_finished(name):
        return study.label(name)
    seeds = f"{len(study.runs_of(name))} of {len(study.seeds)} seeds"
    return f"{study.label(name)} ({seeds})"


def has_features(study: Study, features: str) -> bool:
    """Tell whether all probes of the base know some features.

    Arguments
    ---------
    study : Study
        The study.
    features : str
        Which features.

    Returns
    -------
    bool
        False without a finished run of the base.

    Example
    -------
    >>> from muq_plugins.evaluation.study.simulation import small_study
    >>> has_features(small_study(), "untrained encoder")
    True
    """
    probes = [task for run in study.runs_of(study.base) for task in run.probe.values()]
    return bool(probes) and all(features in task for task in probes)


def over_seeds(
    study: Study, name: str, measure: Measure, features: str = TRAINED
) -> str:
    r"""A cell with a measure of an experiment.

    Arguments
    ---------
    study : Study
        The study.
    name : str
        Name of an experiment.
    measure : Measure
        The measure.
    features : str
        What was probed; of no importance for other measures.

    Returns
    -------
    str
        Mean and standard deviation over seeds, without the unit.

    Example
    -------
    >>> from muq_plugins.evaluation.study.measures import measure_named
    >>> from muq_plugins.evaluation.study.simulation import small_study
    >>> study = small_study()
    >>> over_seeds(study, "bestrq", measure_named(study, "gain"))
    '0.503\xa0±\xa00.029'
    """
    values = [measure.value(study, run, features) for run in study.runs_of(name)]
    if measure.unit == "points":
        return cell([100 * value for value in values], ".1f")
    return cell(values, ".3f")


def cell(values: Sequence[float | None], form: str) -> str:
    r"""Mean and standard deviation.

    Arguments
    ---------
    values : sequence of float or None
        One for each seed; None where there is nothing to measure.
    form : str
        How to write a number.

    Returns
    -------
    str
        The mean alone for one seed; "-" if there is nothing.

    Example
    -------
    >>> cell([1.0, 2.0, 3.0], ".1f"), cell([1.0], ".1f"), cell([None], ".1f")
    ('2.0\xa0±\xa01.0', '1.0', '-')
    """
    if not values or None in values:
        return NOTHING
    mean, std = mean_and_std(values)
    if std is None:
        return f"{mean:{form}}"
    return f"{mean:{form}} ± {std:{form}}".replace(" ", UNBROKEN)


def code_sizes(runs: list[Run]) -> str:
    """A cell with the shape of the codes.

    Arguments
    ---------
    runs : list of Run
        Runs of one experiment.

    Returns
    -------
    str
        Codebooks x entries.

    Example
    -------
    >>> from muq_plugins.evaluation.study.simulation import small_study
    >>> code_sizes(small_study().runs)
    '8 x 64'
    """
    sizes = {f"{run.num_codebooks} x {run.codebook_size}" for run in runs}
    return " or ".join(sorted(sizes)) or NOTHING


def different(values: Sequence[float | None]) -> str:
    """A cell with what should be the same for all.

    Arguments
    ---------
    values : sequence of float or None
        One for each seed.

    Returns
    -------
    str
        One number if all are the same, else all different ones.

    Example
    -------
    >>> different([800, 800]), different([800, 1600])
    ('800', '800 or 1,600')
    """
    if not values or None in values:
        return NOTHING
    return " or ".join(f"{value:,.10g}" for value in sorted(set(values)))
