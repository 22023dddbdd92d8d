"""How a take of a piece is played: excerpt, tempo, key, instruments, dynamics."""

import math
import random
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from muq_plugins.data.corpus.effects import Sound, draw_sound
from muq_plugins.data.corpus.scores import MusicalScore
from muq_plugins.data.corpus.soundfont import DRUMS
from muq_plugins.data.instruments import FAMILIES, INSTRUMENTS, family_of

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
_DRUMMED = 0.25  # share of the takes that a drum kit keeps the beat of
_DRUM_GAIN = (-16.0, -8.0)  # dB, below the other parts
# Bar and beat: bass drum and closed hi-hat, side stick and maracas, and so on.
_DRUM_PAIRS = ((36, 42), (37, 70), (36, 54), (45, 69))
_DRUM_SECONDS = 0.1


class PlayedNote(NamedTuple):
    """A note as it is played."""

    start: float  # onset, in seconds
    duration: float  # length, in seconds
    pitch: int  # MIDI pitch, 0 to 127
    velocity: int  # MIDI velocity, 1 to 127


class Part(NamedTuple):
    """What one player plays."""

    program: int  # general MIDI program of the instrument, or DRUMS
    gain: float  # level beside the other parts, in dB
    notes: list[PlayedNote]  # in order of their onset


@dataclass(frozen=True)
class Arrangement:
    """A take, ready to be rendered."""

    excerpt: MusicalScore  # the music as it is written, before transposition
    parts: list[Part]  # the music as it is played
    drums: Part | None  # what a drum kit plays, which no label tells
    sound: Sound  # the tuning, the equaliser and the room
    family: str  # family of all instruments, or "mixed"
    tempo: float  # quarter notes per minute
    # semitones, the same for all parts. Notes are moved by octaves too, where that
    # suits their instrument
    transposition: int

    @property
    def sounding(self) -> list[Part]:
        """The parts and the drums."""
        return self.parts if self.drums is None else [*self.parts, self.drums]

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
    """Draw an arrangement of a piece, or of an excerpt if it is long."""
    tempo, excerpt = draw_excerpt(score, longest, rng)
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
    drums = _draw_drums(excerpt, tempo, rng)
    sound = draw_sound(rng)
    return Arrangement(excerpt, parts, drums, sound, family, tempo, transposition)


def draw_excerpt(
    score: MusicalScore, longest: float, rng: random.Random
) -> tuple[float, MusicalScore]:
    """Draw what of a piece is played, and how fast: before anything else is drawn."""
    tempo = _draw_tempo(score, rng)
    return tempo, _draw_excerpt(score, tempo, longest, rng)


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


def _draw_drums(excerpt: MusicalScore, tempo: float, rng: random.Random) -> Part | None:
    """Sometimes a soft drum kit: one drum on each bar, another on its other beats."""
    if rng.random() >= _DRUMMED or excerpt.time_signature is None:
        return None
    count, unit = map(int, excerpt.time_signature.split("/"))
    beat = 4.0 / unit * (3 if unit >= 8 and count % 3 == 0 else 1)  # in quarter notes
    drums = rng.choice(_DRUM_PAIRS)
    notes = []
    for bar, end in pairwise([*excerpt.bars, excerpt.end]):
        for number in range(math.ceil((end - bar) / beat)):
            velocity = _VELOCITY + rng.randint(-_NOTE_VELOCITY, _NOTE_VELOCITY)
            start = (bar + number * beat) * 60.0 / tempo
            notes.append(PlayedNote(start, _DRUM_SECONDS, drums[number > 0], velocity))
    return Part(DRUMS, rng.uniform(*_DRUM_GAIN), notes) if notes else None


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
