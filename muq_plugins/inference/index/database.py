"""The latents of audio files in one SQLite file.

SQLite makes every change whole or not at all, also when its process is killed. Latents
have a checksum, since SQLite itself does not notice a changed bit in them.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from muq_plugins.inference.index.entries import Entry, MusicIndexError
from muq_plugins.inference.index.storage import FILE, connect, damaged, translated

_ENTRY = "id, path, bytes, modified, duration"
_REVISION = "SELECT value FROM facts WHERE name = 'revision'"


class Database:
    """An open index file; safe to use from several threads.

    Arguments
    ---------
    folder : str or Path
        The folder of the index.

    Raises
    ------
    MusicIndexError
        If there is none, or it is damaged.

    Example
    -------
    >>> from muq_plugins.inference.index.storage import create
    >>> folder = getfixture("tmp_path")
    >>> create(folder, model="results/muq_mulan/1234", fingerprint="1ec3", width=2)
    >>> database = Database(folder)
    >>> database.put("/music/a.wav", 48, 0, 1.0, np.array([0.6, 0.8]))
    >>> len(database), database.find("/music/a.wav").id
    (1, 1)
    >>> database.latents()[1]
    array([[0.6, 0.8]], dtype=float32)
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self._lock = threading.Lock()
        self._connection, facts = connect(self.path)
        try:
            self.model = facts["model"]
            self.fingerprint = facts["fingerprint"]
            self.width = int(facts["width"])
            self.id = facts["id"]
        except (KeyError, ValueError) as error:
            raise damaged(self.path, f"what it says of itself: {facts}") from error

    def __len__(self) -> int:
        """Number of files in the index."""
        [[count]] = self._read("SELECT count(*) FROM files")
        return count

    @property
    def revision(self) -> str:
        """Another one after each change of a file, for those who keep copies."""
        [[value]] = self._read(_REVISION)
        return value

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._connection.close()

    def check(self) -> None:
        """Looks through the structure of the file.

        Raises
        ------
        MusicIndexError
            If it is damaged.
        """
        [[words]] = self._read("PRAGMA quick_check(1)")
        if words != "ok":
            raise damaged(self.path, words)

    def ids(self) -> np.ndarray:
        """The numbers of all files.

        Returns
        -------
        numpy.ndarray
            (files,), int64, rising.
        """
        rows = self._read("SELECT id FROM files ORDER BY id")
        return np.array([row[0] for row in rows], dtype=np.int64)

    def entries(self, limit: int = -1) -> list[Entry]:
        """The files.

        Arguments
        ---------
        limit : int
            How many at most; -1 for all.

        Returns
        -------
        list of Entry
            In the order of their ids.
        """
        query = f"SELECT {_ENTRY} FROM files ORDER BY id LIMIT ?"
        return [_entry(row) for row in self._read(query, (limit,))]

    def entry(self, id: int) -> Entry | None:
        """One file.

        Arguments
        ---------
        id : int
            Its number.

        Returns
        -------
        Entry or None
            None if no file has this number.
        """
        rows = self._read(f"SELECT {_ENTRY} FROM files WHERE id = ?", (id,))
        return _entry(rows[0]) if rows else None

    def find(self, path: str) -> Entry | None:
        """The file at a place.

        Arguments
        ---------
        path : str
            Absolute.

        Returns
        -------
        Entry or None
            None if it is not in the index.
        """
        rows = self._read(
            f"SELECT {_ENTRY} FROM files WHERE path = ?", (os.fsencode(path),)
        )
        return _entry(rows[0]) if rows else None

    def common_folder(self) -> str:
        """The folder that all files are in, so that it need not be shown with each.

        Returns
        -------
        str
            Its path; empty without files.
        """
        # What the first and the last path have in common, all between them have.
        [ends] = self._read("SELECT min(path), max(path) FROM files")
        paths = [os.path.dirname(os.fsdecode(path)) for path in ends if path]
        return os.path.commonpath(paths) if paths else ""

    def latents(
        self, ids: Iterable[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads latents.

        Arguments
        ---------
        ids : iterable of int or None
            Of which files; None for all.

        Returns
        -------
        ids : numpy.ndarray
            (files,), int64, rising; those that are not in the index are left out.
        latents : numpy.ndarray
            (files, width), float32.

        Raises
        ------
        MusicIndexError
            If one is damaged.
        """
        columns = "SELECT id, latent, checksum FROM files"
        if ids is None:
            rows = self._read(f"{columns} ORDER BY id")
        else:
            rows = []
            for id in sorted(map(int, ids)):
                rows += self._read(f"{columns} WHERE id = ?", (id,))
        for id, latent, checksum in rows:
            if len(latent) != 4 * self.width or zlib.crc32(latent) != checksum:
                raise damaged(self.path, f"the latent of file {id} has changed")
        numbers = np.array([row[0] for row in rows], dtype=np.int64)
        joined = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        return numbers, joined.reshape(len(rows), self.width).astype(np.float32)

    def put(
        self, path: str, bytes: int, modified: int, duration: float, latent: np.ndarray
    ) -> None:
        """Adds a file, or replaces what the index knows of it.

        Arguments
        ---------
        path : str
            Absolute.
        bytes : int
            Its size.
        modified : int
            When it was changed last, in nanoseconds.
        duration : float
            Seconds.
        latent : numpy.ndarray
            (width,).

        Raises
        ------
        MusicIndexError
            If the latent has another width.
        """
        if latent.shape != (self.width,):
            raise MusicIndexError(
                f"{self.path} holds latents of the width {self.width}, got one of the "
                f"shape {latent.shape}."
            )
        blob, name = latent.astype("<f4").tobytes(), os.fsencode(path)
        with self._changing() as connection:
            connection.execute("DELETE FROM files WHERE path = ?", (name,))
            connection.execute("DELETE FROM problems WHERE path = ?", (name,))
            connection.execute(
                "INSERT INTO files (path, bytes, modified, duration, latent, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (name, bytes, modified, duration, blob, zlib.crc32(blob)),
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Takes files out; what is known to be wrong with them too.

        Arguments
        ---------
        paths : iterable of str
            Absolute; those that the index does not know do not matter.
        """
        names = [(os.fsencode(path),) for path in paths]
        with self._changing() as connection:
            connection.executemany("DELETE FROM files WHERE path = ?", names)
            connection.executemany("DELETE FROM problems WHERE path = ?", names)

    def put_model(self, name: str) -> None:
        """Notes where the model is loaded from now.

        Arguments
        ---------
        name : str
            The same model, in another place.
        """
        with translated(self.path), self._lock, self._connection as connection:
            connection.execute(
                "UPDATE facts SET value = ? WHERE name = 'model'", (name,)
            )
        self.model = name

    def put_problem(self, path: str, reason: str) -> None:
        """Notes a file that cannot be read; its latent of before is out of date.

        Arguments
        ---------
        path : str
            Absolute.
        reason : str
            What is wrong with it.
        """
        name = os.fsencode(path)
        with self._changing() as connection:
            connection.execute("DELETE FROM files WHERE path = ?", (name,))
            connection.execute(
                "INSERT OR REPLACE INTO problems VALUES (?, ?)", (name, reason)
            )

    def problems(self) -> dict[str, str]:
        """The files that could not be read.

        Returns
        -------
        dict
            Path to reason.
        """
        rows = self._read("SELECT path, reason FROM problems ORDER BY path")
        return {os.fsdecode(path): reason for path, reason in rows}

    def _read(self, query: str, values: tuple = ()) -> list[tuple]:
        with translated(self.path), self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A change of the files: whole or not at all."""
        with translated(self.path), self._lock, self._connection as connection:
            yield connection
            connection.execute(
                "UPDATE facts SET value = ? WHERE name = 'revision'",
                (uuid.uuid4().hex,),
            )


def _entry(row: tuple) -> Entry:
    id, path, *rest = row
    return Entry(id, os.fsdecode(path), *rest)
