"""JSON files that survive being interrupted.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import json
import os
from pathlib import Path

from muq_plugins.data.atomic import replace_file


def write_json(path, data):
    """Writes JSON so that the file is either complete or not there.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write.
    data : dict or list
        What to write.

    Example
    -------
    >>> path = str(getfixture("tmpdir") / "a.json")
    >>> write_json(path, {"a": 1})
    >>> json.loads(Path(path).read_text(encoding="utf-8"))
    {'a': 1}
    """
    # ASCII, since file names that are not UTF-8 have no other way to be written.
    replace_file(path, json.dumps(data, indent=1).encode())


def read_json_lines(path):
    """Reads a file of one JSON object per line.

    A line that was cut off when its writer was killed is left out.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; it need not exist.

    Returns
    -------
    list of dict
        The objects, empty without a file.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.jsonl"
    >>> _ = path.write('{"a": 1}\\n{"a": 2')
    >>> read_json_lines(str(path))
    [{'a': 1}]
    """
    path = Path(path)
    if not path.exists():
        return []
    records = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return records


def append_json_line(file, record):
    """Appends one object to a file from `open_json_lines`.

    Arguments
    ---------
    file : io.TextIOBase
        The open file.
    record : dict
        The object.

    Example
    -------
    >>> path = str(getfixture("tmpdir") / "a.jsonl")
    >>> with open_json_lines(path) as file:
    ...     append_json_line(file, {"a": 1})
    >>> read_json_lines(path)
    [{'a': 1}]
    """
    file.write(json.dumps(record) + "\n")


def open_json_lines(path):
    """Opens a file of JSON lines for appending, and ends a line that was cut off.

    Each line is on its way to the disk as soon as it is written.

    Arguments
    ---------
    path : str or pathlib.Path
        The file, made if needed.

    Returns
    -------
    io.TextIOBase
        For `append_json_line`; a context manager.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.jsonl"
    >>> _ = path.write('{"a": 1')
    >>> with open_json_lines(str(path)) as file:
    ...     append_json_line(file, {"a": 2})
    >>> read_json_lines(str(path))
    [{'a': 2}]
    """
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return open(path, "a", encoding="utf-8", buffering=1)
