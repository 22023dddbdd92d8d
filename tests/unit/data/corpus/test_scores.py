"""Which pieces, and their notes as music21 reads them."""

import dataclasses

import pytest
from music21 import converter

from muq_plugins.data.corpus.pieces import Piece, corpus_folder, find_pieces
from muq_plugins.data.corpus.scores import (
    MusicalScore,
    Note,
    estimate_key,
    key_name,
    read_score,
)


@pytest.fixture(scope="module")
def pieces():
    return {piece.path: piece for piece in find_pieces()}


def test_ties_become_one_note(tmp_path, monkeypatch):
    (tmp_path / "bach").mkdir()
    (tmp_path / "bach" / "tied.xml").write_text(TIED, encoding="utf-8")
    monkeypatch.setattr(
        "muq_plugins.data.corpus.scores.corpus_folder", lambda: tmp_path
    )
    score = read_score(Piece("bach/tied.xml", "bach/tied", "Anon", "Tied", 1))
    assert score.parts == [[Note(0.0, 3.0, 60), Note(3.0, 1.0, 60)]]
    assert score.bars == [0.0, 2.0]
    assert score.signatures == [(0.0, "2/4")]
    assert score.keys == [] and score.key is None


def test_notes_are_those_of_music21(pieces):
    file = corpus_folder() / "bach" / "bwv66.6.mxl"
    expected = converter.parse(file, forceSource=True, storePickle=False).stripTies()
    score = read_score(pieces["bach/bwv66.6.mxl"])
    assert score.parts == [
        [
            Note(float(note.offset), float(note.quarterLength), note.pitch.midi)
            for note in part.flatten().notes
        ]
        for part in expected.parts
    ]
    assert score.end == 36.0


def test_transposing_instrument_sounds_as_it_does(pieces):
    clarinet = read_score(pieces["weber/concertino_clarinet.mxl"]).parts[0]
    assert clarinet[0].pitch == 80  # written B flat 5


@pytest.mark.parametrize("path", ["bach/bwv7.7.mxl", "mozart/k155/movement2.mxl"])
def test_key_is_what_music21_says_of_the_score(pieces, path):
    file = corpus_folder() / path
    score = converter.parse(file, forceSource=True, storePickle=False)
    expected = score.analyze("key")
    estimate = estimate_key(read_score(pieces[path]).notes)
    assert estimate == (expected.tonic.pitchClass, expected.mode)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("mozart/k155/movement1.mxl", (2, "major")),  # stated, and so it sounds
        ("bach/bwv101.7.mxl", (2, "minor")),  # "minor" in some staves, "major" in most
        ("beethoven/opus59no3/movement2.mxl", (9, "minor")),
        ("ryansMammoth/SoldiersJoy.abc", (2, "major")),  # K:D, by whoever wrote it
        ("joplin/maple_leaf_rag.mxl", None),  # four and five flats, and no mode
    ],
)
def test_key_is_what_the_score_states(pieces, path, key):
    assert read_score(pieces[path]).key == key


def test_key_of_an_excerpt_is_confirmed_by_its_notes(pieces):
    """The middle of the sonata's first page is in no C major."""
    score = read_score(pieces["mozart/k545/movement1_exposition.mxl"])
    assert score.excerpt(0.0, 32.0).key == (0, "major")
    assert score.excerpt(24.0, 40.0).key is None


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


def test_excerpt_cuts_notes_and_starts_with_one():
    score = MusicalScore(
        parts=[[Note(0.0, 3.0, 60), Note(6.0, 4.0, 62)], [Note(0.0, 1.0, 48)]],
        bars=[0.0, 4.0, 8.0],
        end=10.0,
        signatures=[(0.0, "4/4"), (8.0, "2/4")],
        keys=[(0.0, (2, "minor")), (7.0, None)],
        chosen=True,
    )
    excerpt = score.excerpt(4.0, 9.0)
    assert excerpt.parts == [[Note(0.0, 3.0, 62)]]
    assert excerpt.bars == [2.0]
    assert excerpt.end == 3.0
    assert excerpt.time_signature == "4/4"
    assert excerpt.key is None and score.key == (2, "minor")
    assert score.excerpt(2.0, 7.0).parts == [[Note(0.0, 1.0, 60), Note(4.0, 1.0, 62)]]


def test_time_signature_is_that_of_most_of_the_time():
    signatures = [(0.0, "4/4"), (4.0, "3/4")]
    score = MusicalScore([[Note(0.0, 20.0, 60)]], [0.0], 20.0, signatures, [], True)
    assert score.time_signature == "3/4"
    assert dataclasses.replace(score, signatures=[]).time_signature is None


_NOTE = (
    "<note><pitch><step>C</step><octave>4</octave></pitch>"
    "<duration>{duration}</duration>{tie}</note>"
)
TIED = (
    '<?xml version="1.0"?><score-partwise version="3.1"><part-list>'
    '<score-part id="P1"><part-name>One</part-name></score-part></part-list>'
    '<part id="P1"><measure number="1"><attributes><divisions>1</divisions>'
    "<time><beats>2</beats><beat-type>4</beat-type></time></attributes>"
    + _NOTE.format(duration=2, tie='<tie type="start"/>')
    + '</measure><measure number="2">'
    + _NOTE.format(duration=1, tie='<tie type="stop"/>')
    + _NOTE.format(duration=1, tie="")
    + "</measure></part></score-partwise>"
)
