"""What scores say moment by moment, and what they leave open."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from muq_plugins.data.corpus import build_corpus
from muq_plugins.data.corpus.annotate import (
    ANNOTATIONS,
    QUALITIES,
    annotate_corpus,
    beats_of,
    chords_of,
    sections_of,
)
from muq_plugins.data.corpus.pieces import find_pieces
from muq_plugins.data.corpus.scores import MusicalScore, Note, read_score
from muq_plugins.data.datasets.annotations import Beats, Intervals
from muq_plugins.data.preparation import prepare_annotated
from muq_plugins.errors import UserError


def score(bars, end, signature, marks=(), notes=()):
    notes = list(notes) or [Note(0.0, end, 60)]
    return MusicalScore([notes], bars, end, [(0.0, signature)], [], True, list(marks))


def places(bars, end, signature, span=None):
    found = beats_of(score(bars, end, signature), *(span or (0.0, end)))
    return [(round(time, 3), place) for time, place in found]


def test_beats_are_counted_from_the_bar_line():
    assert places([0, 3], 6.0, "3/4") == [(t, t % 3 + 1) for t in range(6)]
    assert places([0, 3], 6.0, "6/8") == [(0, 1), (1.5, 2), (3, 1), (4.5, 2)]
    # An upbeat of one quarter, and a last bar that lacks it.
    assert places([0, 1, 5], 8.0, "4/4") == [(0, 4)] + [
        (time, (time - 1) % 4 + 1) for time in range(1, 8)
    ]
    # One that is shorter than a beat has none.
    assert places([0, 0.5], 2.5, "2/4") == [(0.5, 1), (1.5, 2)]
    # A repeat mark cuts a bar in two; an excerpt begins within one.
    assert places([0, 4, 7, 8], 12.0, "4/4", (6.0, 10.0)) == [
        *[(0, 3), (1, 4), (2, 1), (3, 2)]
    ]


@pytest.mark.parametrize("signature", ["3/8", "5/8", "1/4"])
def test_where_the_beat_is_open_there_are_none(signature):
    assert places([0, 1.5], 3.0, signature) == []


def test_bars_of_another_length_than_stated_are_left_out():
    bars = [0, 4, 7, 11]  # one lacks a beat, and nothing follows that completes it
    assert places(bars, 15.0, "4/4") == [] == places(bars, 15.0, "4/4", (3.0, 6.0))
    assert len(places(bars, 15.0, "4/4", (7.0, 15.0))) == 8  # but where it is not
    assert places([0, 4, 9], 13.0, "4/4") == []


def test_chords_are_named_where_no_other_has_their_notes():
    triad = [Note(0.0, 4.0, 48), Note(0.0, 4.0, 64), Note(0.0, 2.0, 67)]
    up = [Note(2.0, 1.0, 70), Note(2.0, 2.0, 79)]  # the seventh, then C major again
    assert chords_of(triad + up, 0) == [
        [0.0, 2.0, "C:maj"],
        [2.0, 3.0, "C:7"],
        [3.0, 4.0, "C:maj"],
    ]
    assert chords_of(triad, 2)[0] == [
        0.0,
        2.0,
        "D:maj",
    ]  # then two notes, which are none
    assert chords_of([*triad, Note(0.0, 4.0, 62)], 0) == []
    mir_eval = pytest.importorskip("mir_eval")
    notes = {
        name: {i for i, there in enumerate(bitmap) if there}
        for name, bitmap in mir_eval.chord.QUALITIES.items()
        if sum(bitmap) > 2
    }
    for ours, steps in QUALITIES.items():
        assert notes[ours] == set(steps)
        for (theirs, those), root in itertools.product(notes.items(), range(12)):
            if {(root + step) % 12 for step in those} == set(steps):
                assert root == 0 and sorted(those) == sorted(steps), theirs


def test_sections_go_from_mark_to_mark():
    tune = [Note(float(i), 1.0, 60 + i % 8 % 5) for i in range(24)]
    whole = score([0, 8, 9, 16], 24.0, "4/4", [8.0, 9.0, 16.0], tune)
    # A bar of one beat between two marks is an upbeat; the third is the first again.
    assert sections_of(whole, whole) == [[0, 8, "A"], [8, 16, "A"], [16, 24, "A"]]
    other = [note._replace(pitch=note.pitch + 7 * (note.start < 8)) for note in tune]
    whole = score([0, 8, 16], 24.0, "4/4", [8.0, 16.0], other)
    letters = [row[2] for row in sections_of(whole, whole)]
    assert letters == ["A", "B", "B"]
    cut = whole.excerpt(6.0, 10.0)
    assert sections_of(whole, cut) == [[0, 2, "A"], [2, 4, "B"]]
    assert sections_of(whole, whole.excerpt(1.0, 5.0)) == []


def test_marks_are_those_of_the_score():
    pieces = {piece.path: piece for piece in find_pieces()}
    reel = read_score(pieces["ryansMammoth/YachtClubReel.abc"])
    assert reel.marks == [16.0]
    # Its second ending belongs to the section that it ends.
    chorale = read_score(pieces["bach/bwv8.6.mxl"])
    assert chorale.marks and all(mark in chorale.bars for mark in chorale.marks)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return build_corpus(folder, minutes=1.0, seed=2, workers=1, progress=False)


def test_a_corpus_of_before_gets_its_annotations(corpus):
    before = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    found = annotate_corpus(corpus)
    assert {path: path.read_bytes() for path in before} == before
    kept = json.loads((corpus / ANNOTATIONS).read_text())
    assert kept["clips"] == found
    seen, drummed = set(), 0
    for split in ("train", "valid", "test"):
        for name, entry in json.loads((corpus / f"{split}.json").read_text()).items():
            seen.update(found[name])
            end = entry["duration"]
            midi = pretty_midi.PrettyMIDI(str(corpus / "audio" / f"{name}.mid"))
            if "beats" in found[name]:
                beats = Beats.of(found[name]["beats"], name)
                assert beats.times[-1] < end and 1 in beats.positions
                drums = [part.notes for part in midi.instruments if part.is_drum]
                for hits in [[note.start for note in notes] for notes in drums]:
                    apart = abs(np.subtract.outer(beats.downbeats, hits))
                    assert apart.min(axis=1).max() < 0.01
                    drummed += 1
            for kind in {"chords", "sections"} & found[name].keys():
                assert Intervals.of(found[name][kind], name).times[-1, 0] < end
    assert {"beats", "tempo", "sections"} <= seen and drummed
    parts = prepare_annotated(corpus, corpus_minutes=1.0, corpus_seed=2).parts
    known = {name: entry for part in parts.values() for name, entry in part.items()}
    assert all(known[name].items() >= kinds.items() for name, kinds in found.items())
    assert all(Path(entry["wav"]).is_file() for entry in known.values())
    # What is there is read, not made again.
    (corpus / "audio").rename(corpus / "away")
    assert annotate_corpus(corpus) == found
    (corpus / "away").rename(corpus / "audio")


def test_takes_that_play_something_else_are_refused(corpus, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(corpus, folder, ignore=lambda *_: [ANNOTATIONS])
    path = next((folder / "audio").glob("*.mid"))
    midi = pretty_midi.PrettyMIDI(str(path))
    midi.instruments[0].notes[0].pitch += 1
    midi.write(str(path))
    with pytest.raises(UserError, match=f"{path.stem}.mid plays another excerpt"):
        annotate_corpus(folder)
