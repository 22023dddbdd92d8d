"""Searching an index: what is closest to a vector, a text, or a file."""

from __future__ import annotations

import difflib
import json
import os
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from muq_plugins.errors import UserError, given_by_user, shown
from muq_plugins.files import atomic
from muq_plugins.inference.index.store import CHUNK, Entry, Store, as_vector, is_damaged
from muq_plugins.lobes.mulan import TextModel
from muq_plugins.lobes.mulan.text_models import check_length

# Of a score; what comes after them is rounding error.
DIGITS = 6
# The best of so many scores must be as far from the others as chance rarely takes it.
# Of fewer scores than these nobody can tell.
RARELY, FEWEST_SCORES = 0.05, 10
NOTHING_CLEAR = (
    "Nothing stands out from the other files: many fit the words about alike, or none."
)
# How many names a message lists, and of how many it takes those that are close: to
# compare a name with 200,000 takes half a minute.
LISTED, COMPARED = 3, 2000


class Match(NamedTuple):
    """A file, and the dot product of its vector and that of the query."""

    entry: Entry
    score: float


class MusicIndex:
    """An index that is open for searching, from one thread or several.

    Every vector is compared. It follows changes that `update_index` makes meanwhile.

    Example
    -------
    >>> from muq_plugins.inference.index.store import create
    >>> from muq_plugins.inference.space import latent_space
    >>> folder = getfixture("tmp_path")
    >>> create(folder, "results/muq_mulan/1234", latent_space("1ec3"), width=2)
    >>> index = MusicIndex(folder)
    >>> index.store.put("/a.wav", 48, 0, 1.0, np.array([1.0, 0.0]))
    >>> index.store.put("/b.wav", 48, 0, 1.0, np.array([0.0, 1.0]))
    >>> [(match.entry.path, match.score) for match in index.search([0.0, 1.0])]
    [('/b.wav', 1.0), ('/a.wav', 0.0)]
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.store = Store(self.folder)
        self._lock = threading.Lock()
        self._name, self._revision = "", -1
        self._vectors = np.zeros((0, self.store.width), np.float32)
        self._ids = np.zeros(0, np.int64)  # of each row, -1 for a dead one
        self._refresh()

    def __len__(self) -> int:
        return len(self.store)

    @property
    def takes_texts(self) -> bool:
        """Whether its model embeds texts beside audio."""
        return self.store.layer is None

    def search(
        self,
        vector: np.ndarray,
        top: int = 10,
        without: Entry | None = None,
        below: str | None = None,
    ) -> list[Match]:
        """The files whose vectors are closest to one, the best first.

        `without` is left out, such as the query itself; `below` is the absolute path of
        a folder whose files alone count.
        """
        return self._search(vector, top, without, below)[0]

    def search_and_judge(
        self,
        vector: np.ndarray,
        top: int = 10,
        without: Entry | None = None,
        below: str | None = None,
    ) -> tuple[list[Match], bool | None]:
        """As `search`, and whether any file stands out from the others: `stands_out`.

        One look at all vectors, which may be more than the memory holds, is for both.
        """
        matches, scores = self._search(vector, top, without, below)
        return matches, stands_out(scores)

    def _search(
        self, vector: np.ndarray, top: int, without: Entry | None, below: str | None
    ) -> tuple[list[Match], np.ndarray]:
        """The best, and the scores of all; -inf for those that do not count."""
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.store.width,) or not np.isfinite(query).all():
            raise UserError(
                f"A query of {self.folder} is {self.store.width} finite numbers, got "
                f"an array of the shape {query.shape}."
            )
        with self._lock:
            self._refresh()
            ids, vectors = self._ids, self._vectors
            scores = vectors @ query
            scores[np.isnan(scores)] = np.inf  # damaged, which shall be noticed
            scores[~self._counted(below)] = -np.inf
            if without is not None:
                scores[ids == without.id] = -np.inf
            if top < len(scores):
                # What rounding may have put in the wrong order belongs to them.
                limit = np.partition(scores, -top)[-top] - 2 * 10.0**-DIGITS
                found = np.flatnonzero((scores >= limit) & (scores > -np.inf))
            else:
                found = np.flatnonzero(scores > -np.inf)
            # Without sums whose order depends on the place in memory.
            exact = vectors[found].astype(np.float64) @ query
            exact[np.isnan(exact)] = np.inf
            # Equals stay in the order of the index, whatever their rounding errors.
            order = np.argsort(-exact.round(DIGITS), kind="stable")[:top]
            matches = [
                Match(entry, float(exact[place]))
                for place in order
                if (entry := self._entry(int(found[place]))) is not None
            ]
            return matches, scores

    def vector(self, entry: Entry) -> np.ndarray:
        """The vector (width,) of a file of the index, for a search by example."""
        with self._lock:
            self._refresh()
            rows = np.flatnonzero(self._ids == entry.id)
            if not len(rows) or self._entry(int(rows[0])) is None:
                raise UserError(f"{entry.shown} is not in {self.folder} any more.")
            return np.array(self._vectors[rows[0]])

    def all_vectors(self) -> Iterator[tuple[list[Entry], np.ndarray]]:
        """All files with their vectors (files, width), some at a time."""
        with self._lock:
            self._refresh()
            rows = np.flatnonzero(self._ids >= 0)
            for begin in range(0, len(rows), CHUNK):
                some = [
                    (entry, row)
                    for row in rows[begin : begin + CHUNK].tolist()
                    if (entry := self._entry(row)) is not None
                ]
                if some:
                    entries, places = zip(*some, strict=True)
                    yield list(entries), self._vectors[list(places)]

    def _counted(self, below: str | None) -> np.ndarray:
        """Which rows are files, and in a folder if there is one."""
        if below is None:
            return self._ids >= 0
        return np.isin(self._ids, self.store.below(below))

    def _entry(self, row: int) -> Entry | None:
        """The file of a row, if it is there still; its vector must be what it was."""
        entry = self.store.entry(int(self._ids[row]))
        if entry and is_damaged(self._vectors[row], entry.checksum):
            raise UserError(
                f"The vector of {entry.shown} in {self.folder} has changed on the "
                f"disk or is not finite: run `muq-plugins index` again, which embeds "
                f"the file again."
            )
        return entry

    def _refresh(self) -> None:
        """Follows what has changed in the store."""
        news = self.store.news(self._name, self._revision)
        if news is None:
            return
        known = self._ids if news.name == self._name else self._ids[:0]
        rows = max(len(known), news.rows.max(initial=-1) + 1)
        if rows > len(news.vectors):
            raise UserError(
                f"{self.folder / news.name} holds {len(news.vectors)} of {rows} "
                f"vectors: run `muq-plugins index` again, which embeds the files of "
                f"the missing ones again."
            )
        self._ids = np.full(len(news.vectors), -1)
        self._ids[: len(known)] = known
        self._ids[news.rows] = news.ids
        self._name, self._revision, self._vectors = news[:3]


def stands_out(scores: np.ndarray) -> bool | None:
    """Whether the best score is more than the best of so many would be by chance.

    Chance draws all of them from one normal distribution, with the median and the
    spread (by the median deviation) that they have: its best is above the limit in one
    query of twenty. None if there are too few to tell.

    Example
    -------
    >>> stands_out([0.1, 0.11, 0.12] * 4), stands_out([0.1, 0.11, 0.12] * 4 + [0.5])
    (False, True)
    """
    scores = np.asarray(scores, dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    if len(scores) < FEWEST_SCORES:
        return None
    middle = np.median(scores)
    usual = NormalDist()
    spread = np.median(np.abs(scores - middle)) / usual.inv_cdf(0.75)
    limit = usual.inv_cdf((1 - RARELY) ** (1 / len(scores)))
    return bool(scores.max() - middle > limit * spread)


def query_text(index: MusicIndex, text: str) -> str:
    """The text of a query as tokenizers take it, if the index can be asked by words."""
    if not index.takes_texts:
        raise UserError(
            f"{index.folder} holds layer {index.store.layer} of {index.store.model}, "
            f"which knows no words: search by an example (--audio FILE), or make an "
            f"index with a MuQ-MuLan."
        )
    text = text.strip()
    if not text:
        raise UserError(
            'The query is empty: describe the music, such as "calm solo cello".'
        )
    with given_by_user():
        check_length(text)
    # What a terminal passes on may not be UTF-8, which tokenizers do not take.
    return text.encode("utf-8", "replace").decode("utf-8")


def embed_query(model: TextModel, text: str) -> np.ndarray:
    """The vector (width,) of a text; the model says how much of a long one it used."""
    return as_vector(model.embed_text([text])[0])


def find_example(index: MusicIndex, name: str) -> Entry:
    """The file of an index with a name.

    It is its path, also below the folder that all files are in, or the end of it; upper
    and lower case are the same.
    """
    if not name.strip():
        raise UserError("The name is empty: give the name of an indexed file.")
    top = index.store.common_folder()
    for exact in (name, name.strip()):
        if (entry := index.store.find(os.path.join(top, exact))) is not None:
            return entry
    paths = index.store.paths()
    end = f"/{_spelled(name.strip()).casefold().lstrip('/')}"
    ends = [path for path in paths if f"/{_spelled(path).casefold()}".endswith(end)]
    whole = _spelled(os.path.join(top, name.strip()))
    found = [path for path in ends if _spelled(path) == whole] or ends
    if len(found) == 1 and (entry := index.store.find(found[0])) is not None:
        return entry
    if len(found) > 1:
        names = ", ".join(map(shown, found[:LISTED]))
        more = ", ..." if len(found) > LISTED else ""
        raise UserError(
            f"{len(found)} indexed files are called {name}: {names}{more}. Give more "
            f"of the path, or choose the file among the answers to a search."
        )
    names = {os.path.basename(shown(path)) for path in paths[:COMPARED]}
    close = difflib.get_close_matches(name, names, n=LISTED)
    near = f" Close to it: {', '.join(close)}." if close else ""
    raise UserError(f"No indexed file is called {name}.{near}")


def find_folder(index: MusicIndex, name: str) -> str:
    """The absolute path of a folder with files of an index.

    It is given by its path, also below the folder that all files are in.
    """
    top = index.store.common_folder()
    for exact in (name, name.strip()):
        folder = os.path.normpath(os.path.join(top, exact))
        if len(index.store.below(folder)):
            return folder
    depth, wanted = len(folder.split("/")), _spelled(folder)
    parts = (path.split("/") for path in index.store.paths())
    folders = {"/".join(part[:depth]) for part in parts if len(part) > depth}
    found = sorted(folder for folder in folders if _spelled(folder) == wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"The names of {len(found)} indexed folders all look like {name.strip()}: "
            f"rename them, and run `muq-plugins index` again."
        )
    raise UserError(
        f"No indexed file is in a folder called {name.strip()}: give its path below "
        f"{shown(top)}, or leave it empty for all files."
    )


def _spelled(path: str) -> str:
    """A path as a person sees and types it: some systems take letters apart."""
    if path.isascii() and path.isprintable():
        return path  # of 200,000 paths, the others take seconds
    return unicodedata.normalize("NFC", shown(path))


def find_itself(index: MusicIndex, path: str) -> Entry | None:
    """An example, if it is a file of the index, which keeps links below a folder."""
    real = os.path.realpath(path)
    parts = Path(os.path.abspath(path)).parts
    # Of the folders above it, any may be the one that was indexed: its own path is
    # without links then, what lies below is as it was found.
    for count in range(1, len(parts)):
        top = os.path.realpath(os.path.join(*parts[:count]))
        entry = index.store.find(os.path.join(top, *parts[count:]))
        # After a link, a path with .. in it may be another file than it seems.
        if entry is not None and os.path.realpath(entry.path) == real:
            return entry
    return index.store.find(real)


def export_parquet(index: MusicIndex, path: str | Path) -> int:
    """Writes all files and vectors as a table, for a vector database; their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store, count = index.store, 0
    facts = {
        "model": store.model,
        "space": store.space.name,
        "space_facts": json.dumps(store.space.facts()),
    }
    columns = {
        "path": pa.string(),
        "path_bytes": pa.binary(),  # as the disk has it, which may not be UTF-8
        "duration": pa.float64(),
        "bytes": pa.int64(),
        "modified": pa.int64(),  # nanoseconds
        "embedding": pa.list_(pa.float32(), store.width),
    }
    schema = pa.schema(columns, metadata=facts)
    with atomic(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for entries, vectors in index.all_vectors():
            known = [
                (e.shown, os.fsencode(e.path), e.duration, e.bytes, e.modified)
                for e in entries
            ]
            embedding = pa.FixedSizeListArray.from_arrays(vectors.ravel(), store.width)
            rows = [*zip(*known, strict=True), embedding]
            writer.write_table(pa.table(rows, schema=schema))
            count += len(entries)
    return count
