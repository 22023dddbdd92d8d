"""The 24 keys: their order, and the ways in which data sets write them."""

from __future__ import annotations

import re

NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
MODES = ("major", "minor")
#: Every major key upwards from C, then every minor one.
KEYS = tuple(f"{note} {mode}" for mode in MODES for note in NOTES)
KEY = re.compile(r"\s*([A-Ga-g])([#b]?)[\s:]+(major|minor|maj|min)\b", re.IGNORECASE)


def key_name(text: str) -> str | None:
    """One of `KEYS`, of a text such as "D# minor" or "d#:min"; None if it is none."""
    found = KEY.match(text)
    if found is None:
        return None
    letter, sign, mode = found[1].upper(), found[2].lower(), found[3].lower()[:3]
    number = NOTES.index(letter) + {"": 0, "#": 1, "b": -1}[sign]
    return f"{NOTES[number % 12]} {'major' if mode == 'maj' else 'minor'}"
