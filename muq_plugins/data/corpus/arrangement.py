"""How a take of a piece is played: excerpt, tempo, key, instruments, dynamics.

Of General MIDI are left out: sound effects, drums, synthesizers and ethnic instruments,
which suit four-part writing badly; the harp and the timpani, which sound like no other
member of their family; and the whistle (78), for which the soundfont has no middle
register.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

from muq_plugins.data.corpus.scores import MusicalScore
from muq_plugins.errors import UserError

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


class Instrument(NamedTuple):
    """A General MIDI instrument."""

    name: str  # its name
    low: int  # lowest MIDI pitch that it is given
    high: int  # highest MIDI pitch that it is given


# The families of General MIDI, with its string ensembles among the strings.
FAMILIES = {
    "piano": (0, 1, 2, 3, 4, 5, 6, 7),
    "chromatic percussion": (8, 9, 10, 11, 12, 13, 14, 15),
    "organ": (16, 17, 18, 19, 20, 21, 22, 23),
    "guitar": (24, 25, 26, 27, 28, 29, 30),
    "strings": (40, 41, 42, 43, 44, 45, 48, 49, 50, 51),
    "brass": (56, 57, 58, 59, 60, 61, 62, 63),
    "reed": (64, 65, 66, 67, 68, 69, 70, 71),
    "pipe": (72, 73, 74, 75, 76, 77, 79),
}

INSTRUMENTS = {
    0: Instrument("acoustic grand piano", 28, 98),
    1: Instrument("bright acoustic piano", 28, 98),
    2: Instrument("electric grand piano", 28, 98),
    3: Instrument("honky-tonk piano", 28, 98),
    4: Instrument("electric piano", 28, 98),
    5: Instrument("chorused electric piano", 28, 98),
    6: Instrument("harpsichord", 29, 89),
    7: Instrument("clavinet", 29, 89),
    8: Instrument("celesta", 60, 100),
    9: Instrument("glockenspiel", 67, 103),
    10: Instrument("music box", 60, 96),
    11: Instrument("vibraphone", 53, 89),
    12: Instrument("marimba", 43, 91),
    13: Instrument("xylophone", 60, 96),
    14: Instrument("tubular bells", 55, 82),
    15: Instrument("dulcimer", 48, 86),
    16: Instrument("drawbar organ", 36, 96),
    17: Instrument("percussive organ", 36, 96),
    18: Instrument("rock organ", 36, 96),
    19: Instrument("church organ", 33, 96),
    20: Instrument("reed organ", 36, 96),
    21: Instrument("accordion", 41, 91),
    22: Instrument("harmonica", 55, 91),
    23: Instrument("bandoneon", 41, 91),
    24: Instrument("nylon-string guitar", 40, 83),
    25: Instrument("steel-string guitar", 40, 83),
    26: Instrument("jazz guitar", 40, 83),
    27: Instrument("clean electric guitar", 40, 84),
    28: Instrument("muted electric guitar", 40, 84),
    29: Instrument("overdriven guitar", 40, 84),
    30: Instrument("distortion guitar", 40, 84),
    40: Instrument("violin", 55, 96),
    41: Instrument("viola", 48, 84),
    42: Instrument("cello", 36, 76),
    43: Instrument("contrabass", 28, 60),
    44: Instrument("tremolo strings", 36, 90),
    45: Instrument("pizzicato strings", 36, 90),
    48: Instrument("string ensemble", 36, 91),
    49: Instrument("slow string ensemble", 36, 91),
    50: Instrument("synth strings", 36, 91),
    51: Instrument("slow synth strings", 36, 91),
    56: Instrument("trumpet", 54, 86),
    57: Instrument("trombone", 38, 74),
    58: Instrument("tuba", 28, 60),
    59: Instrument("muted trumpet", 54, 86),
    60: Instrument("French horn", 36, 77),
    61: Instrument("brass section", 36, 86),
    62: Instrument("synth brass", 36, 88),
    63: Instrument("soft synth brass", 36, 88),
    64: Instrument("soprano saxophone", 56, 88),
    65: Instrument("alto saxophone", 49, 81),
    66: Instrument("tenor saxophone", 44, 76),
    67: Instrument("baritone saxophone", 36, 69),
    68: Instrument("oboe", 58, 91),
    69: Instrument("English horn", 52, 81),
    70: Instrument("bassoon", 34, 72),
    71: Instrument("clarinet", 50, 89),
    72: Instrument("piccolo", 62, 100),
    73: Instrument("flute", 58, 96),
    74: Instrument("recorder", 58, 96),
    75: Instrument("pan flute", 55, 89),
    76: Instrument("blown bottle", 55, 89),
    77: Instrument("shakuhachi", 52, 84),
    79: Instrument("ocarina", 57, 91),
}

_FAMILY_OF = {
    program: family for family, members in FAMILIES.items() for program in members
}


def family_of(program: int) -> str:
    """Tell the family of an instrument."""
    if program not in _FAMILY_OF:
        raise UserError(f"Program {program} is none of the corpus's instruments.")
    return _FAMILY_OF[program]


class PlayedNote(NamedTuple):
    """A note as it is played."""

    start: float  # onset, in seconds
    duration: float  # length, in seconds
    pitch: int  # MIDI pitch, 0 to 127
    velocity: int  # MIDI velocity, 1 to 127


class Part(NamedTuple):
    """What one player plays."""

    program: int  # general MIDI program of the instrument
    gain: float  # level beside the other parts, in dB
    notes: list[PlayedNote]  # in order of their onset


@dataclass(frozen=True)
class Arrangement:
    """A take, ready to be rendered."""

    excerpt: MusicalScore  # the music as it is written, before transposition
    parts: list[Part]  # the music as it is played
    family: str  # family of all instruments, or "mixed"
    tempo: float  # quarter notes per minute
    # semitones, the same for all parts. Notes are moved by octaves too, where that
    # suits their instrument
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
    """Draw an arrangement of a piece, or of an excerpt if it is long."""
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
