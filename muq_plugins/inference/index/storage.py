"""The SQLite file of an index: making it, opening it, and what can be wrong with it."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from muq_plugins.inference.index.entries import MusicIndexError

FILE = "music.sqlite"
# In the header of the file: tells ours from other SQLite files ("MuQi").
APPLICATION = 0x4D755169
FORMAT = 1
# Seconds to wait for another process that is writing.
PATIENCE = 30.0

# A file that has changed gets a new id, and ids are never used again: so equal ids
# are equal latents, which is how a FAISS file is brought up to date.
_SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE,"
    " bytes INTEGER, modified INTEGER, duration REAL, latent BLOB, checksum INTEGER)",
    "CREATE TABLE problems (path BLOB PRIMARY KEY, reason TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)


def exists(folder: str | Path) -> bool:
    """Tells whether a folder holds an index, be it damaged."""
    return Path(folder, FILE).is_file()


def create(folder: str | Path, model: str, fingerprint: str, width: int) -> None:
    """Makes an index without files; it is complete or not there."""
    path = Path(folder, FILE)
    unfinished = path.with_name(f".{FILE}.unfinished")
    facts = {
        "model": model,
        "fingerprint": fingerprint,
        "width": str(width),
        "id": uuid.uuid4().hex,
        "revision": uuid.uuid4().hex,
    }
    with translated(path):
        try:
            unfinished.write_bytes(b"")
            with closing(sqlite3.connect(unfinished)) as connection, connection:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def connect(path: Path) -> tuple[sqlite3.Connection, dict[str, str]]:
    """Opens the file of an index."""
    if not path.is_file():
        raise MusicIndexError(
            f"{path.parent} is not an index of music: it has no {FILE}. Make one with "
            f"`muq-plugins index FOLDER --model MODEL --output {path.parent}`."
        )
    # rw, not rwc: a file that has gone is not made again without its content. What
    # may only be read is opened for reading.
    address = f"{path.absolute().as_uri()}?mode=rw"
    with translated(path):
        connection = sqlite3.connect(
            address, timeout=PATIENCE, uri=True, check_same_thread=False
        )
        [[application]] = connection.execute("PRAGMA application_id")
        [[version]] = connection.execute("PRAGMA user_version")
        if (application, version) != (APPLICATION, FORMAT):
            connection.close()
            raise MusicIndexError(
                f"{path} is not an index that this version can read (format {version} "
                f"of {application:#x}, expected {FORMAT} of {APPLICATION:#x}): make a "
                f"new index."
            )
        return connection, dict(connection.execute("SELECT name, value FROM facts"))


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Puts errors of SQLite and of the disk into our words."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise MusicIndexError(
            f"{path} cannot be used ({error}). Check the disk, the permissions, and "
            f"whether another program has it open. What is done stays."
        ) from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, words: str) -> MusicIndexError:
    """The error for a file that is damaged."""
    return MusicIndexError(
        f"{path} is damaged ({words}): remove {path.parent} and make the index again "
        f"with `muq-plugins index`."
    )
