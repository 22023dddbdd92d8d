"""The schedule: order, sizes and balance of the families."""

import collections

import pytest

from muq_plugins.data.corpus.arrangement import FAMILIES
from muq_plugins.data.corpus.pieces import SPLITS, find_pieces
from muq_plugins.data.corpus.schedule import SplitSchedule
from muq_plugins.errors import UserError


@pytest.fixture(scope="module")
def pieces():
    return find_pieces()


def run(split, pieces, minutes, seed=1, duration=30.0):
    """Clips that a schedule accepts when all are equally long."""
    schedule = SplitSchedule(split, pieces, minutes, seed)
    accepted = {}
    while visits := schedule.next_visits():
        for visit in visits:
            for clip_id, family in zip(visit.clip_ids, visit.families, strict=True):
                if schedule.accept(visit.piece.work, duration):
                    assert clip_id not in accepted
                    accepted[clip_id] = (visit.piece, family)
    return accepted


@pytest.mark.parametrize("minutes", [8.0, 20.0, 60.0, 120.0])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_splits_have_four_works(pieces, split, minutes):
    clips = run(split, pieces, minutes)
    assert len({piece.work for piece, _ in clips.values()}) >= 4


@pytest.mark.parametrize("split", SPLITS)
def test_pieces_are_of_the_split_and_the_size_is_met(pieces, split):
    clips = run(split, pieces, 60.0)
    assert all(piece.split == split for piece, _ in clips.values())
    share = {"train": 0.62, "valid": 0.14, "test": 0.24}[split]
    assert 60.0 * share <= len(clips) / 2.0 < 60.0 * share + 0.5


@pytest.mark.parametrize("split", SPLITS)
def test_families_are_balanced(pieces, split):
    clips = run(split, pieces, 120.0)
    families = collections.Counter(family for _, family in clips.values())
    counts = [families[family] for family in FAMILIES]
    assert max(counts) - min(counts) <= 2
    assert families["mixed"] < 0.25 * len(clips)


def test_seed_alone_decides(pieces):
    assert run("train", pieces, 20.0) == run("train", pieces, 20.0)
    assert run("train", pieces, 20.0) != run("train", pieces, 20.0, seed=2)


def test_the_usual_corpus_tests_on_130_pieces(pieces):
    clips = run("test", pieces, 300.0, seed=1234, duration=24.0)
    assert len({piece.work for piece, _ in clips.values()}) >= 130
    tunes = sum(piece.turns < 1.0 for piece, _ in clips.values())
    assert 0.3 < tunes / len(clips) < 0.6


def test_too_few_works_to_test_on_are_refused(pieces):
    some = [piece for piece in pieces if piece.split == "test"][:3]
    with pytest.raises(
        UserError, match="test part of 20 min.*at least 4 .* have 3 for"
    ):
        SplitSchedule("test", some, 20.0, seed=1)


def test_pieces_return_with_new_takes_when_they_are_used_up(pieces):
    some = [piece for piece in pieces if piece.split == "train"][:3]
    clips = run("train", some, 20.0)
    assert len(clips) == 25
    assert len({piece.path for piece, _ in clips.values()}) == 3
