"""Tones, and probes of made-up features, saved as the end of a training does."""

import numpy as np
import pretty_midi
import soundfile

from muq_plugins.evaluation.probing.clips import Clip
from muq_plugins.evaluation.probing.features import Features
from muq_plugins.evaluation.probing.readers import ReaderSettings
from muq_plugins.evaluation.probing.results import (
    FINAL_FOLDER,
    FINAL_LABEL,
    save_results,
)
from muq_plugins.evaluation.probing.run import probe_tasks
from muq_plugins.evaluation.probing.tasks import ProbeTask


def low_and_high(piece):
    """The family of every other piece."""
    return ("low", "high")[piece % 2]


def write_tones(folder, pieces, family_of=low_and_high):
    """Clips of low tones and of high tones, as a manifest."""
    manifest = {}
    for piece in range(pieces):
        family = family_of(piece)
        pitch = (200 if family == "low" else 3000) + 20 * piece
        path = folder / f"{family}{piece}.wav"
        soundfile.write(path, 0.3 * np.sin(np.arange(24000) * pitch / 3820), 24000)
        labels = {"piece": str(piece), "family": family}
        manifest[path.stem] = {"wav": str(path), "duration": 1.0, **labels}
    return manifest


LINEAR_ALONE = ReaderSettings(["linear"], mixture=False)


def save_final_probe(run_folder, features, labels, parts, pieces=None):
    """Probe features (clips, size) or (clips, layers, size) of each name."""
    pieces = range(len(labels)) if pieces is None else pieces
    rows = enumerate(zip(labels, parts, pieces, strict=True))
    clips = [
        Clip(str(index), "", 1.0, part, {FINAL_LABEL: label, "piece": str(piece)})
        for index, (label, part, piece) in rows
    ]
    read = {
        name: [
            Features(np.asarray(x)[:, None] if np.ndim(x) == 2 else np.asarray(x), "")
        ]
        for name, x in features.items()
    }
    tasks = [ProbeTask(FINAL_LABEL, group="piece")]
    options = LINEAR_ALONE, [0], False
    results = probe_tasks(tasks, clips, read, *options)
    save_results(run_folder / FINAL_FOLDER, results)
    return results[0]


def write_midi(path, notes, drums=()):
    """A MIDI file of notes (program, pitch, start, end), and drums (pitch, ...)."""
    midi = pretty_midi.PrettyMIDI()
    for program in {note[0] for note in notes}:
        track = pretty_midi.Instrument(program)
        track.notes = [pretty_midi.Note(90, *n[1:]) for n in notes if n[0] == program]
        midi.instruments.append(track)
    track = pretty_midi.Instrument(0, is_drum=True)
    track.notes = [pretty_midi.Note(90, *note) for note in drums]
    midi.instruments.append(track)
    midi.write(str(path))
    return str(path)


def write_songs(folder, pieces, seconds=3.0):
    """Clips of two voices of tones and their notes, a piece each, as a manifest."""
    manifest = {}
    for piece in pieces:
        rng, notes = np.random.default_rng(piece), []
        wav = np.zeros(int(24000 * seconds))
        for start in np.arange(0, seconds, 0.5):
            for pitch in rng.choice(np.arange(60, 84, 3), 2, replace=False):
                notes.append((0, int(pitch), start, start + 0.5))
                time = np.arange(12000) / 24000
                hertz = pretty_midi.note_number_to_hz(pitch)
                begin = int(start * 24000)
                wav[begin : begin + 12000] += 0.2 * np.sin(2 * np.pi * hertz * time)
        name = f"song{piece}"
        soundfile.write(folder / f"{name}.wav", wav, 24000)
        manifest[name] = {
            "wav": str(folder / f"{name}.wav"),
            "midi": write_midi(folder / f"{name}.mid", notes),
            "duration": seconds,
            "piece": str(piece),
        }
    return manifest
