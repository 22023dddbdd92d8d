"""Say in words what a clip of the embedded corpus sounds like.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import random

# Indexed by pitch class: the spelling with the fewest sharps or flats.
_TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}

_TEMPO_WORDS = (  # up to so many quarter notes a minute
    (66.0, ("very slow", "solemn")),
    (84.0, ("slow", "calm")),
    (108.0, ("moderate", "walking")),
    (138.0, ("lively", "brisk")),
    (float("inf"), ("fast", "quick")),
)

_ENSEMBLES = {
    "piano": "keyboards",
    "chromatic percussion": "bells and mallets",
    "organ": "organs",
    "guitar": "guitars",
    "strings": "strings",
    "brass": "brass",
    "reed": "reed instruments",
    "pipe": "flutes and pipes",
    "mixed": "a mixed ensemble",
}

_TEMPLATES = (
    "A piece by {composer} in {key}, played by {instruments} at a {tempo} tempo.",
    "{Instruments} playing music by {composer}: {tempo}, in {metre} time and {key}.",
    "{composer} arranged for {ensemble}: {instruments}. The key is {key}, the tempo "
    "{tempo}.",
    "Classical music in {key} and {metre} time for {instruments}. Composed by "
    "{composer}, played at a {tempo} pace.",
    "A {tempo} performance of a work by {composer} on {instruments}, in {key}.",
    "Polyphonic music for {ensemble} in {metre}, {key}, {tempo}; {instruments}; "
    "composer {composer}.",
)


def key_name(tonic: int, mode: str) -> str:
    """Name a key in its conventional spelling.

    Arguments
    ---------
    tonic : int
        Pitch class, taken modulo 12.
    mode : str
        "major" or "minor".

    Returns
    -------
    str
        For example "Bb major".

    Example
    -------
    >>> key_name(8, "major"), key_name(8 + 12, "minor")
    ('Ab major', 'G# minor')
    """
    return f"{_TONICS[mode][tonic % 12]} {mode}"


def write_caption(
    composer: str,
    instruments: list[str],
    family: str,
    key: str,
    tempo: float,
    time_signature: str,
    rng: random.Random,
    voices: int = 2,
) -> str:
    """Write a caption from the labels of a clip.

    Arguments
    ---------
    composer : str
        Full name.
    instruments : list of str
        Names of the instruments.
    family : str
        Their family, or "mixed".
    key : str
        As `key_name` gives it.
    tempo : float
        Quarter notes per minute.
    time_signature : str
        For example "3/4".
    rng : random.Random
        Chooses among the wordings.
    voices : int
        Parts of the composition: a tune of one is not called polyphonic or classical.

    Returns
    -------
    str
        One or two sentences.

    Example
    -------
    >>> rng = random.Random(1)
    >>> write_caption("Verdi", ["flute", "oboe"], "mixed", "Bb major", 80.0, "3/4", rng)
    'Flute and oboe playing music by Verdi: slow, in 3/4 time and B-flat major.'
    """
    words = next(words for limit, words in _TEMPO_WORDS if tempo < limit)
    listed = " and ".join(filter(None, [", ".join(instruments[:-1]), instruments[-1]]))
    template = rng.choice(_TEMPLATES)
    if voices == 1:
        template = template.replace("Polyphonic music", "A tune")
        template = template.replace("Classical music", "Music")
    return template.format(
        composer=composer,
        instruments=listed,
        Instruments=listed[0].upper() + listed[1:],
        ensemble=_ENSEMBLES[family],
        key=key.replace("b ", "-flat ").replace("# ", "-sharp "),
        tempo=rng.choice(words),
        metre=time_signature,
    )
