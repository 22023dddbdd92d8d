"""The files of a probe: all scores, and each finished task with its predictions."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np

from muq_plugins.evaluation.probing.result import Comparison, Row, TaskResult
from muq_plugins.files import replace_file

SCORES_FILE = "scores.json"
TASKS_FOLDER = "tasks"


def save_results(folder: str | Path, results: list[TaskResult]) -> Path:
    """Write all scores of a probe into one JSON file."""
    path = Path(folder) / SCORES_FILE
    content = json.dumps([asdict(result) for result in results], indent=1)
    replace_file(path, content.encode())
    return path


def load_results(folder: str | Path) -> list[TaskResult]:
    """Load what `save_results` has written."""
    path = Path(folder) / SCORES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: the probe has not finished.")
    return [_task_result(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def save_task(
    folder: str | Path, key: str, result: TaskResult, predictions: dict
) -> None:
    """Keep a finished task, for a restart, with its predictions."""
    path = _task_path(folder, result.label)
    content = io.BytesIO()
    np.savez_compressed(content, **predictions)
    replace_file(path.with_suffix(".npz"), content.getvalue())
    text = json.dumps({"key": key, "result": asdict(result)}, indent=1)
    replace_file(path, text.encode())


def load_task(folder: str | Path, key: str, label: str) -> TaskResult | None:
    """A task that was finished before."""
    path = _task_path(folder, label)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return _task_result(content["result"]) if content["key"] == key else None


def load_predictions(folder: str | Path, label: str) -> dict[str, np.ndarray]:
    """The predictions of a finished task."""
    path = _task_path(folder, label).with_suffix(".npz")
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: the task has not finished.")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _task_path(folder: str | Path, label: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", label)
    return Path(folder) / TASKS_FOLDER / f"{name}.json"


def _task_result(content: dict) -> TaskResult:
    rows = [Row(**row) for row in content["rows"]]
    comparisons = [Comparison(**row) for row in content["comparisons"]]
    return TaskResult(**{**content, "rows": rows, "comparisons": comparisons})
