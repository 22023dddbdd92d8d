"""Draw how a take of a piece is played: excerpt, tempo, key, instruments, dynamics.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

from muq_plugins.data.corpus.programs import (
    FAMILIES,
    INSTRUMENTS,
    family_of,
)
from muq_plugins.data.corpus.scores import MusicalScore

MIXED = "mixed"

_SHORTEST = 20.0  # seconds that a take should last
_EXCERPT = (0.6, 0.8)  # of the longest take, if the piece is longer
_TEMPO_FACTOR = (0.75, 1.33)
_NOTES_PER_SECOND = 2.0
_BASE_TEMPO = (60.0, 160.0)
_TRANSPOSITION = (-5, 6)  # every key is equally likely
_MOST_PROGRAMS = 4
_PART_GAIN = 4.0  # dB
_VELOCITY = 84
_NOTE_VELOCITY = 12


class PlayedNote(NamedTuple):
    """A note as it is played.

    Arguments
    ---------
    start : float
        Onset, in seconds.
    duration : float
        Length, in seconds.
    pitch : int
        MIDI pitch, 0 to 127.
    velocity : int
        MIDI velocity, 1 to 127.

    Example
    -------
    >>> PlayedNote(start=0.0, duration=0.5, pitch=60, velocity=80).velocity
    80
    """

    start: float
    duration: float
    pitch: int
    velocity: int


class Part(NamedTuple):
    """What one player plays.

    Arguments
    ---------
    program : int
        General MIDI program of the instrument.
    gain : float
        Level beside the other parts, in dB.
    notes : list of PlayedNote
        In order of their onset.

    Example
    -------
    >>> Part(program=73, gain=-3.0, notes=[PlayedNote(0.0, 0.5, 72, 80)]).program
    73
    """

    program: int
    gain: float
    notes: list[PlayedNote]


@dataclass(frozen=True)
class Arrangement:
    """A take, ready to be rendered.

    Arguments
    ---------
    excerpt : MusicalScore
        The music as it is written, before transposition.
    parts : list of Part
        The music as it is played.
    family : str
        Family of all instruments, or "mixed".
    tempo : float
        Quarter notes per minute.
    transposition : int
        Semitones, the same for all parts. Notes are moved by octaves too, where that
        suits their instrument.

    Example
    -------
    >>> from muq_plugins.data.corpus.scores import Note
    >>> score = MusicalScore([[Note(0.0, 60.0, 60)]], [0.0], 60.0, [(0.0, "4/4")])
    >>> arrangement = arrange(score, "brass", 60.0, random.Random(1))
    >>> arrangement.families, len(arrangement.parts)
    (['brass'], 1)
    """

    excerpt: MusicalScore
    parts: list[Part]
    family: str
    tempo: float
    transposition: int

    @property
    def programs(self) -> list[int]:
        """The instruments that are heard, sorted."""
        return sorted({part.program for part in self.parts})

    @property
    def families(self) -> list[str]:
        """The families that are heard, sorted."""
        return sorted({family_of(program) for program in self.programs})


def arrange(
    score: MusicalScore, family: str, longest: float, rng: random.Random
) -> Arrangement:
    """Draw an arrangement of a piece, or of an excerpt if it is long.

    Arguments
    ---------
    score : MusicalScore
        The whole piece.
    family : str
        Family that every instrument is of, or "mixed" for any of at least two.
    longest : float
        Seconds; what lasts longer is cut to an excerpt.
    rng : random.Random
        Where the draws come from.

    Returns
    -------
    Arrangement
        What to render.

    Example
    -------
    >>> from muq_plugins.data.corpus.scores import Note
    >>> part = [Note(float(i), 1.0, 60) for i in range(400)]
    >>> bars = [4.0 * i for i in range(100)]
    >>> score = MusicalScore([part, part], bars, 400.0, [(0.0, "4/4")])
    >>> arrangement = arrange(score, "mixed", 60.0, random.Random(1))
    >>> 20 < arrangement.excerpt.end * 60 / arrangement.tempo < 60
    True
    >>> len(arrangement.families)
    2
    """
    tempo = _draw_tempo(score, rng)
    excerpt = _draw_excerpt(score, tempo, longest, rng)
    programs = _draw_programs(len(excerpt.parts), family, rng)
    if len(score.parts) == 1:  # a tune is played by one instrument
        family = family_of(programs[0])
    transposition = rng.randint(*_TRANSPOSITION)
    parts = []
    for written, program in zip(excerpt.parts, programs, strict=True):
        pitches = _fit([note.pitch + transposition for note in written], program)
        gain = rng.uniform(-_PART_GAIN, _PART_GAIN)
        notes = [
            PlayedNote(
                start=note.start * 60.0 / tempo,
                duration=note.duration * 60.0 / tempo,
                pitch=pitch,
                velocity=_VELOCITY + rng.randint(-_NOTE_VELOCITY, _NOTE_VELOCITY),
            )
            for note, pitch in zip(written, pitches, strict=True)
        ]
        parts.append(Part(program, gain, notes))
    return Arrangement(excerpt, parts, family, tempo, transposition)


def _draw_tempo(score: MusicalScore, rng: random.Random) -> float:
    """Quarter notes per minute.

    Few of the scores have a believable tempo mark, and a quarter note of a Mozart
    adagio is not that of a chorale: so the base is the tempo at which a part plays
    two notes a second, whatever they are written as.
    """
    slowest, fastest = _BASE_TEMPO
    base = min(max(60.0 * _NOTES_PER_SECOND / score.density, slowest), fastest)
    tempo = base * rng.uniform(*_TEMPO_FACTOR)
    return round(min(tempo, 60.0 * score.end / _SHORTEST), 2)


def _draw_excerpt(
    score: MusicalScore, tempo: float, longest: float, rng: random.Random
) -> MusicalScore:
    """The whole piece if it is short enough, else an excerpt from bar to bar."""
    if score.end * 60.0 / tempo <= longest:
        return score.excerpt(0.0, score.end)
    length = rng.uniform(*_EXCERPT) * longest * tempo / 60.0
    starts = [bar for bar in score.bars if bar + length <= score.end] or [0.0]
    start = rng.choice(starts)
    # The end is moved to the next bar line, unless that bar is very long.
    end = min(
        (bar for bar in score.bars if start + length <= bar <= start + 1.25 * length),
        default=start + length,
    )
    return score.excerpt(start, end)


def _draw_programs(parts: int, family: str, rng: random.Random) -> list[int]:
    """A program for each part; with more parts than players, players take several."""
    count = rng.randint(1, min(parts, _MOST_PROGRAMS))
    if family == MIXED:
        chosen = rng.sample(sorted(FAMILIES), max(2, count))
        programs = [rng.choice(FAMILIES[name]) for name in chosen]
    else:
        programs = rng.sample(FAMILIES[family], count)
    return [programs[part % len(programs)] for part in range(parts)]


def _fit(pitches: list[int], program: int) -> list[int]:
    """Move a part by the octaves that suit its instrument, then its last outliers."""
    low, high = INSTRUMENTS[program].low, INSTRUMENTS[program].high

    def misfit(octaves: int) -> tuple[int, int]:
        outside = sum(not low <= pitch + octaves <= high for pitch in pitches)
        return outside, abs(octaves)

    octaves = min((0, 12, -12, 24, -24), key=misfit)
    fitted = []
    for pitch in pitches:
        pitch += octaves
        while pitch < low:
            pitch += 12
        while pitch > high:
            pitch -= 12
        fitted.append(pitch)
    return fitted
