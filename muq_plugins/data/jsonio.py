"""JSON files that survive being interrupted."""

import json
import os
from pathlib import Path

from muq_plugins.data.atomic import replace_file


def write_json(path, data):
    """Writes JSON so that the file is either complete or not there."""
    # ASCII, since file names that are not UTF-8 have no other way to be written.
    replace_file(path, json.dumps(data, indent=1).encode())


def read_json_lines(path):
    """Reads a file of one JSON object per line.

    A line that was cut off when its writer was killed is left out.
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
    """Appends one object to a file from `open_json_lines`."""
    file.write(json.dumps(record) + "\n")


def open_json_lines(path):
    """Opens a file of JSON lines for appending, and ends a line that was cut off.

    Each line is on its way to the disk as soon as it is written.
    """
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return open(path, "a", encoding="utf-8", buffering=1)
