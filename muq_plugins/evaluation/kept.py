"""Arrays that took long to compute: whole on the disk or not there, found by a hash."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from muq_plugins.errors import UserError
from muq_plugins.files import replace_file


def digest(about: Any) -> str:
    """A short hash of bytes, or of anything that JSON holds."""
    if not isinstance(about, bytes):
        about = json.dumps(about, default=list).encode()
    return hashlib.sha256(about).hexdigest()[:16]


def file_stamp(path: str) -> list:
    """What tells a file from another one, and from a changed one."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(
            f"{path} is not there: {error.strerror}. Restore it, or take it out of the "
            "list."
        ) from error
    return [path, status.st_size, status.st_mtime_ns]


def save_arrays(path: Path, **arrays) -> None:
    """Saves arrays by name, for `load_arrays`."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    replace_file(path, content.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
