"""Rows of runs that other tests make anyway, beside those of an earlier day.

``MUQ_WRITE_GOLDENS=1 pytest tests/integration -k golden`` writes them again.
"""

import json
import os
from pathlib import Path

from tests.goldens.parts import DATA, differences, read, write

FILE = "metrics.json"

#: What depends on the machine.
CLOCK = ("time", "audio_seconds_per_second", "max_memory")


def rows_of(folder: Path, count: int) -> list[dict]:
    """The first rows of a run, in short numbers and without what a clock tells."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()

    def short(value):
        if isinstance(value, list):
            return [short(item) for item in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return [
        {k: short(v) for k, v in json.loads(line).items() if k not in CLOCK}
        for line in lines[:count]
    ]


def check_rows(name: str, folder: Path, count: int = 5, **tolerance: float) -> None:
    """Compares the first rows of a run; rounding differs from CPU to CPU."""
    tolerance = {"relative": 2e-3, "absolute": 2e-3, **tolerance}
    found = rows_of(folder, count)
    if os.environ.get("MUQ_WRITE_GOLDENS"):
        golden = read(FILE) if (DATA / FILE).is_file() else {}
        write(FILE, dict(sorted({**golden, name: found}.items())))
        return
    lines = differences(read(FILE)[name][:count], found, **tolerance)
    assert not lines, f"{folder} has moved:\n  " + "\n  ".join(lines[:20])
