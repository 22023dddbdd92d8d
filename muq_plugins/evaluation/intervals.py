"""How sure one can be of a number: other test groups, other seeds, or both.

Rows of one group (clips of one piece, songs of one artist) are alike: drawing rows
alone would make an interval too narrow, so whole groups are drawn. Draws depend on the
groups and the seed alone: two results on the same rows are pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

ENDS = 0.025, 0.975  # of a 95 % interval
FEWEST_GROUPS = 5  # resampling fewer says nothing about other pieces


class Estimate(NamedTuple):
    """A number and its 95 % interval, whose ends are NaN where nothing is known."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """A number over seeds and test groups, its interval, and the halves of it.

    ``from_seeds`` is NaN for one seed, and with it the ends; ``from_groups`` is NaN
    where the groups are not known, and then the ends are those of the seeds alone.
    """

    value: float
    low: float
    high: float
    from_seeds: float
    from_groups: float
    per_seed: list[float]

    @property
    def half(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2


def plain(found: Any, *without: str) -> dict[str, Any]:
    """A named tuple, and those in it, as JSON keeps them; without some fields."""

    def of(value):
        if hasattr(value, "_asdict"):
            return {key: of(inner) for key, inner in value._asdict().items()}
        return [of(inner) for inner in value] if isinstance(value, list) else value

    return {key: value for key, value in of(found).items() if key not in without}


def ends(low: float, high: float) -> str:
    """The interval of a difference of two shares, for a person."""
    if high - low > 1:
        return "the 95% interval is wider than the whole scale, so this says nothing"
    return f"95% interval {100 * low:+.1f} to {100 * high:+.1f}"


def draws(groups: Sequence, samples: int = 1000) -> np.ndarray:
    """How often each row counts when groups are drawn: float (samples, rows)."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    return drawn_groups(len(names), samples)[:, group]


@lru_cache(maxsize=8)
def drawn_groups(groups: int, samples: int) -> np.ndarray:
    """How often each group is drawn (samples, groups); fewer samples are the first."""
    chances = np.full(groups, 1 / groups)
    counts = np.random.default_rng(0).multinomial(groups, chances, size=samples)
    counts = counts.astype(float)
    counts.setflags(write=False)  # everybody gets the same array
    return counts


def recall_draws(
    hits: Sequence, classes: Sequence, groups: Sequence, samples: int = 1000
) -> np.ndarray:
    """Balanced accuracy (samples,) of hits per row when groups are drawn.

    A class of which no row was drawn has no recall and is left out of the mean.
    """
    names, label = np.unique(classes, return_inverse=True)
    groups, group = np.unique(groups, return_inverse=True)
    totals = np.zeros((len(groups), len(names)))
    found = np.zeros_like(totals)
    np.add.at(totals, (group, label), 1.0)
    np.add.at(found, (group, label), np.asarray(hits, dtype=float))
    weights = drawn_groups(len(groups), samples)
    totals, found = weights @ totals, weights @ found
    occurs = totals > 0
    recalls = np.divide(found, totals, out=np.zeros_like(found), where=occurs)
    return recalls.sum(axis=1) / occurs.sum(axis=1)


def mean_draws(
    values: Sequence[float],
    groups: Sequence,
    samples: int = 1000,
    counts: Sequence[float] | None = None,
) -> np.ndarray:
    """The mean (samples,) of a value per row when groups are drawn.

    Rows may count more or less; a draw in which nothing counts is NaN.
    """
    weights = draws(groups, samples)
    if counts is not None:
        weights = weights * np.asarray(counts)
    total = weights.sum(axis=1)
    found = np.full(samples, np.nan)
    return np.divide(weights @ np.asarray(values), total, out=found, where=total > 0)


def interval(value: float, draws: np.ndarray) -> Estimate:
    """A number with the middle 95 % of its draws, leaving out those that are NaN."""
    kept = draws[~np.isnan(draws)]
    if not kept.size:
        return Estimate(float(value), math.nan, math.nan)
    low, high = np.percentile(kept, [100 * end for end in ENDS])
    return Estimate(float(value), float(low), float(high))


