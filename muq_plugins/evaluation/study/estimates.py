"""Means, differences and slopes with intervals, from seeds and test pieces together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from muq_plugins.evaluation.probing.result import TRAINED
from muq_plugins.evaluation.study.measures import Measure
from muq_plugins.evaluation.study.record import Run
from muq_plugins.evaluation.study.resampling import resampled_accuracy
from muq_plugins.evaluation.study.study import Study

LEVEL = 0.95
NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float  # the mean over seeds
    per_seed: dict[int, float]  # the number of every seed
    # half the width of the interval that the seeds alone give; None for one seed
    from_seeds: float | None
    # half the width that the choice of test pieces alone gives; None without clips
    from_pieces: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval; None for one seed."""
        if self.from_seeds is None:
            return None
        return math.hypot(self.from_seeds, self.from_pieces or 0.0)

    @property
    def low(self) -> float | None:
        """Lower end of the interval; None for one seed."""
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval; None for one seed."""
        return None if self.half_width is None else self.value + self.half_width


class Term(NamedTuple):
    """One side of a comparison."""

    experiment: str  # name of an experiment
    # what was probed; of no importance for measures without probe
    features: str = TRAINED


def estimate(
    study: Study, measure: Measure, weights: dict[Term, float]
) -> Estimate | None:
    """A weighted sum of experiments, paired by seed and by test clip.

    A mean has one weight of 1, a difference 1 and -1, and a slope those of
    `slope_weights`. The seeds give a t interval around the mean of the sums. The test
    pieces, drawn again for all at once, give the standard error of that mean. The two
    are taken as independent.
    """
    runs = {
        term: {r.seed: r for r in study.runs_of(term.experiment)} for term in weights
    }
    seeds = [
        seed for seed in study.seeds if all(seed in runs[term] for term in weights)
    ]
    if not seeds:
        return None
    per_seed = {
        seed: sum(
            weight * measure.value(study, runs[term][seed], term.features)
            for term, weight in weights.items()
        )
        for seed in seeds
    }
    from_pieces = None
    if measure.tasks:
        draws = sum(
            weight * _draws(study, measure, runs[term][seed], term.features)
            for term, weight in weights.items()
            for seed in seeds
        )
        from_pieces = NORMAL * float(np.std(draws / len(seeds), ddof=1))
    values = list(per_seed.values())
    return Estimate(float(np.mean(values)), per_seed, t_half_width(values), from_pieces)


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation over seeds."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), std


def t_half_width(values: Sequence[float]) -> float | None:
    """Half the width of Student's 95 % interval around a mean."""
    count = len(values)
    if count < 2:
        return None
    t = stats.t.ppf((1 + LEVEL) / 2, count - 1)
    return float(t * np.std(values, ddof=1) / math.sqrt(count))


def slope_weights(x: Sequence[float]) -> list[float]:
    """Weights whose sum with the values of y is the slope of y per doubling of x."""
    doublings = np.log2(x)
    centred = doublings - doublings.mean()
    return (centred / (centred**2).sum()).tolist()


class Ratio(NamedTuple):
    """A ratio of standard deviations with its 95 % interval."""

    value: float  # the ratio and the ends of its interval
    low: float  # the ratio and the ends of its interval
    high: float  # the ratio and the ends of its interval


def spread_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """How much more one experiment varies over seeds than another."""
    variances = np.var(ours, ddof=1), np.var(theirs, ddof=1)
    if min(variances) == 0:
        return None
    ratio = variances[0] / variances[1]
    freedom = len(ours) - 1, len(theirs) - 1
    low, high = (stats.f.ppf((1 + s * LEVEL) / 2, *freedom) for s in (1, -1))
    ends = (float(math.sqrt(value)) for value in (ratio, ratio / low, ratio / high))
    return Ratio(*ends)


def _draws(study: Study, measure: Measure, run: Run, features: str) -> np.ndarray:
    """The probe score of a run in every draw of test pieces (draws,)."""
    total = 0.0
    for name in measure.tasks:
        task = study.tasks[name]
        hits = run.probe[name][features].hits
        draws = resampled_accuracy(hits, task.targets, task.pieces)
        total = total + (draws - task.chance) / (1 - task.chance)
    return total / len(measure.tasks)
