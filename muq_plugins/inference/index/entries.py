"""The files of an index, and the error that says why an index cannot be used."""

from __future__ import annotations

import os
from dataclasses import dataclass

from muq_plugins.inference.printing import shown


class MusicIndexError(ValueError):
    """An index that cannot be used, or not in this way."""


@dataclass(frozen=True)
class Entry:
    """A file of the index."""

    id: int  # its number; another one after each change of the file
    path: str  # where it lies, absolute
    bytes: int  # its size when it was indexed
    modified: int  # when it was changed last before that, in nanoseconds
    duration: float  # seconds

    @property
    def shown(self) -> str:
        """The path as text that can be printed, also if its name is not UTF-8."""
        return shown(self.path)

    def is_current(self) -> bool:
        """Tells whether the file is still the one that was indexed."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.modified)