def paired(per_seed: np.ndarray, draws: np.ndarray | None = None) -> Paired:
    """The mean of paired results, by Student over the seeds and normal over groups.

    ``per_seed`` (seeds,) is a result or a weighted sum of results of each seed, and
    ``draws`` (seeds, samples) the same when groups are drawn. The two parts are taken
    as independent.
    """
    value = float(np.mean(per_seed))
    from_seeds = half_width(per_seed)
    from_groups = math.nan
    if draws is not None:
        deviation = float(np.std(np.mean(draws, axis=0), ddof=1))
        from_groups = float(stats.norm.ppf(ENDS[1])) * deviation
    half = math.hypot(from_seeds, 0.0 if math.isnan(from_groups) else from_groups)
    ends = value - half, value + half
    return Paired(value, *ends, from_seeds, from_groups, list(map(float, per_seed)))


def half_width(per_seed: np.ndarray) -> float:
    """Half of Student's 95 % interval around a mean; NaN for one seed."""
    count = len(per_seed)
    if count < 2:
        return math.nan
    t = stats.t.ppf(ENDS[1], count - 1)
    return float(t * np.std(per_seed, ddof=1) / math.sqrt(count))


def p_value(found: Paired) -> float:
    """The chance of an interval that lies as far from 0 if there is no difference.

    That is 5 % where the 95 % interval ends at 0; NaN without an interval.
    """
    if math.isnan(found.half):
        return math.nan
    degrees = len(found.per_seed) - 1
    parts = (stats.t(degrees), found.from_seeds), (stats.norm, found.from_groups)

    def gap(logarithm: float) -> float:
        tail = math.exp(logarithm)  # of one side
        halves = [
            half * law.isf(tail) / law.isf(1 - ENDS[1])
            for law, half in parts
            if not math.isnan(half)
        ]
        return math.hypot(*halves) - abs(found.value)

    smallest, largest = math.log(1e-12), math.log(0.5)
    if gap(largest) >= 0 or gap(smallest) <= 0:  # no difference, or no doubt
        return 1.0 if gap(largest) >= 0 else 2e-12
    return 2 * math.exp(optimize.brentq(gap, smallest, largest))


def seeds_for(found: Paired, half: float) -> int | None:
    """How many seeds would make half of the interval so small, with these test groups.

    By the deviation that these seeds have; None if the groups alone make it wider, or
    if more than a thousand would not do.
    """
    count = len(found.per_seed)
    spread = found.from_seeds * math.sqrt(count) / stats.t.ppf(ENDS[1], count - 1)
    groups = 0.0 if math.isnan(found.from_groups) else found.from_groups
    for seeds in range(2, 1001):
        from_seeds = stats.t.ppf(ENDS[1], seeds - 1) * spread / math.sqrt(seeds)
        if math.hypot(from_seeds, groups) <= half:
            return seeds
    return None


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of questions asked together, corrected for their number (Holm, 1979).

    Among those below 5 %, the chance of a single one by accident is 5 %. NaN, of a
    question without an answer, counts as 1.
    """
    known = np.nan_to_num(np.asarray(p_values, dtype=float), nan=1.0)
    order = np.argsort(known, kind="stable")
    steps = known[order] * np.arange(len(known), 0, -1)
    corrected = np.empty_like(known)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected.tolist()


def spread_ratio(ours: np.ndarray, theirs: np.ndarray) -> Estimate | None:
    """How much more one experiment varies over seeds than another, by F; None if 0."""
    variances = np.var(ours, ddof=1), np.var(theirs, ddof=1)
    if min(variances) == 0:
        return None
    ratio = variances[0] / variances[1]
    law = stats.f(len(ours) - 1, len(theirs) - 1)
    low, high = (ratio / law.ppf(end) for end in ENDS[::-1])
    return Estimate(*(float(math.sqrt(value)) for value in (ratio, low, high)))


def spread_p_value(ratio: float, ours: int, theirs: int) -> float:
    """The chance of a ratio as far from 1 if both vary alike, with so many seeds."""
    law = stats.f(ours - 1, theirs - 1)
    return float(2 * min(law.cdf(ratio**2), law.sf(ratio**2)))
