"""Single notes, rendered from pip packages alone: what is played, and how high?

Every instrument of the embedded corpus plays every pitch of its range once. The parts
are disjoint by source, as those of NSynth (arXiv 1704.01279) are: instruments whose
recordings in the soundfont are the same, in whole or in part, are one source, and a
source is in one part only.
"""

import os
import random
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from muq_plugins.data.corpus.rendered import (
    RenderedFolder,
    level,
    rendered_entry,
    write_flac,
)
from muq_plugins.data.corpus.soundfont import SAMPLE_RATE, load_soundfont
from muq_plugins.data.instruments import INSTRUMENTS, family_of
from muq_plugins.errors import UserError

logger = get_logger(__name__)

# The programs of each source, by part. Every family can be learned and tested;
# organs and brass have too few sources to validate on as well.
SOURCES = {
    "train": (
        *((0, 1, 2, 3), (5,)),  # piano
        *((8,), (12,), (14,)),  # chromatic percussion
        *((16, 19), (20, 21, 22, 23)),  # organ
        *((7, 27, 28), (15, 24, 25)),  # guitar, with the clavinet and the dulcimer
        *((40, 41), (44, 48, 49), (51,)),  # strings
        *((57, 58, 59, 60), (61, 62, 63)),  # brass
        *((66,), (67,), (69,), (71,)),  # reed
        *((75, 76), (77,)),  # pipe
    ),
    "valid": ((6,), (9,), (29, 30), (50,), (65,), (79,)),
    "test": (
        (4,),  # piano
        *((10,), (11,), (13,)),  # chromatic percussion
        (17, 18),  # organ
        (26,),  # guitar
        *((42, 43), (45,)),  # strings
        (56,),  # brass
        *((64,), (68,), (70,)),  # reed
        *((72, 74), (73,)),  # pipe
    ),
}

SECONDS = 2.0
_HELD = 1.5  # seconds until a note is released
_FADE = 0.02  # seconds at the end, where a release may still sound
# The sampler plays a velocity as a level, so one note at several would be one note
# several times: each is played at one of them, which leaves no level to tell it by.
VELOCITIES = (60, 90, 120)

#: What is known of every note; probes ask for these.
NOTE_LABELS = frozenset(
    {
        *("pitch", "pitch_class", "octave", "instrument", "instrument_family"),
        *("program", "source", "velocity"),
    }
)

_PITCH_CLASSES = "C C# D D# E F F# G G# A A# B".split()


def build_notes(
    folder: str | os.PathLike, step: int = 1, seed: int = 1234, progress: bool = True
) -> Path:
    """Render single notes of two seconds to train and test on, with labels.

    The folder then has `train.json`, `valid.json` and `test.json` (manifests whose
    `{data_root}` is the folder), the audio (24 kHz mono FLAC, 100 MB in all) and
    `notes.json` (what it was made with and what is in it). The labels are `pitch`
    (MIDI), `pitch_class`, `octave`, `instrument`, `instrument_family`, `program`,
    `source` and `velocity`.

    The same arguments give the same files bit for bit. Notes that are there are not
    made again: a build that was interrupted goes on, a complete one is returned at
    once. Let one process call it at a time.
    """
    if step < 1:
        raise UserError(f"step is {step}: give at least 1 semitone.")
    settings = {"step": int(step), "seed": int(seed)}
    record = Path(folder, "notes.json")
    rendered = RenderedFolder(record, "rendered notes", settings, ["pretty_midi"], 1)
    if rendered.is_complete():
        return rendered.folder
    rendered.begin()
    manifests = note_manifests(**settings)
    entries = [entry for part in manifests.values() for entry in part.values()]
    for entry in tqdm(entries, "Rendering notes", unit="note", disable=not progress):
        path = Path(entry["wav"].format(data_root=rendered.folder))
        if not path.is_file():
            note = {name: entry[name] for name in ("program", "pitch", "velocity")}
            write_flac(path, render_note(**note))
    counts = {part: len(manifest) for part, manifest in manifests.items()}
    rendered.finish(manifests, notes=counts)
    logger.info(f"Notes {rendered.folder}: {counts}.")
    return rendered.folder


def note_manifests(step: int = 1, seed: int = 1234) -> dict[str, dict[str, dict]]:
    """The notes of each part with their labels."""
    return {
        part: dict(
            _note(program, pitch, programs[0], seed)
            for programs in sources
            for program in programs
            for pitch in range(INSTRUMENTS[program].low, INSTRUMENTS[program].high + 1)
            if pitch % step == 0
        )
        for part, sources in SOURCES.items()
    }


def render_note(program: int, pitch: int, velocity: int) -> np.ndarray:
    """Play a note for a second and a half, with half a second to die away."""
    audio = np.zeros(round(SECONDS * SAMPLE_RATE), dtype=np.float32)
    sound = load_soundfont().play(program, pitch, _HELD)[: len(audio)]
    audio[: len(sound)] = sound
    fade = round(_FADE * SAMPLE_RATE)
    audio[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    # The amplitude that SoundFont 2.01, 8.4.1, gives to a velocity.
    return level(audio) * np.float32((velocity / 127.0) ** 2)


def _note(program: int, pitch: int, source: int, seed: int) -> tuple[str, dict]:
    """The name of a note, and its entry."""
    name = f"{program:03d}-{pitch:03d}"
    labels = {
        "pitch": pitch,
        "pitch_class": _PITCH_CLASSES[pitch % 12],
        "octave": pitch // 12 - 1,
        "instrument": INSTRUMENTS[program].name,
        "instrument_family": family_of(program),
        "program": program,
        "source": INSTRUMENTS[source].name,
        "velocity": random.Random(f"{seed}/{program}/{pitch}").choice(VELOCITIES),
    }
    return name, rendered_entry(name, round(SECONDS * SAMPLE_RATE), labels)
