"""Captions and names of keys."""

import random

import pytest

from muq_plugins.data.corpus.arrangement import FAMILIES
from muq_plugins.data.corpus.captions import write_caption
from muq_plugins.data.corpus.scores import key_name


@pytest.mark.parametrize(
    ("tonic", "mode", "name"),
    [
        (0, "major", "C major"),
        (10, "major", "Bb major"),
        (6, "major", "F# major"),
        (1, "major", "Db major"),
        (1, "minor", "C# minor"),
        (3, "minor", "Eb minor"),
        (9 + 6, "minor", "Eb minor"),
        (2 - 5, "major", "A major"),
    ],
)
def test_keys_are_spelled_as_musicians_do(tonic, mode, name):
    assert key_name(tonic, mode) == name


@pytest.mark.parametrize("family", [*FAMILIES, "mixed"])
def test_caption_says_what_the_labels_say(family):
    wordings = set()
    for seed in range(60):
        caption = write_caption(
            "Joseph Haydn",
            ["English horn", "flute", "oboe"],
            family,
            "Bb minor",
            150.0,
            "6/8",
            random.Random(seed),
        )
        assert "Joseph Haydn" in caption
        assert "English horn, flute and oboe" in caption
        assert "B-flat minor" in caption
        assert "fast" in caption or "quick" in caption
        assert caption[0].isupper() and caption.endswith(".")
        wordings.add(caption)
    assert len(wordings) >= 8


def test_slow_is_called_slow():
    arguments = ["Verdi", ["flute"], "pipe", "C major", 60.0, "4/4"]
    captions = [write_caption(*arguments, random.Random(seed)) for seed in range(10)]
    assert all("very slow" in text or "solemn" in text for text in captions)


def test_a_tune_is_neither_polyphonic_nor_classical():
    """The wording is the same otherwise, whatever is drawn."""
    told = {1: set(), 2: set()}
    for voices, captions in told.items():
        for seed in range(60):
            rng = random.Random(seed)
            captions.add(
                write_caption(
                    "Anonymous", ["flute"], "pipe", "C major", 90.0, "6/8", rng, voices
                )
            )
    words = " ".join(told[2])
    assert "Polyphonic" in words and "Classical" in words
    words = " ".join(told[1])
    assert "Polyphonic" not in words and "Classical" not in words
    assert "A tune for" in words and len(told[1]) == len(told[2])
