"""The name of an embedding space: what vectors must share to be compared.

Two vectors of one space may be compared, wherever they were computed; of two vectors of
different spaces, even of one size, a similarity means nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from muq_plugins.errors import UserError

# Raised when the same weights, settings and audio would give other numbers: decoding,
# resampling and pooling are no settings of a model.
VERSION = 1
# The vector of a whole recording: windows as long as the paper's model has been trained
# on, which fade into each other; the mean of all frames, as a unit vector.
TRACK = "track"
WINDOW_SECONDS, FADE_SECONDS = 30.0, 5.0
# What it is computed in. float32 and bfloat16 are one: the errors of the latter are far
# below the differences of music.
FLOAT, INT8 = "float", "int8"
# What a space is made of, in words.
WORDS = {
    "weights": "weights and preprocessing",
    "layers": "layers",
    "pooling": "pooling",
    "context": "context",
    "loudness": "loudness",
    "precision": "precision",
    "version": "version of the computation",
}


@dataclass(frozen=True)
class Space:
    """Everything that decides what the numbers of a vector are, but the audio.

    Example
    -------
    >>> track_space("8f14e45fceea167a", 3).name
    'fad8e3a2e494'
    """

    weights: str  # the fingerprint of weights and preprocessing
    layers: tuple[int, ...]  # none for the latent of a MuQ-MuLan
    pooling: str
    context: str  # what is heard at once
    loudness: float | None = None  # in LUFS that recordings are brought to
    version: int = VERSION
    precision: str = FLOAT

    def __post_init__(self):
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def name(self) -> str:
        """Twelve hexadecimal digits, equal for equal spaces alone."""
        words = json.dumps(self.facts(), sort_keys=True).encode()
        return hashlib.sha256(words).hexdigest()[:12]

    def facts(self) -> dict[str, Any]:
        """What it is made of, as JSON holds it."""
        facts = asdict(self)
        if self.precision == FLOAT:  # names from before there was one stay equal
            del facts["precision"]
        return facts


def windows(seconds: float, fade: float) -> str:
    """The context of frames that are computed window by window."""
    return f"windows of {seconds:g} s that fade over {fade:g} s"


def track_space(
    weights: str,
    layer: int,
    loudness: float | None = None,
    precision: str = FLOAT,
) -> Space:
    """The space of the vectors of whole recordings, of one hidden state."""
    context = windows(WINDOW_SECONDS, FADE_SECONDS)
    return Space(weights, (layer,), TRACK, context, loudness, precision=precision)


def latent_space(weights: str, loudness: float | None = None) -> Space:
    """The space of a MuQ-MuLan, whose weights say how long its clips are."""
    return Space(weights, (), "mean of clips", "consecutive clips", loudness)


def read_space(facts: dict[str, Any]) -> Space:
    """The space that `Space.facts` has described."""
    return Space(**facts)


def check_space(held: Space, given: Space, holder: str, giver: str) -> None:
    """Refuses a space that is not the one that something holds, and says how to go on.

    ``holder`` is what holds the first, ``giver`` where the other comes from.
    """
    if held == given:
        return
    here, there = asdict(given), asdict(held)
    different = [name for name in WORDS if here[name] != there[name]]
    differences = "; ".join(
        f"{WORDS[name]} {_said(there[name])} there, {_said(here[name])} here"
        for name in different
    )
    if "version" in different:
        remedy = "make it anew with this version"
    elif {"weights", "pooling", "context"} & {*different}:
        remedy = "give that model with --model, or make a new one with this model"
    else:
        remedies = []
        if "layers" in different:
            remedies.append(f"give --layer {_said(held.layers)}")
        if "loudness" in different:
            remedies.append(
                "leave --loudness out"
                if held.loudness is None
                else f"give --loudness {held.loudness:g}"
            )
        if "precision" in different:
            dtype = INT8 if held.precision == INT8 else "float32"
            remedies.append(f"give --dtype {dtype}")
        remedy = " and ".join(remedies) + ", or make a new one"
    raise UserError(
        f"{holder} holds vectors of the space {held.name}, and {giver} gives the space "
        f"{given.name}, which cannot be compared ({differences}): {remedy}."
    )


def _said(value: Any) -> str:
    if value is None:
        return "as it is"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value}"
