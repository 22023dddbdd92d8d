"""The files of a run folder that its report is made from, and how they are written.

`metrics.jsonl` has one JSON object per line. A row is on the disk before
`MetricsLog.write` returns. What a kill can leave behind is handled by whoever comes
next: half a last line is dropped, and rows beyond the checkpoint that a run resumes
from are removed with `MetricsLog.drop`.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from muq_plugins.evaluation.kept import load_arrays, save_arrays
from muq_plugins.files import read_json, replace_file, write_json
from muq_plugins.lobes.objectives.base import Measure, Reference

METRICS_FILE = "metrics.jsonl"
DIAGNOSTICS_FILE = "diagnostics.npz"
MEASURES_FILE = "measures.json"
HYPERPARAMETERS_FILE = "hyperparams.yaml"
HISTORY_FILE = "history.jsonl"
FIGURES_FOLDER = "figures"


class MetricsLog:
    """Append-only writer of `metrics.jsonl`, for the main process.

    Opening an existing file keeps its rows and repairs its last line if a kill cut it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._repair_last_line()

    def write(self, row: dict) -> None:
        """Append one row, with "kind" and "step", and wait until it is on the disk.

        JSON has no NaN and no infinity. Such a value is written as null and the key
        that held it is named in the row's "non_finite" list. If the row cannot be
        written (OSError), the file is as it was before.
        """
        missing = [key for key in ("kind", "step") if key not in row]
        if missing:
            raise ValueError(f"a row of {self.path} lacks {missing}: {row}")
        # Tensors and arrays as numbers and lists.
        row = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
        finite = {key: _finite(value) for key, value in row.items()}
        if non_finite := [key for key in row if finite[key] != row[key]]:
            finite["non_finite"] = non_finite
        line = json.dumps(finite, allow_nan=False) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, line.encode())
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise

    def drop(self, unwanted: Callable[[dict], bool]) -> int:
        """Drop some rows, those beyond a checkpoint for example; how many it was."""
        if not self.path.exists():
            return 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [
            line
            for number, line in enumerate(lines, start=1)
            if not unwanted(_parse(line, self.path, number))
        ]
        if len(kept) < len(lines):
            replace_file(self.path, b"".join(kept))
        return len(lines) - len(kept)

    def _repair_last_line(self):
        """Drop half a line that a kill has left, so that no row is glued to it."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) < len(content):
            os.truncate(self.path, len(complete))


def read_metrics(path: str | Path) -> list[dict]:
    """Read the rows of a `metrics.jsonl`, oldest step first.

    Half a last line (the run was killed, or is writing at this moment) is left out. Of
    several rows of the same stage, kind and step (the run was resumed) the last one
    counts.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: no training has written its metrics there"
        )
    lines = path.read_bytes().splitlines()
    rows = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = _parse(line, path, number)
        except ValueError:
            if number == len(lines):
                break
            raise
        rows[row.get("stage"), row["kind"], row["step"]] = row
    return sorted(rows.values(), key=lambda row: row["step"])


def select(
    rows: list[dict], kind: str | None = None, stage: str | None = None
) -> list[dict]:
    """The rows of one kind ("train", "valid" or "test"), of one stage, or both."""
    return [
        row
        for row in rows
        if kind in (None, row["kind"]) and stage in (None, row.get("stage"))
    ]


def series(rows: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (rows,) and values, as float64, NaN where not finite, of one quantity.

    Rows without the key are left out.
    """
    rows = [row for row in rows if key in row]
    steps = np.array([row["step"] for row in rows], dtype=np.int64)
    return steps, np.array([row[key] for row in rows], dtype=np.float64)


def save_measures(run_folder: str | Path, measures: Mapping[str, Measure]) -> None:
    """Save what the numbers of a run mean, for its report."""
    content = {
        name: {
            **measure._asdict(),
            "references": {k: v._asdict() for k, v in measure.references.items()},
        }
        for name, measure in measures.items()
    }
    write_json(Path(run_folder) / MEASURES_FILE, content)


def load_measures(run_folder: str | Path) -> dict[str, Measure] | None:
    """Load what `save_measures` has saved; None of a run of before it existed."""
    path = Path(run_folder) / MEASURES_FILE
    if not path.is_file():
        return None
    found = read_json(path, "delete it, and run the same command to write it again")
    measures = {}
    for name, about in found.items():
        references = {k: Reference(**v) for k, v in about["references"].items()}
        measures[name] = Measure(**{**about, "references": references})
    return measures


def save_diagnostics(run_folder: str | Path, **arrays) -> None:
    """Save the arrays that the report of a run shows.

    Any of `code_counts` (N, V): how often each code was chosen on unseen clips, or
    what else a stage adds up (`StageOutput.totals`);
    `mel` (frames, mels): normalised log-mel of one clip; `reconstructions`
    (K, frames, mels): the same clip decoded from `reconstruction_levels` (K,) levels.
    """
    arrays = {name: torch.as_tensor(array).cpu() for name, array in arrays.items()}
    arrays = {name: array.detach().numpy() for name, array in arrays.items()}
    save_arrays(Path(run_folder) / DIAGNOSTICS_FILE, **arrays)


def load_diagnostics(run_folder: str | Path) -> dict[str, np.ndarray]:
    """Load what `save_diagnostics` has saved; empty if the run has saved nothing."""
    path = Path(run_folder) / DIAGNOSTICS_FILE
    return load_arrays(path) if path.exists() else {}


def _parse(line: bytes, path: Path, number: int) -> dict:
    """One line of the file as a row."""
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if isinstance(row, dict) and "kind" in row and isinstance(row.get("step"), int):
        return row
    raise ValueError(
        f"{path}, line {number} is not a row of metrics with a kind and a step: "
        f"{line[:80]!r}. Delete that line to read the rest."
    )


def _finite(value):
    """The value, with None for each number that is not finite."""
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_all(file, data: bytes) -> None:
    """Write every byte: an unbuffered write may stop short when the disk is full."""
    while data:
        data = data[file.write(data) :]
