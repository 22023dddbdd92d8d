"""Labels that change within a clip, out of a file beside it: which notes sound when.

Chords or beats would be another entry of `FRAME_LABELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pretty_midi

from muq_plugins.errors import UserError

NOTES = "notes"
MIDI = "midi"


class FrameLabel(NamedTuple):
    """How a label that changes over time is known."""

    key: str  # key of the manifest or column of the CSV file that names a file
    classes: Sequence[str]  # what there may be at a time
    # (file, times in seconds, rising) -> bool (times, classes)
    read: Callable[[str, np.ndarray], np.ndarray]


def played_notes(path: str) -> np.ndarray:
    """What a MIDI file plays (notes, 3): begin and end in seconds, pitch; no drums."""
    try:
        midi = pretty_midi.PrettyMIDI(path)
    except Exception as error:  # the parser raises anything about a broken file
        raise UserError(
            f"{path} cannot be read as MIDI ({error!r}): replace it, or take it out of "
            "the labels."
        ) from error
    parts = [part.notes for part in midi.instruments if not part.is_drum]
    rows = [(note.start, note.end, note.pitch) for part in parts for note in part]
    return np.array(rows, dtype=float).reshape(-1, 3)


def sounding(notes: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Which pitches of some notes sound at some times (times, 128)."""
    sounds = np.zeros((len(times), 128), dtype=bool)
    places = np.searchsorted(times, notes[:, :2])
    for (begin, end), pitch in zip(places, notes[:, 2].astype(int), strict=True):
        sounds[begin:end, pitch] = True
    return sounds


def sounding_pitches(path: str, times: np.ndarray) -> np.ndarray:
    """Which pitches a MIDI file plays at some times (times, 128)."""
    return sounding(played_notes(path), times)


PITCHES = [pretty_midi.note_number_to_name(number) for number in range(128)]
#: What tasks of the kind "frames" may have as their label.
FRAME_LABELS = {NOTES: FrameLabel(MIDI, PITCHES, sounding_pitches)}
