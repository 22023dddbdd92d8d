"""Arrangements: what is drawn stays in its bounds and follows the score."""

import dataclasses
import random

import pytest

from muq_plugins.data.corpus.arrangement import (
    FAMILIES,
    INSTRUMENTS,
    MIXED,
    arrange,
    family_of,
)
from muq_plugins.data.corpus.scores import MusicalScore, Note


def make_score(quarters):
    """Four voices in quarter notes, from a high soprano to a low bass."""
    voices = [(81, 62), (70, 58), (64, 50), (57, 40)]
    parts = [
        [Note(float(i), 1.0, high - (i * 5) % (high - low)) for i in range(quarters)]
        for high, low in voices
    ]
    bars = [float(bar) for bar in range(0, quarters, 4)]
    return MusicalScore(parts, bars, float(quarters), [(0.0, "4/4")], [], True)


def test_same_seed_same_arrangement():
    score = make_score(64)
    first = arrange(score, "reed", 60.0, random.Random("a"))
    assert arrange(score, "reed", 60.0, random.Random("a")) == first
    assert arrange(score, "reed", 60.0, random.Random("b")) != first


@pytest.mark.parametrize("family", [*FAMILIES, MIXED])
def test_parts_fit_their_instruments_and_follow_the_score(family):
    score = make_score(64)
    for seed in range(20):
        arrangement = arrange(score, family, 60.0, random.Random(seed))
        assert arrangement.family == family
        if family == MIXED:
            assert len(arrangement.families) >= 2
        else:
            assert arrangement.families == [family]
        seconds = 60.0 / arrangement.tempo
        for part, written in zip(
            arrangement.parts, arrangement.excerpt.parts, strict=True
        ):
            instrument = INSTRUMENTS[part.program]
            for played, note in zip(part.notes, written, strict=True):
                moved = played.pitch - note.pitch - arrangement.transposition
                assert moved % 12 == 0
                assert instrument.low <= played.pitch <= instrument.high
                assert played.start == pytest.approx(note.start * seconds)
                assert played.duration == pytest.approx(note.duration * seconds)
                assert 60 <= played.velocity <= 108


def test_every_key_and_many_tempi_are_drawn():
    drawn = [
        arrange(make_score(64), "organ", 60.0, random.Random(i)) for i in range(200)
    ]
    assert {a.transposition for a in drawn} == set(range(-5, 7))
    tempi = [a.tempo for a in drawn]
    assert min(tempi) < 100.0 < 150.0 < max(tempi)


def test_drums_keep_the_beat_of_some_takes():
    takes = [arrange(make_score(64), "reed", 60.0, random.Random(i)) for i in range(80)]
    drummed = [take for take in takes if take.drums is not None]
    assert 10 <= len(drummed) <= 30
    for take in drummed:
        assert take.programs == sorted({part.program for part in take.parts})
        assert take.sounding == [*take.parts, take.drums]
        notes, quarter = take.drums.notes, 60.0 / take.tempo
        starts = [note.start / quarter for note in notes]
        assert starts == pytest.approx(list(range(len(starts))))
        bars = {note.pitch for note in notes[::4]}
        assert len(bars) == 1 and not bars & {note.pitch for note in notes[1::4]}
        assert take.drums.gain < -4.0
    untold = dataclasses.replace(make_score(64), signatures=[])
    for i in range(40):
        assert arrange(untold, "reed", 60.0, random.Random(i)).drums is None


@pytest.mark.parametrize(("metre", "beat"), [("6/8", 1.5), ("3/8", 1.5), ("2/2", 2.0)])
def test_drums_know_the_beat_of_a_metre(metre, beat):
    score = dataclasses.replace(make_score(64), signatures=[(0.0, metre)])
    takes = [arrange(score, "reed", 60.0, random.Random(i)) for i in range(20)]
    (take, *_) = [take for take in takes if take.drums is not None]
    starts = [note.start * take.tempo / 60.0 for note in take.drums.notes[:2]]
    assert starts == pytest.approx([0.0, beat])


@pytest.mark.parametrize("longest", [32.0, 60.0])
def test_long_piece_is_cut_at_bars(longest):
    for seed in range(20):
        arrangement = arrange(make_score(400), "brass", longest, random.Random(seed))
        seconds = arrangement.excerpt.end * 60.0 / arrangement.tempo
        assert 0.6 * longest <= seconds <= longest
        assert arrangement.excerpt.end % 4.0 == 0.0
        assert arrangement.excerpt.bars[0] == 0.0


def test_short_piece_is_slowed_to_twenty_seconds():
    for seed in range(20):
        arrangement = arrange(make_score(24), "pipe", 60.0, random.Random(seed))
        assert arrangement.excerpt.end * 60.0 / arrangement.tempo >= 19.99


def test_families_are_disjoint_and_described():
    programs = [program for members in FAMILIES.values() for program in members]
    assert sorted(programs) == sorted(INSTRUMENTS)
    for instrument in INSTRUMENTS.values():
        # Whatever the pitch, some octave of it must be playable.
        assert instrument.high - instrument.low >= 12
    with pytest.raises(ValueError, match="Program 78 is none"):
        family_of(78)
