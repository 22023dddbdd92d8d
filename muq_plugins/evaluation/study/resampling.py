"""Balanced accuracy from hits, and how much of it hangs on the choice of test
pieces.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from muq_plugins.evaluation.intervals import drawn_groups

DRAWS = 1000


def balanced_accuracy(hits: np.ndarray, targets: np.ndarray) -> float:
    """The mean recall of the classes that occur."""
    totals = np.bincount(targets)
    recognised = np.bincount(targets, weights=hits)
    return float((recognised[totals > 0] / totals[totals > 0]).mean())


def resampled_accuracy(
    hits: np.ndarray, targets: np.ndarray, pieces: np.ndarray
) -> np.ndarray:
    """The balanced accuracy if the test part had had other pieces.

    Pieces are drawn with replacement. The draws are the same for every call with as
    many pieces, so that two results on the same clips are pairs.
    """
    _, piece = np.unique(pieces, return_inverse=True)
    shape = piece.max() + 1, targets.max() + 1
    cell = piece * shape[1] + targets
    totals = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    found = np.bincount(cell, weights=hits, minlength=totals.size).reshape(shape)
    weights = _weights(shape[0])
    totals, found = weights @ totals, weights @ found
    occurs = totals > 0
    recall = np.divide(found, totals, out=np.zeros_like(found), where=occurs)
    return recall.sum(axis=1) / occurs.sum(axis=1)


@lru_cache(maxsize=4)
def _weights(pieces: int) -> np.ndarray:
    return drawn_groups(pieces, DRAWS)
