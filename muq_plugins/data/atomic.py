"""Files that are never seen half written.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import os
import uuid
from pathlib import Path


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a kill leaves the old content or the new, never a part.

    Several processes may write the same file; the last one wins.

    Arguments
    ---------
    path : str or os.PathLike
        The file; its folder is made if it is missing.
    content : bytes
        Everything that the file will hold.

    Example
    -------
    >>> path = Path(getfixture("tmpdir")) / "new" / "notes.txt"
    >>> replace_file(path, b"done")
    >>> path.read_text("utf-8"), len(list(path.parent.iterdir()))
    ('done', 1)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, as another process may be writing the same file.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
