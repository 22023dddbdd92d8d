"""The files of an index, and the error that says why an index cannot be used.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from muq_plugins.inference.printing import shown


class MusicIndexError(ValueError):
    """An index that cannot be used, or not in this way.

    Example
    -------
    >>> print(MusicIndexError("music.sqlite is damaged."))
    music.sqlite is damaged.
    """


@dataclass(frozen=True)
class Entry:
    """A file of the index.

    Arguments
    ---------
    id : int
        Its number; another one after each change of the file.
    path : str
        Where it lies, absolute.
    bytes : int
        Its size when it was indexed.
    modified : int
        When it was changed last before that, in nanoseconds.
    duration : float
        Seconds.

    Example
    -------
    >>> Entry(1, "/music/caf\\udce9.wav", 48, 0, 1.0).shown == "/music/caf\\ufffd.wav"
    True
    """

    id: int
    path: str
    bytes: int
    modified: int
    duration: float

    @property
    def shown(self) -> str:
        """The path as text that can be printed, also if its name is not UTF-8."""
        return shown(self.path)

    def is_current(self) -> bool:
        """Tells whether the file is still the one that was indexed.

        Returns
        -------
        bool
            True if size and time of change are what they were.

        Example
        -------
        >>> Entry(1, "/nowhere.wav", 48, 0, 1.0).is_current()
        False
        """
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.modified)
