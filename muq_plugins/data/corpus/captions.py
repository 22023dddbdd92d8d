"""Say in words what a clip of the embedded corpus sounds like."""

import random

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
    """Write a caption from the labels of a clip."""
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
