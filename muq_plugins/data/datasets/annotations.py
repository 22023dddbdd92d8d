"""What happens when in a recording: beats, and intervals with a label.

The contract between whoever knows it (readers of published files, manifests of a
rendered corpus) and whoever asks (tasks of frames). A clip has them among its labels,
as the rows that JSON keeps:

    "beats": [[0.51, 1], [1.02, 2], ...]     seconds, and place in the bar from 1; 0
                                             where the bar is not known
    "chords": [[0.0, 1.9, "C:maj7"], ...]    begin, end, a chord as Harte writes it
    "sections": [[0.0, 9.6, "intro"], ...]   begin, end, what it is called
    "tempo": 118.0                           beats in a minute, where it is stated

Rows rise in time and do not overlap; what is between two intervals has no label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from muq_plugins.data.datasets.tagged import damaged, read_lines
from muq_plugins.errors import UserError

BEATS, CHORDS, SECTIONS, TEMPO = "beats", "chords", "sections", "tempo"
# Hand-made annotations meet within rounding.
TOUCHING = 0.005


class Beats(NamedTuple):
    """The beats of a recording."""

    times: np.ndarray  # (beats,), seconds, rising
    positions: np.ndarray  # (beats,), place in the bar from 1; 0 where it is not known

    @classmethod
    def of(cls, rows: Sequence, where: str) -> Beats:
        """From rows of a manifest; `where` is what an error names."""
        found = [numbers(row, 2, where) for row in rows]
        times = np.array([time for time, _ in found], dtype=float)
        positions = np.array([place for _, place in found])
        if len(times) and times[0] < 0:
            raise UserError(f"{where}: a beat at {times[0]:g} s is before the start.")
        if len(wrong := np.flatnonzero(np.diff(times) <= 0)):
            at = times[wrong[0] + 1]
            raise UserError(f"{where}: the beat at {at:g} s is not after the last one.")
        if len(wrong := np.flatnonzero((positions < 0) | (positions % 1 != 0))):
            raise UserError(
                f"{where}: {positions[wrong[0]]:g} is no place in a bar, which counts "
                "from 1 (0 if it is not known)."
            )
        return cls(times, positions.astype(int))

    @property
    def downbeats(self) -> np.ndarray:
        """When bars begin."""
        return self.times[self.positions == 1]

    @property
    def knows_bars(self) -> bool:
        """Whether every beat has its place in a bar."""
        return bool(len(self.positions)) and bool((self.positions > 0).all())

    def within(self, begin: float, end: float) -> Beats:
        """Those of a part of the recording, with times from its start."""
        kept = (self.times >= begin) & (self.times < end)
        return Beats(self.times[kept] - begin, self.positions[kept])

    def rows(self) -> list[list]:
        """As a manifest keeps them."""
        return [
            [time, place]
            for time, place in zip(
                self.times.tolist(), self.positions.tolist(), strict=True
            )
        ]


class Intervals(NamedTuple):
    """Stretches of a recording with a label: chords or sections."""

    times: np.ndarray  # (intervals, 2), begin and end in seconds
    labels: list[str]

    @classmethod
    def of(cls, rows: Sequence, where: str) -> Intervals:
        """From rows of a manifest; `where` is what an error names."""
        stretches = [row[:2] if isinstance(row, Sequence) else row for row in rows]
        times = np.array([numbers(row, 2, where) for row in stretches], dtype=float)
        times = times.reshape(-1, 2)
        labels = [str(row[2]) if len(row) == 3 else "" for row in rows]
        for (begin, end), label in zip(times, labels, strict=True):
            if not label.strip():
                raise UserError(f"{where}: {begin:g} to {end:g} s has no label.")
            if begin < 0 or end <= begin:
                raise UserError(f"{where}: {begin:g} to {end:g} s is no stretch.")
        for (_, end), (begin, _) in pairwise(times):
            if begin < end - TOUCHING:
                raise UserError(
                    f"{where}: what begins at {begin:g} s does before {end:g} s, where "
                    "the one before it ends."
                )
        return cls(times, labels)

    def at(self, moments: np.ndarray) -> np.ndarray:
        """The place of what there is at some moments, in seconds; -1 for nothing."""
        if not self.labels:
            return np.full(len(moments), -1)
        place = np.searchsorted(self.times[:, 0], moments, side="right") - 1
        return np.where(moments < self.times[place, 1], place, -1)

    def within(self, begin: float, end: float) -> Intervals:
        """What there is of them in a part of the recording, with times from there."""
        times = self.times.clip(begin, end) - begin
        kept = np.flatnonzero(times[:, 1] > times[:, 0])
        return Intervals(times[kept], [self.labels[at] for at in kept])

    def rows(self) -> list[list]:
        """As a manifest keeps them."""
        return [
            [*stretch, label]
            for stretch, label in zip(self.times.tolist(), self.labels, strict=True)
        ]


def numbers(row: Sequence, count: int, where: str) -> list[float]:
    """The numbers of a row that has no other."""
    try:
        found = [float(value) for value in row]
    except (TypeError, ValueError):
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise UserError(f"{where}: {row!r} should be {count} numbers.")
    return found


def read_beats(path: str | Path, source: str) -> Beats:
    """Beats of a text file, a line each: seconds, and the place in the bar if known.

    What follows in a line, such as the number of the bar, is not read.
    """
    rows = [[*fields, "0"][:2] for fields in _lines(path, source, 2)]
    return _read(Beats, rows, path, source)


def read_intervals(path: str | Path, source: str) -> Intervals:
    """Stretches of a text file, a line each: begin, end, label (a `.lab` file).

    Those without a length, which some data sets have, are left out.
    """
    rows = _lines(path, source, 2)
    rows = [row for row in rows if len(row) < 3 or _lasts(*row[:2])]
    return _read(Intervals, rows, path, source)


def read_boundaries(path: str | Path, source: str) -> Intervals:
    """Stretches of a text file with a line where each one begins: seconds, label.

    The last line is where the last one ends, whatever it is called.
    """
    lines = _lines(path, source, 1)
    rows = [[this[0], after[0], *this[1:]] for this, after in pairwise(lines)]
    return _read(Intervals, rows, path, source)


def _lasts(begin: str, end: str) -> bool:
    """Whether a stretch has a length; what is no number is refused later."""
    try:
        return float(begin) != float(end)
    except ValueError:
        return True


def _read(kind: type, rows: list, path: str | Path, source: str):
    if not rows:
        raise damaged(path, "it lists nothing", source)
    try:
        return kind.of(rows, str(path))
    except UserError as error:
        raise UserError(f"{error} Get it again from {source}.") from error


def _lines(path: str | Path, source: str, numbers: int) -> list[list[str]]:
    """Fields of each line; all after some numbers is one, and may hold blanks."""
    lines = read_lines(path, source)
    return [line.split(maxsplit=numbers) for line in lines if line.strip()]
