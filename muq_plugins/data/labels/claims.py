"""Sharing work between processes that have nothing in common but a folder.

Whoever wants an item makes a claim: a file that only one process can make
(``O_EXCL``). As long as it works, it touches that file; a claim that nobody has touched
for a while is stale, and its item is taken over by making the claim with the next
number, which again only one process can do. The number in force is the highest.

Neither a process number nor a host name is looked at, because array jobs in containers
may share both; nor a lock of the kernel, because not every network file system has
them. Ages are measured by the clock of the file system, so that the clocks of the
machines may differ.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

CLAIMS_FOLDER = "claims"
BEATS = 6  # that often a claim is touched before it would be stale
POLL_SECONDS = 0.2


class Claim:
    """The right to work on an item, kept alive by a thread.

    Arguments
    ---------
    path : Path
        The claim file, which exists.
    interval : float
        Seconds between touches.
    """

    def __init__(self, path: Path, interval: float):
        self.path = path
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=[interval], daemon=True)
        self._thread.start()

    def _beat(self, interval: float) -> None:
        while not self._done.wait(interval):
            with contextlib.suppress(OSError):  # it was taken over, or the disk hangs
                os.utime(self.path)

    def in_force(self) -> bool:
        """Tells whether nobody has taken the item over.

        Returns
        -------
        bool
            False after this process was silent for too long: then it must leave the
            item to another one.
        """
        stem, number = self.path.stem, int(self.path.suffix[1:])
        return self.path.exists() and _newest(self.path.parent, stem)[0] == number

    def release(self) -> None:
        """Gives the item back, or ends it: all its claims are removed."""
        mine = self.in_force()
        self._done.set()
        self._thread.join()
        if mine:
            for number in range(int(self.path.suffix[1:]) + 1):
                path = self.path.with_suffix(f".{number}")
                path.unlink(missing_ok=True)


class ClaimFolder:
    """Claims of the items that some processes share.

    Arguments
    ---------
    folder : str or Path
        The common folder.
    stale_seconds : float
        After how long without a sign of life an item is taken over.

    Example
    -------
    >>> claims = ClaimFolder(getfixture("tmp_path"), stale_seconds=60)
    >>> claim = claims.take("shard-00000")
    >>> claims.take("shard-00000") is None
    True
    >>> claim.release()
    >>> with claims.alone("shard-00000"):
    ...     pass
    """

    def __init__(self, folder: str | Path, stale_seconds: float = 60.0):
        if stale_seconds <= 0:
            raise ValueError(
                f"stale_seconds is {stale_seconds}, but must be a time above 0."
            )
        self.folder = Path(folder) / CLAIMS_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stale_seconds = stale_seconds

    def take(self, item: str) -> Claim | None:
        """Claims an item, if nobody who is alive has it.

        Arguments
        ---------
        item : str
            A name without a dot.

        Returns
        -------
        Claim or None
            None if somebody else has the item.
        """
        number, touched = _newest(self.folder, item)
        if number >= 0 and self._now() - touched < self.stale_seconds:
            return None
        path = self.folder / f"{item}.{number + 1}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return None  # somebody else was faster
        claim = Claim(path, self.stale_seconds / BEATS)
        # Somebody may have finished the item, removed its claims, and the numbers have
        # begun again below an older claim of ours that we judged by.
        if not claim.in_force():
            claim.release()
            return None
        return claim

    @contextlib.contextmanager
    def alone(self, item: str) -> Iterator[None]:
        """Waits for an item, and holds it as long as the block runs.

        Arguments
        ---------
        item : str
            A name without a dot.

        Yields
        ------
        None
            When nobody else has the item.
        """
        while (claim := self.take(item)) is None:
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            claim.release()

    def _now(self) -> float:
        """The time of the file system."""
        path = self.folder / f".clock-{uuid.uuid4().hex}"
        path.touch()
        try:
            return path.stat().st_mtime
        finally:
            path.unlink()


def _newest(folder: Path, item: str) -> tuple[int, float]:
    """Number and last sign of life of the claim in force; -1 if there is none."""
    newest, touched = -1, 0.0
    for path in folder.glob(f"{item}.*"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            number = int(path.suffix[1:])
            if number > newest:
                newest, touched = number, path.stat().st_mtime
    return newest, touched
