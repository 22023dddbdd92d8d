"""Keeping other processes out of a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Waits until no other process is in this block for the same folder.

    The lock is the folder itself: there is no file to leave behind, it also works in a
    folder that may only be read, and it ends with its process however that ends.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
