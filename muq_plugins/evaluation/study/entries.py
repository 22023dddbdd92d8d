"""Reading JSON strictly: an error names the file and the key, and nothing is
guessed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn


class Entry:
    """A value of a JSON file, and where it stands."""

    def __init__(self, value: Any, file: str | Path, place: str = ""):
        self.value, self.file, self.place = value, file, place

    def __getitem__(self, key: str) -> Entry:
        if key not in self.mapping():
            raise ValueError(f"{self.file}: {self._name()} has no key {key!r}")
        return self.mapping()[key]

    def optional(self, key: str) -> Entry | None:
        """A value that may be null or left out."""
        entry = self.mapping().get(key)
        return None if entry is None or entry.value is None else entry

    def mapping(self) -> dict[str, Entry]:
        """What a JSON object holds."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        dot = "." if self.place else ""
        return {
            key: Entry(value, self.file, f"{self.place}{dot}{key}")
            for key, value in self.value.items()
        }

    def elements(self) -> list[Entry]:
        """What a JSON array holds."""
        if not isinstance(self.value, list):
            self.fail("a list")
        return [
            Entry(value, self.file, f"{self.place}[{index}]")
            for index, value in enumerate(self.value)
        ]

    def text(self) -> str:
        """A string that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail("a text")
        return self.value

    def number(self) -> float:
        """A finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.fail("a number")
        if not math.isfinite(self.value):
            self.fail("a finite number")
        return float(self.value)

    def whole(self) -> int:
        """A number without a fraction, not negative."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail("a whole number")
        if self.value < 0:
            self.fail("a number that is not negative")
        return self.value

    def numbers(self) -> list[float]:
        """A list of finite numbers, at least one."""
        values = [entry.number() for entry in self.elements()]
        if not values:
            self.fail("at least one number")
        return values

    def fail(self, expected: str) -> NoReturn:
        """Refuse the value."""
        shown = repr(self.value)
        shown = shown if len(shown) < 80 else f"{shown[:77]}..."
        raise ValueError(f"{self.file}: {self._name()} must be {expected}, got {shown}")

    def _name(self) -> str:
        return self.place or "the file"


def read_entry(path: str | Path) -> Entry:
    """Read a JSON file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: the study has not been collected")
    try:
        return Entry(json.loads(path.read_text(encoding="utf-8")), path)
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(
            f"{path} is damaged ({error}): run the study again, which reuses all "
            "finished runs and writes the file anew"
        ) from None
