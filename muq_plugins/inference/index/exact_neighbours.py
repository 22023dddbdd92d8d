"""Nearest latents by comparing with all of them.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Ids (files,) to those of them that are still there, and their latents (files, width).
Fetch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class ExactNeighbours:
    """All latents in memory, compared one by one.

    Arguments
    ---------
    ids : numpy.ndarray
        (files,), rising.
    latents : numpy.ndarray
        (files, width), float32.

    Example
    -------
    >>> latents = np.eye(3, dtype=np.float32)
    >>> ExactNeighbours(np.array([5, 6, 7]), latents).search(latents[1], top=1)
    array([6])
    """

    def __init__(self, ids: np.ndarray, latents: np.ndarray):
        self.ids = ids
        self.latents = latents

    def update(self, ids: np.ndarray, fetch: Fetch) -> bool:
        """Adds what is new and removes what is gone.

        Arguments
        ---------
        ids : numpy.ndarray
            All that shall be in it (files,), rising.
        fetch : callable
            From some of these ids to ids (n,), rising, and latents (n, width); those
            that have gone meanwhile are left out.

        Returns
        -------
        bool
            Whether anything has changed.
        """
        if np.array_equal(ids, self.ids):
            return False
        kept = np.isin(self.ids, ids)
        new, fetched = fetch(np.setdiff1d(ids, self.ids))
        joined = np.concatenate([self.ids[kept], new])
        latents = np.concatenate([self.latents[kept], fetched])
        order = np.argsort(joined)
        self.ids, self.latents = joined[order], latents[order]
        return bool(len(new)) or not kept.all()

    def search(self, query: np.ndarray, top: int) -> np.ndarray:
        """The files with the largest dot products.

        Arguments
        ---------
        query : numpy.ndarray
            (width,), float32.
        top : int
            How many at most.

        Returns
        -------
        numpy.ndarray
            Their ids, the best first; of equals the first in the index.
        """
        scores = self.latents @ query
        if top < len(scores):
            limit = np.partition(scores, -top)[-top]
            candidates = np.flatnonzero(scores >= limit)
        else:
            candidates = np.arange(len(scores))
        order = np.argsort(-scores[candidates], kind="stable")[:top]
        return self.ids[candidates[order]]
