"""Searching an index of music."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from muq_plugins.inference.index.database import Database
from muq_plugins.inference.index.entries import Entry, MusicIndexError
from muq_plugins.inference.index.exact_neighbours import ExactNeighbours
from muq_plugins.inference.index.faiss_neighbours import FaissNeighbours

# FAISS compares in its own way, so a few more than asked for are compared again.
SPARE = 10
# Of a score; what comes after them is rounding error.
DIGITS = 6


class Match(NamedTuple):
    """An answer to a query."""

    entry: Entry  # the file
    score: float  # dot product of its latent and that of the query; 1 is the same


class MusicIndex:
    """An index that is open for searching, from one thread or several.

    It follows changes that `update_index` makes meanwhile.
    """

    def __init__(self, folder: str | Path, exact: bool = False):
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self.database = Database(self.folder)
        path = faiss_path(self.database)
        if path.exists() and not exact:
            self._neighbours = FaissNeighbours.load(path)
            # A kill may have left it behind the database.
            self._revision = None
        else:
            self._revision = self.database.revision
            self._neighbours = ExactNeighbours(*self.database.latents())

    def __len__(self) -> int:
        """Number of files in the index."""
        return len(self.database)

    @property
    def is_exact(self) -> bool:
        """Whether queries are compared with all latents."""
        return isinstance(self._neighbours, ExactNeighbours)

    @property
    def model(self) -> str:
        """Where the model of the index is loaded from."""
        return self.database.model

    def check_model(self, fingerprint: str, name: str) -> None:
        """Refuses a model that the index was not made with."""
        check_model(self.database, fingerprint, name)

    def search(
        self, latent: np.ndarray, top: int = 10, without: Entry | None = None
    ) -> list[Match]:
        """The files whose latents are closest to one."""
        query = np.asarray(latent, dtype=np.float32)
        if query.shape != (self.database.width,) or not np.isfinite(query).all():
            raise MusicIndexError(
                f"A query of {self.folder} is {self.database.width} finite numbers, "
                f"got an array of the shape {query.shape}."
            )
        with self._lock:
            self._refresh()
            found = self._neighbours.search(query, top + SPARE)
            ids, latents = self.database.latents(found)
        matches = []
        for id, score in zip(ids.tolist(), (latents @ query).tolist(), strict=True):
            entry = self.database.entry(id)
            if entry is not None and (without is None or id != without.id):
                matches.append(Match(entry, score))
        # Equals stay in the order of the index, whatever their rounding errors.
        return sorted(matches, key=lambda match: -round(match.score, DIGITS))[:top]

    def latent(self, entry: Entry) -> np.ndarray:
        """The latent of a file of the index, for a search by example."""
        _, latents = self.database.latents([entry.id])
        if not len(latents):
            raise MusicIndexError(f"{entry.shown} is not in {self.folder} any more.")
        return latents[0]

    def _refresh(self) -> None:
        """Follows what has changed in the database."""
        revision = self.database.revision
        if revision != self._revision:
            self._neighbours.update(self.database.ids(), self.database.latents)
            self._revision = revision


def faiss_path(database: Database) -> Path:
    """Where the FAISS file of an index is, if it has one."""
    return database.folder / f"latents-{database.id}.faiss"


def check_model(database: Database, fingerprint: str, name: str) -> None:
    """Refuses a model that an index was not made with."""
    if fingerprint != database.fingerprint:
        raise MusicIndexError(
            f"{database.folder} is an index of another model: it was made with "
            f"{database.model} ({database.fingerprint}), this is {name} "
            f"({fingerprint}). Latents of different models cannot be compared: use "
            f"that model, or make a new index with this one."
        )
