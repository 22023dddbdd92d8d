"""Which pieces there are and how they are split."""

import collections

import pytest

from muq_plugins.data.corpus.pieces import (
    COLLECTIONS,
    SPLITS,
    corpus_folder,
    find_pieces,
    split_of,
)


@pytest.fixture(scope="module")
def pieces():
    return {piece.path: piece for piece in find_pieces()}


def test_pieces_are_there_and_have_names_of_their_own(pieces):
    assert all((corpus_folder() / path).is_file() for path in pieces)
    assert len({piece.slug for piece in pieces.values()}) == len(pieces)
    composers = collections.Counter(piece.composer for piece in pieces.values())
    assert composers["Johann Sebastian Bach"] > 400
    assert len(composers) >= 10


def test_collections_of_unclear_licence_are_left_out(pieces):
    roots = {path.split("/")[0] for path in pieces}
    assert not roots & {"essenFolksong", "palestrina", "monteverdi", "trecento"}
    assert "bach/bwv846.mxl" not in pieces


def test_movements_of_a_work_are_in_one_split(pieces):
    matthew = {piece.work for path, piece in pieces.items() if "/bwv244." in path}
    assert matthew == {"bach/bwv244"}
    assert pieces["mozart/k155/movement1.mxl"].work == "mozart/k155"


def test_splits_are_about_80_10_10():
    counts = collections.Counter(split_of(f"work{i}") for i in range(5000))
    assert counts["train"] == pytest.approx(4000, abs=120)
    assert counts["valid"] == pytest.approx(500, abs=80)
    assert counts["test"] == pytest.approx(500, abs=80)


def test_every_split_has_pieces_of_two_composers(pieces):
    composers = collections.defaultdict(set)
    for piece in pieces.values():
        composers[split_of(piece.work)].add(piece.composer)
    assert min(len(names) for names in composers.values()) >= 2


def test_collections_are_chosen_by_name(pieces):
    chosen = {name: find_pieces([name]) for name in COLLECTIONS}
    assert [len(found) > 40 for found in chosen.values()] == [True] * 3
    assert {p.path for p in chosen["chorales"] + chosen["classical"]} == set(pieces)
    tunes = chosen["fiddle tunes"]
    assert len(tunes) > 1000 and not {p.path for p in tunes} & set(pieces)
    assert len({piece.work for piece in tunes}) == len(tunes)
    assert {piece.composer for piece in tunes} == {"Anonymous"}
    for split in SPLITS:
        assert sum(split_of(piece.work) == split for piece in tunes) > 80
    both = find_pieces(["fiddle tunes", "chorales"])
    assert len(both) == len(tunes) + len(chosen["chorales"])
    assert both == sorted(both, key=lambda piece: piece.path)


@pytest.mark.parametrize("names", [["jazz"], [], "chorales", ["chorales", "Jazz"]])
def test_unknown_collections_are_refused(names):
    with pytest.raises(
        ValueError, match="one or more of chorales, classical, fiddle t"
    ):
        find_pieces(names)


def test_tunes_claim_no_rights():
    """As `pieces` asks of every file."""
    for piece in find_pieces(["fiddle tunes"]):
        text = (corpus_folder() / piece.path).read_text(encoding="utf-8").lower()
        for word in ("copyright", "all rights", "licen", "©"):
            assert word not in text, piece.path
