"""What was read off features, on disk: references are the same for many encoders.

As with the features, the name of a file is a hash of everything that its content
depends on.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from muq_plugins.data.atomic import replace_file
from muq_plugins.evaluation.probing.result import Row
from muq_plugins.evaluation.probing.tasks import TaskData

# Raised whenever a change of the code changes what is read.
FORMAT = 1


def kept_reading(
    folder: str | Path | None,
    about: list,
    data: TaskData,
    read: Callable[[], list[tuple[Row, np.ndarray]]],
) -> list[tuple[Row, np.ndarray]]:
    """Read a label off features, unless that was done before.

    Arguments
    ---------
    folder : str, pathlib.Path or None
        Where it is kept; None keeps nothing.
    about : list
        What it depends on beside the data: the key of the features and the settings.
    data : TaskData
        Clips and targets.
    read : callable
        Gives rows, each with its predictions.

    Returns
    -------
    list of tuple
        What `read` gives.

    Example
    -------
    >>> from muq_plugins.evaluation.probing.clips import Clip
    >>> from muq_plugins.evaluation.probing.tasks import ProbeTask, task_data
    >>> clips = [Clip(str(i), "", 1.0, None, {"x": "ab"[i % 2]}) for i in range(40)]
    >>> data = task_data(ProbeTask("x"), clips)
    >>> row = Row("trained encoder", "linear", 3, 0.5, 0.4, 0.6, {"accuracy": 0.5})
    >>> read = lambda: [(row, np.array([[0, 1]]))]
    >>> folder = getfixture("tmp_path")
    >>> [(first, _)] = kept_reading(folder, ["1ec3"], data, read)
    >>> [(again, _)] = kept_reading(folder, ["1ec3"], data, lambda: None)
    >>> first == again == row
    True
    """
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
