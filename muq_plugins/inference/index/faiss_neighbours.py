"""Nearest latents in a FAISS index, for more of them than one compares one by one."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from muq_plugins.inference.index.entries import MusicIndexError
from muq_plugins.inference.index.exact_neighbours import Fetch

# Up to here comparing with all takes a few milliseconds.
EXACT_UP_TO = 20_000
# The latents are divided into 2 sqrt(n) cells, and a query looks into an eighth of
# them, or 16: on music, which lies in clusters, it misses nearly nothing.
CELLS = 2.0
LOOK_INTO = 1 / 8
LEAST_CELLS = 16
# When there are so many times more or fewer latents, the cells are made anew.
GROWTH = 2.0
# How many latents decide about a cell.
TRAINED_ON = 128


class FaissNeighbours:
    """Latents in the cells of a FAISS index; a query looks into the nearest cells."""

    def __init__(self, index, path: Path | None = None):
        self.index = index
        self.path = path
        cells = round(index.nlist * LOOK_INTO)
        index.nprobe = min(index.nlist, max(LEAST_CELLS, cells))

    @classmethod
    def build(cls, ids: np.ndarray, latents: np.ndarray) -> FaissNeighbours:
        """Divides latents into cells."""
        faiss = require_faiss()
        width = latents.shape[1]
        cells = min(len(ids), round(CELLS * len(ids) ** 0.5))
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(quantizer, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = TRAINED_ON
        index.cp.min_points_per_centroid = 1  # which only silences a warning
        index.train(latents)
        index.add_with_ids(latents, ids)
        return cls(index)

    @classmethod
    def load(cls, path: str | Path) -> FaissNeighbours:
        """Reads a file."""
        faiss = require_faiss()
        try:
            index = faiss.read_index(os.fspath(path))
            if not isinstance(index, faiss.IndexIVFFlat):
                raise RuntimeError(f"it holds {type(index).__name__}")
        except RuntimeError as error:
            raise MusicIndexError(
                f"{path} is damaged ({error}): `muq-plugins index` makes it again."
            ) from error
        return cls(index, Path(path))

    def save(self, path: str | Path) -> None:
        """Writes the index; the file is complete or not there."""
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            require_faiss().write_index(self.index, os.fspath(unfinished))
            with open(unfinished, "rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (RuntimeError, OSError) as error:
            raise MusicIndexError(
                f"{path} cannot be written ({error}). What is done stays: with the "
                f"cause removed, the same command goes on."
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def ids(self) -> np.ndarray:
        """What is in it."""
        faiss = require_faiss()
        lists = self.index.invlists
        found = [
            faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)).copy()
            for cell in range(self.index.nlist)
            if lists.list_size(cell)
        ]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def update(self, ids: np.ndarray, fetch: Fetch) -> bool:
        """Adds what is new and removes what is gone."""
        present = self.ids()
        gone = np.setdiff1d(present, ids)
        new, latents = fetch(np.setdiff1d(ids, present))
        if len(gone):
            self.index.remove_ids(gone)
        if len(new):
            self.index.add_with_ids(latents, new)
        return bool(len(gone) or len(new))

    def fits(self, count: int) -> bool:
        """Tells whether there are as many cells as so many latents should have."""
        made_for = (self.index.nlist / CELLS) ** 2
        return made_for / GROWTH <= count <= made_for * GROWTH

    def search(self, query: np.ndarray, top: int) -> np.ndarray:
        """The files with the largest dot products in the nearest cells."""
        top = min(top, self.index.ntotal)
        if not top:
            return np.zeros(0, np.int64)  # FAISS refuses to look for nothing
        found = self.index.search(query[None], top)[1][0]
        return found[found >= 0]


def require_faiss() -> ModuleType:
    """Imports FAISS."""
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MusicIndexError(
            "FAISS, which searches large indexes, is not installed: run `pip install "
            "'muq-plugins[search]'` (or `pip install faiss-cpu`)."
        ) from error
