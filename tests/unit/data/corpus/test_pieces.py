"""Which pieces there are and how they are split."""

import collections

import pytest

from muq_plugins.data.corpus.pieces import (
    COLLECTIONS,
    SPLITS,
    candidates,
    corpus_folder,
    find_pieces,
    read_groups,
    split_of,
)
from tests.goldens.melodies import grouped, melody_of, read_melodies, sharing


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
    splits = collections.defaultdict(set)
    for piece in pieces.values():
        splits[piece.work].add(piece.split)
    assert all(len(found) == 1 for found in splits.values())


def test_no_two_splits_share_a_melody(pieces):
    """Of all pieces, in any key and whatever collection."""
    melodies = read_melodies()
    splits = [pieces[path].split for path in melodies]
    pairs = sharing([*melodies.values()])
    assert sum(one != other for one, other in pairs) > 500
    assert all(splits[one] == splits[other] for one, other in pairs)


def test_groups_are_those_of_melodies_and_works(pieces):
    assert [piece.path for piece in candidates()] == list(read_groups()) == list(pieces)
    first = {}
    works = {
        (first.setdefault(piece.work, place), place)
        for place, piece in enumerate(pieces.values())
    }
    pairs = works | sharing([*read_melodies().values()])
    groups = grouped(list(pieces), pairs)
    assert dict(zip(pieces, groups, strict=True)) == read_groups()


def test_melodies_are_those_of_the_scores(pieces):
    """Of every hundredth piece, and of one with a descant above the soprano."""
    melodies = read_melodies()
    for path in [*list(pieces)[::100], "bach/bwv161.6.mxl"]:
        assert melody_of(pieces[path]) == melodies[path], path


def test_melodies_are_known_in_other_keys_and_with_passing_notes():
    """O Haupt voll Blut und Wunden, of which the first has a passing note more."""
    melodies = read_melodies()
    names = ["244.62", "244.54", "161.6", "153.5", "227.7"]
    lines = [melodies[f"bach/bwv{name}.mxl"] for name in names]
    assert lines[0] != lines[1]
    groups = grouped(names, sharing(lines))
    assert len(set(groups[:4])) == 1 and groups[4] == "227.7"


def test_tunes_that_share_a_strain_share_a_melody():
    """The second strain of both is the same, the first one is not."""
    melodies = read_melodies()
    names = ["HiberniasPrideReel", "NewPolicemansReel", "SoldiersJoy"]
    lines = [melodies[f"ryansMammoth/{name}.abc"] for name in names]
    assert len(set(grouped(names, sharing(lines)))) == 2
    opening = [line._replace(notes=line.notes[:60]) for line in lines]
    assert len(set(grouped(names, sharing(opening)))) == 3


def test_groups_are_split_55_15_30():
    counts = collections.Counter(split_of(f"group{i}") for i in range(5000))
    assert counts["train"] == pytest.approx(2750, abs=120)
    assert counts["valid"] == pytest.approx(750, abs=80)
    assert counts["test"] == pytest.approx(1500, abs=100)


@pytest.mark.parametrize("name", COLLECTIONS)
def test_every_split_has_pieces_of_every_collection(name):
    counts = collections.Counter(piece.split for piece in find_pieces([name]))
    assert min(counts[split] for split in SPLITS) >= 10


def test_collections_are_chosen_by_name(pieces):
    chosen = {name: find_pieces([name]) for name in COLLECTIONS}
    assert [len(found) > 40 for found in chosen.values()] == [True] * 3
    assert {p.path for found in chosen.values() for p in found} == set(pieces)
    tunes = chosen["fiddle tunes"]
    assert len(tunes) > 1000
    assert len({piece.work for piece in tunes}) == len(tunes)
    assert {piece.composer for piece in tunes} == {"Anonymous"}
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
