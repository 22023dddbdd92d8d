"""The store of an index: SQLite for what is known, one mapped file for the vectors.

SQLite is the truth: a vector that no row of it names is not there. Vectors are
appended, and on disk before the commit that names them: a kill leaves at most some that
nothing names. Each has a checksum, since nobody else would notice a changed bit.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from muq_plugins.errors import UserError, shown
from muq_plugins.files import atomic, locked
from muq_plugins.inference.space import Space, latent_space, read_space, track_space

FILE = "music.sqlite"
TURN = ".turn"  # held by the process that looks at all of it, or makes it anew
# In the header of the file: tells ours from other SQLite files ("MuQi").
APPLICATION = 0x4D755169
FORMAT = 2
OLD_FORMAT = 1  # with the vectors inside, and a FAISS file beside it
# Seconds to wait for another process that is writing: all vectors, in a compaction.
PATIENCE = 600.0
# Vectors that are copied at once.
CHUNK = 4096

# What came with format 2. A file that has changed gets a new id, and ids are never used
# again; `revision` counts changes, so that those who hold a view find what is new.
_NEW_TABLES = (
    "CREATE INDEX files_by_revision ON files (revision)",
    "CREATE TABLE gone (row INTEGER PRIMARY KEY, revision INTEGER)",
    "CREATE INDEX gone_by_revision ON gone (revision)",
    "CREATE TABLE folders (path BLOB PRIMARY KEY)",
    f"PRAGMA user_version = {FORMAT}",
)
_SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE,"
    " bytes INTEGER, modified INTEGER, duration REAL, checksum INTEGER,"
    " row INTEGER, content BLOB, revision INTEGER)",
    "CREATE TABLE problems (path BLOB PRIMARY KEY, reason TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    *_NEW_TABLES,
)
_FACTS = "SELECT name, value FROM facts"
_ENTRY = "id, path, bytes, modified, duration, checksum, content"
# Of the ends: what they have in common, all paths between them have. One question each,
# as SQLite looks into its index for one end, not for two.
_ENDS = "SELECT min(path) FROM files UNION ALL SELECT max(path) FROM files"
# Rows without gaps, in the order of the ids.
_NUMBER_ROWS = """UPDATE files SET row = place FROM
 (SELECT id AS file, row_number() OVER (ORDER BY id) - 1 AS place FROM files)
 WHERE id = file"""


@dataclass(frozen=True)
class Entry:
    """A file of the index; `modified` in nanoseconds, `content` a hash of its bytes."""

    id: int
    path: str
    bytes: int
    modified: int
    duration: float
    checksum: int = 0
    content: bytes | None = None

    @property
    def shown(self) -> str:
        """The path as text that can be printed, also if its name is not UTF-8."""
        return shown(self.path)

    @property
    def name(self) -> str:
        """The file's own name, without the folder, as text that can be printed."""
        return os.path.basename(self.shown)

    def is_current(self) -> bool:
        """Whether the file has the size and time of change that it was indexed with."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.modified)


class News(NamedTuple):
    """What has changed since a revision: rows with their new ids, -1 for none."""

    name: str  # of the file of vectors
    revision: int
    vectors: np.ndarray
    rows: np.ndarray
    ids: np.ndarray


def create(folder: str | Path, model: str, space: Space, width: int) -> None:
    """Makes an index without files; it is complete or not there.

    `model` is where its model is loaded from.
    """
    path = Path(folder, FILE)
    facts = {
        "model": model,
        "space": json.dumps(space.facts()),
        "width": str(width),
        "vectors": _new_name(),
        "revision": "0",
    }
    with translated(path), atomic(path) as partial:
        with closing(sqlite3.connect(partial)) as connection, connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            _set(connection, **facts)


class Store:
    """An open index; safe to use from several threads. One process writes at a time.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> create(folder, "results/muq_mulan/1234", latent_space("1ec3"), width=2)
    >>> store = Store(folder)
    >>> store.put("/music/a.wav", 48, 0, 1.0, np.array([0.6, 0.8]))
    >>> len(store), store.find("/music/a.wav").id
    (1, 1)
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / FILE
        self._lock = threading.Lock()
        self._connection = self._connect()
        facts = dict(self._read(_FACTS))
        try:
            self.model = facts["model"]
            self.width = int(facts["width"])
            self.space = _space_of(facts)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self.path, f"what it says of itself: {facts}") from error

    @property
    def layer(self) -> int | None:
        """The hidden state that its vectors are of; None for a MuQ-MuLan's latents."""
        return self.space.layers[0] if self.space.layers else None

    def __len__(self) -> int:
        [[count]] = self._read("SELECT count(*) FROM files")
        return count

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._connection.close()

    def entries(self, limit: int = -1) -> list[Entry]:
        """The files, in the order of their ids; -1 for all."""
        return self._entries("ORDER BY id LIMIT ?", limit)

    def entry(self, id: int) -> Entry | None:
        """The file with a number; None if there is none."""
        return next(iter(self._entries("WHERE id = ?", id)), None)

    def find(self, path: str) -> Entry | None:
        """The file at an absolute path; None if it is not in the index."""
        return next(iter(self._entries("WHERE path = ?", os.fsencode(path))), None)

    def paths(self) -> list[str]:
        """The paths of all files, in the order of their ids."""
        rows = self._read("SELECT path FROM files ORDER BY id")
        return [os.fsdecode(path) for [path] in rows]

    def below(self, folder: str) -> np.ndarray:
        """The numbers of the files in a folder, by its absolute path, or deeper."""
        start = os.fsencode(os.path.join(folder, ""))
        query = "SELECT id FROM files WHERE path >= ? AND path < ?"
        # What comes after all that begin so: the last byte is "/".
        rows = self._read(query, (start, start[:-1] + b"0"))
        return np.array(rows, dtype=np.int64).reshape(-1)

    def problems(self) -> dict[str, str]:
        """The files that could not be read, and why."""
        rows = self._read("SELECT path, reason FROM problems ORDER BY path")
        return {os.fsdecode(path): reason for path, reason in rows}

    def folders(self) -> list[str]:
        """The folders that have been indexed."""
        return [os.fsdecode(path) for [path] in self._read("SELECT path FROM folders")]

    def common_folder(self) -> str:
        """The folder that all files are in, so that it need not be shown with each."""
        return _common_folder(self._read(_ENDS))

    def _mapped(self, name: str) -> np.ndarray:
        """All vectors (rows, width) of a file, also dead ones, mapped and not read."""
        path = self.folder / name
        with translated(path), suppress(FileNotFoundError):
            if rows := path.stat().st_size // (4 * self.width):
                return np.memmap(path, "<f4", "r", shape=(rows, self.width))
        return np.zeros((0, self.width), np.float32)

    def news(self, name: str, revision: int) -> News | None:
        """What has changed since a revision; all of it if the vectors moved.

        What it costs grows with the changes, not with the files.
        """
        with translated(self.path), self._lock, self._connection as connection:
            # One state for all questions: as long as it is read, nobody can commit,
            # and so nobody removes its vectors.
            connection.execute("BEGIN")
            facts = dict(connection.execute(_FACTS))
            now = facts["vectors"], int(facts["revision"])
            if now == (name, revision):
                return None
            pairs = connection.execute(
                "SELECT row, id FROM files WHERE revision > ?1"
                " UNION ALL SELECT row, -1 FROM gone WHERE revision > ?1",
                (revision if name == facts["vectors"] else -1,),
            ).fetchall()
            vectors = self._mapped(facts["vectors"])
        rows, ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return News(*now, vectors, rows, ids)

    def put(
        self,
        path: str,
        bytes: int,
        modified: int,
        duration: float,
        vector: np.ndarray,
        content: bytes | None = None,
    ) -> None:
        """Adds a file, or replaces what the index knows of it."""
        if vector.shape != (self.width,):
            raise UserError(
                f"{self.folder} holds vectors of {self.width} numbers, got one of the "
                f"shape {vector.shape}."
            )
        data, name = vector.astype("<f4").tobytes(), os.fsencode(path)
        known = (name, bytes, modified, duration, zlib.crc32(data), content)
        with self._changing([name]) as (connection, revision):
            connection.execute(
                "INSERT INTO files (path, bytes, modified, duration, checksum, content,"
                " row, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*known, self._append(data), revision),
            )

    def move(self, entry: Entry, path: str, modified: int, content: bytes) -> None:
        """The same file has another path or time; it keeps its number and vector."""
        name = os.fsencode(path)
        out = [] if path == entry.path else [name]
        with self._changing(out) as (connection, _):
            connection.execute(
                "UPDATE files SET path = ?, modified = ?, content = ? WHERE id = ?",
                (name, modified, content, entry.id),
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Takes files out, and what is known to be wrong with them."""
        with self._changing(map(os.fsencode, paths)):
            pass

    def put_problem(self, path: str, reason: str) -> None:
        """Notes a file that cannot be read; its vector of before is out of date."""
        name = os.fsencode(path)
        with self._changing([name]) as (connection, _):
            connection.execute("INSERT INTO problems VALUES (?, ?)", (name, reason))

    def put_origin(self, model: str, folder: str) -> None:
        """Notes where the model is loaded from now, and a folder that is indexed."""
        with self._changing() as (connection, _):
            _set(connection, model=model)
            connection.execute(
                "INSERT OR IGNORE INTO folders VALUES (?)", (os.fsencode(folder),)
            )
        self.model = model

    def check(self) -> set[int]:
        """Looks through all of it; the numbers of files whose vectors are damaged.

        For one who may write.
        """
        [[words]] = self._read("PRAGMA quick_check(1)")
        if words != "ok":
            raise damaged(self.path, words)
        news = self.news("", -1)
        vectors, rows = news.vectors, news.rows.max(initial=-1) + 1
        if len(vectors) < rows:
            # Of a file that was cut, no row is given twice.
            path = self.folder / news.name
            with translated(path), open(path, "ab") as file:
                file.truncate(4 * self.width * rows)
        return {
            id
            for id, row, checksum in self._read("SELECT id, row, checksum FROM files")
            if row >= len(vectors) or is_damaged(vectors[row], checksum)
        }

    def compact(self) -> None:
        """Writes the vectors anew if more than a third of them is dead.

        Those who have mapped the old ones keep them, and see another name.
        """
        with locked(self.folder, TURN):
            name, _, vectors, *_ = self.news("", -1)
            if 3 * (len(vectors) - len(self)) > len(vectors):
                with self._changing() as (connection, _):
                    # Read now that nobody can append.
                    query = "SELECT row FROM files ORDER BY id"
                    rows = [row for [row] in connection.execute(query)]
                    vectors = self._mapped(name)
                    starts = range(0, len(rows), CHUNK)
                    chunks = (vectors[rows[i : i + CHUNK]].tobytes() for i in starts)
                    name = _write_vectors(self.folder, chunks)
                    connection.execute(_NUMBER_ROWS)
                    connection.execute("DELETE FROM gone")
                    _set(connection, vectors=name)
            for path in self.folder.glob("vectors-*.f4"):
                if path.name != name:  # of a compaction, perhaps one that was killed
                    path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> int:
        """Writes a vector behind all others; its row."""
        path = self.folder / dict(self._connection.execute(_FACTS))["vectors"]
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            # Behind what a kill may have left half written.
            row = -(-file.seek(0, os.SEEK_END) // len(data))
            file.seek(row * len(data))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return row

    def _connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise UserError(
                f"{self.folder} is not an index of music: it has no {FILE}. Make one "
                f"with `muq-plugins index FOLDER --model MODEL --out {self.folder}`."
            )
        # rw, not rwc: a file that has gone is not made again without its content. What
        # may only be read is opened for reading.
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        with translated(self.path):
            connection = sqlite3.connect(
                address,
                timeout=PATIENCE,
                uri=True,
                check_same_thread=False,
                isolation_level=None,
            )
            [[application]] = connection.execute("PRAGMA application_id")
            [[version]] = connection.execute("PRAGMA user_version")
            if application != APPLICATION or not OLD_FORMAT <= version <= FORMAT:
                connection.close()
                raise UserError(
                    f"{self.path} is not an index that this version can read (format "
                    f"{version} of {application:#x}, expected {FORMAT} of "
                    f"{APPLICATION:#x}): make a new index."
                )
            if version == OLD_FORMAT:
                _migrate(self.folder, connection)
        return connection

    def _read(self, query: str, values: tuple = ()) -> list[tuple]:
        with translated(self.path), self._lock:
            return self._connection.execute(query, values).fetchall()

    def _entries(self, which: str, value: int | bytes) -> list[Entry]:
        rows = self._read(f"SELECT {_ENTRY} FROM files {which}", (value,))
        return [Entry(id, os.fsdecode(path), *more) for id, path, *more in rows]

    @contextmanager
    def _changing(
        self, out: Iterable[bytes] = ()
    ) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A change, whole or not at all, and its number; some paths are taken out."""
        with translated(self.path), self._lock, self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            revision = int(dict(connection.execute(_FACTS))["revision"]) + 1
            for path in out:
                connection.execute(
                    "INSERT INTO gone SELECT row, ? FROM files WHERE path = ?",
                    (revision, path),
                )
                for table in ("files", "problems"):
                    connection.execute(f"DELETE FROM {table} WHERE path = ?", (path,))
            yield connection, revision
            _set(connection, revision=str(revision))


def as_vector(latent: Tensor) -> np.ndarray:
    """A latent or hidden state, whatever computed it, as indexes hold it."""
    return latent.detach().float().cpu().numpy().reshape(-1)


def is_damaged(vector: np.ndarray, checksum: int) -> bool:
    """Whether a vector is not what was written, or nothing that can be ranked."""
    changed = zlib.crc32(np.ascontiguousarray(vector)) != checksum
    return changed or not np.isfinite(vector).all()


def _migrate(folder: Path, connection: sqlite3.Connection) -> None:
    """Takes the vectors out of an index of format 1: to embed again costs hours."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        [[version]] = connection.execute("PRAGMA user_version")
        if version != OLD_FORMAT:
            return  # another process was faster
        size = 4 * int(dict(connection.execute(_FACTS))["width"])
        latents = connection.execute("SELECT latent FROM files ORDER BY id")
        # One of another size is damaged, and found by its checksum.
        name = _write_vectors(folder, (x[:size].ljust(size, b"\0") for [x] in latents))
        for column in ("row INTEGER", "content BLOB", "revision INTEGER DEFAULT 0"):
            connection.execute(f"ALTER TABLE files ADD COLUMN {column}")
        connection.execute(_NUMBER_ROWS)
        connection.execute("ALTER TABLE files DROP COLUMN latent")
        for statement in _NEW_TABLES:
            connection.execute(statement)
        # Which folders were indexed is not known any more.
        if top := _common_folder(connection.execute(_ENDS)):
            connection.execute("INSERT INTO folders VALUES (?)", (os.fsencode(top),))
        _set(connection, vectors=name, revision="0", layer="")
    connection.execute("VACUUM")  # gives back what the vectors took
    for path in folder.glob("latents-*.faiss"):
        path.unlink(missing_ok=True)


def _write_vectors(folder: Path, blocks: Iterable[bytes]) -> str:
    """Writes a new file of vectors; its name.

    It has it from the beginning: nobody reads it before a commit names it, and what a
    kill leaves is known by it.
    """
    path = folder / _new_name()
    try:
        with open(path, "wb") as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path.name


def _new_name() -> str:
    return f"vectors-{uuid.uuid4().hex[:12]}.f4"


def _space_of(facts: dict[str, str]) -> Space:
    """The space that an index says it holds."""
    if "space" in facts:
        return read_space(json.loads(facts["space"]))
    # From before spaces had names; what was computed then is the first version.
    layer, weights = facts["layer"], facts["fingerprint"]
    return track_space(weights, int(layer)) if layer else latent_space(weights)


def _set(connection: sqlite3.Connection, **facts: str) -> None:
    connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())


def _common_folder(ends: Iterable[tuple[bytes | None]]) -> str:
    folders = [os.path.dirname(os.fsdecode(path)) for [path] in ends if path]
    return os.path.commonpath(folders) if folders else ""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Puts errors of SQLite and of the disk into our words."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise UserError(
            f"{path} cannot be used ({error}). Check the disk, the permissions, and "
            f"whether another program has it open. What is done stays."
        ) from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, words: str) -> UserError:
    """The error for an index that cannot be mended."""
    return UserError(
        f"{path} is damaged ({words}): remove {path.parent} and make the index again "
        f"with `muq-plugins index`."
    )
