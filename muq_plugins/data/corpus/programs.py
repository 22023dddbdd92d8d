"""The General MIDI instruments that the embedded corpus is played on.

Left out: sound effects, drums, synthesizers and ethnic instruments, which suit
four-part writing badly; the harp and the timpani, which sound like no other member
of their family; and the whistle (78), for which the soundfont has no middle register.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from typing import NamedTuple


class Instrument(NamedTuple):
    """A General MIDI instrument.

    Arguments
    ---------
    name : str
        Its name.
    low : int
        Lowest MIDI pitch that it is given.
    high : int
        Highest MIDI pitch that it is given.

    Example
    -------
    >>> INSTRUMENTS[73].name, family_of(73)
    ('flute', 'pipe')
    """

    name: str
    low: int
    high: int


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
    """Tell the family of an instrument.

    Arguments
    ---------
    program : int
        A General MIDI program of `INSTRUMENTS`, counted from 0.

    Returns
    -------
    str
        One of `FAMILIES`.

    Raises
    ------
    ValueError
        If the corpus does not play this program.

    Example
    -------
    >>> family_of(48)
    'strings'
    """
    if program not in _FAMILY_OF:
        raise ValueError(f"Program {program} is none of the corpus's instruments.")
    return _FAMILY_OF[program]
