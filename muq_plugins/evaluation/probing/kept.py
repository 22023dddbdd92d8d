"""What was read off features, on disk: references are the same for many encoders.

As with the features, the name of a file is a hash of everything that its content
depends on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from muq_plugins.evaluation.probing.result import Row
from muq_plugins.evaluation.probing.tasks import TaskData
from muq_plugins.files import replace_file

# Raised whenever a change of the code changes what is read.
FORMAT = 1


def kept_reading(
    folder: str | Path | None,
    about: list,
    data: TaskData,
    read: Callable[[], list[tuple[Row, np.ndarray]]],
) -> list[tuple[Row, np.ndarray]]:
    """Read a label off features, unless that was done before."""
    if folder is None:
        return read()
    content = {
        "format": FORMAT,
        "about": about,
        "kind": data.task.kind,
        "classes": data.classes,
        "parts": {part: places.tolist() for part, places in data.parts.items()},
        "targets": {part: found.tolist() for part, found in data.targets.items()},
        "groups": data.groups,
    }
    digest = hashlib.sha256(json.dumps(content, default=list).encode()).hexdigest()
    path = Path(folder) / f"reading-{digest[:16]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            rows = json.loads(str(arrays["rows"]))
            return [
                (Row(**row), arrays[f"scores_{index}"])
                for index, row in enumerate(rows)
            ]
    found = read()
    arrays = {f"scores_{index}": scores for index, (_, scores) in enumerate(found)}
    arrays["rows"] = np.array(json.dumps([dataclasses.asdict(row) for row, _ in found]))
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    replace_file(path, file.getvalue())
    return found
