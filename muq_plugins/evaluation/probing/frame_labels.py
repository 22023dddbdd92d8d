"""Labels that change within a clip, out of a file beside it: which notes sound when."""

from __future__ import annotations

import numpy as np
import pretty_midi

from muq_plugins.errors import UserError

NOTES = "notes"  # what tasks of the kind "frames" have as their label
MIDI = "midi"  # key of the manifest or column of the CSV file that names a file
PITCHES = [pretty_midi.note_number_to_name(number) for number in range(128)]


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
    """Which pitches of some notes sound at some rising times: bool (times, 128)."""
    sounds = np.zeros((len(times), 128), dtype=bool)
    places = np.searchsorted(times, notes[:, :2])
    for (begin, end), pitch in zip(places, notes[:, 2].astype(int), strict=True):
        sounds[begin:end, pitch] = True
    return sounds
