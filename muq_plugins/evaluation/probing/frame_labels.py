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


def sounding_pitches(path: str, times: np.ndarray) -> np.ndarray:
    """Which pitches a MIDI file plays at some times (times, 128); no drums."""
    try:
        midi = pretty_midi.PrettyMIDI(path)
    except Exception as error:  # the parser raises anything about a broken file
        raise UserError(
            f"{path} cannot be read as MIDI ({error!r}): replace it, or take it out of "
            "the labels."
        ) from error
    sounds = np.zeros((len(times), 128), dtype=bool)
    for part in midi.instruments:
        for note in [] if part.is_drum else part.notes:
            begin, end = np.searchsorted(times, [note.start, note.end])
            sounds[begin:end, note.pitch] = True
    return sounds


PITCHES = [pretty_midi.note_number_to_name(number) for number in range(128)]
#: What tasks of the kind "frames" may have as their label.
FRAME_LABELS = {NOTES: FrameLabel(MIDI, PITCHES, sounding_pitches)}
