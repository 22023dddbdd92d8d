"""Numbers with the interval that another choice of test pieces would leave them in.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A number and its 95 % interval.

    Arguments
    ---------
    value : float
        The number on all test pieces.
    low, high : float
        Ends of the interval.

    Example
    -------
    >>> print(Estimate(0.5, 0.412, 0.6))
    0.500 [0.412, 0.600]
    """

    value: float
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def group_weights(groups: Sequence, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each row counts when whole groups are drawn with replacement.

    Rows of one group (clips of one piece, songs of one artist) are alike: drawing rows
    alone would make an interval too narrow.

    Arguments
    ---------
    groups : sequence
        Group of every row (rows,).
    samples : int
        Number of draws.
    seed : int
        The same seed and groups give the same draws: two results on the same rows are
        pairs.

    Returns
    -------
    numpy.ndarray
        (samples, rows) float.

    Example
    -------
    >>> weights = group_weights(["a", "a", "b"], samples=4)
    >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all())
    ((4, 3), True)
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    return draw_groups(len(names), samples, seed)[:, group].astype(float)


def draw_groups(groups: int, samples: int, seed: int = 0) -> np.ndarray:
    """Draws groups with replacement, as many as there are, again and again.

    Arguments
    ---------
    groups : int
        Number of groups.
    samples : int
        Number of draws; the first are the same however many there are.
    seed : int
        The same seed gives the same draws.

    Returns
    -------
    numpy.ndarray
        How often each group was drawn, int (samples, groups).

    Example
    -------
    >>> draws = draw_groups(5, samples=3)
    >>> draws.shape, draws.sum(axis=1).tolist()
    ((3, 5), [5, 5, 5])
    """
    chances = np.full(groups, 1 / groups)
    return np.random.default_rng(seed).multinomial(groups, chances, size=samples)


def estimate(value: float, draws: np.ndarray) -> Estimate:
    """A number with the middle 95 % of its resampled values.

    Arguments
    ---------
    value : float
        The number on all rows.
    draws : numpy.ndarray
        Its values in resamplings (samples,); those that are not a number (a draw
        without any row that counts) are left out.

    Returns
    -------
    Estimate
        Number and interval.

    Example
    -------
    >>> print(estimate(0.5, np.linspace(0, 1, 1001)))
    0.500 [0.025, 0.975]
    """
    kept = draws[~np.isnan(draws)]
    if not kept.size:
        return Estimate(float(value), float("nan"), float("nan"))
    low, high = np.percentile(kept, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
