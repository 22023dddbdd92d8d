"""Nearest latents by comparing with all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Ids (files,) to those of them that are still there, and their latents (files, width).
Fetch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class ExactNeighbours:
    """All latents in memory, compared one by one."""

    def __init__(self, ids: np.ndarray, latents: np.ndarray):
        self.ids = ids
        self.latents = latents

    def update(self, ids: np.ndarray, fetch: Fetch) -> bool:
        """Adds what is new and removes what is gone."""
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
        """The files with the largest dot products."""
        scores = self.latents @ query
        if top < len(scores):
            limit = np.partition(scores, -top)[-top]
            candidates = np.flatnonzero(scores >= limit)
        else:
            candidates = np.arange(len(scores))
        order = np.argsort(-scores[candidates], kind="stable")[:top]
        return self.ids[candidates[order]]
