"""The latents of audio files in one SQLite file.

SQLite makes every change whole or not at all, also when its process is killed. Latents
have a checksum, since SQLite itself does not notice a changed bit in them.
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
    """An open index file; safe to use from several threads."""

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
        """Looks through the structure of the file."""
        [[words]] = self._read("PRAGMA quick_check(1)")
        if words != "ok":
            raise damaged(self.path, words)

    def ids(self) -> np.ndarray:
        """The numbers of all files."""
        rows = self._read("SELECT id FROM files ORDER BY id")
        return np.array([row[0] for row in rows], dtype=np.int64)

    def entries(self, limit: int = -1) -> list[Entry]:
        """The files."""
        query = f"SELECT {_ENTRY} FROM files ORDER BY id LIMIT ?"
        return [_entry(row) for row in self._read(query, (limit,))]

    def entry(self, id: int) -> Entry | None:
        """One file."""
        rows = self._read(f"SELECT {_ENTRY} FROM files WHERE id = ?", (id,))
        return _entry(rows[0]) if rows else None

    def find(self, path: str) -> Entry | None:
        """The file at a place."""
        rows = self._read(
            f"SELECT {_ENTRY} FROM files WHERE path = ?", (os.fsencode(path),)
        )
        return _entry(rows[0]) if rows else None

    def common_folder(self) -> str:
        """The folder that all files are in, so that it need not be shown with each."""
        # What the first and the last path have in common, all between them have.
        [ends] = self._read("SELECT min(path), max(path) FROM files")
        paths = [os.path.dirname(os.fsdecode(path)) for path in ends if path]
        return os.path.commonpath(paths) if paths else ""

    def latents(
        self, ids: Iterable[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads latents."""
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
        """Adds a file, or replaces what the index knows of it."""
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
        """Takes files out; what is known to be wrong with them too."""
        names = [(os.fsencode(path),) for path in paths]
        with self._changing() as connection:
            connection.executemany("DELETE FROM files WHERE path = ?", names)
            connection.executemany("DELETE FROM problems WHERE path = ?", names)

    def put_model(self, name: str) -> None:
        """Notes where the model is loaded from now."""
        with translated(self.path), self._lock, self._connection as connection:
            connection.execute(
                "UPDATE facts SET value = ? WHERE name = 'model'", (name,)
            )
        self.model = name

    def put_problem(self, path: str, reason: str) -> None:
        """Notes a file that cannot be read; its latent of before is out of date."""
        name = os.fsencode(path)
        with self._changing() as connection:
            connection.execute("DELETE FROM files WHERE path = ?", (name,))
            connection.execute(
                "INSERT OR REPLACE INTO problems VALUES (?, ?)", (name, reason)
            )

    def problems(self) -> dict[str, str]:
        """The files that could not be read."""
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
