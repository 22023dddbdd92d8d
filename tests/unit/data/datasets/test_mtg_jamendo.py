"""MTG-Jamendo in its published layout, made by the test."""

import pytest

from muq_plugins.data.datasets import prepare_mtg_jamendo
from muq_plugins.data.datasets.mtg_jamendo import COLUMNS
from muq_plugins.data.manifest import load_manifest
from muq_plugins.errors import UserError
from tests.unit.data.datasets.conftest import spoil

HEADER = "\t".join(COLUMNS)
SONGS = {
    "train": [
        "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---rock",
        "track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tgenre---pop"
        "\tgenre---rock",
    ],
    "validation": [
        "track_0000382\tartist_000020\talbum_000046\t82/382.mp3\t211.1\tgenre---folk"
    ],
    "test": [
        "track_0000948\tartist_000087\talbum_000149\t48/948.mp3\t212.7\tgenre---pop"
    ],
}
AUDIO = ["14/214.mp3", "15/215.low.mp3", "82/382.mp3", "48/948.mp3"]


@pytest.fixture
def splits(tmp_path):
    folder = tmp_path / "splits" / "split-3"
    folder.mkdir(parents=True)
    for part, lines in SONGS.items():
        text = "\n".join([HEADER, *lines]) + "\n"
        (folder / f"autotagging_genre-{part}.tsv").write_text(text, encoding="utf-8")
    return folder.parent


def prepare(splits, audio, **options):
    settings = {"tag_set": "genre", "split": 3, **options}
    return prepare_mtg_jamendo(splits, audio, splits.parent / "out", **settings)


def test_songs_with_all_their_tags(splits, sounds):
    data = prepare(splits, sounds(*AUDIO))
    train = load_manifest(data.manifests["train"], data.audio_folder)
    assert train["14__214"]["tags"] == ["genre---rock"]
    assert train["15__215"]["tags"] == ["genre---pop", "genre---rock"]
    assert train["15__215"]["artist"] == "artist_000014"
    # The small edition has other names; durations are those of the files.
    assert train["15__215"]["wav"].endswith("15/215.low.mp3")
    assert train["15__215"]["duration"] == pytest.approx(0.5, abs=0.1)
    assert list(load_manifest(data.manifests["valid"], "")) == ["82__382"]
    assert list(load_manifest(data.manifests["test"], "")) == ["48__948"]


def test_splits_have_folders_of_their_own(splits, sounds):
    data = prepare(splits, sounds(*AUDIO))
    names = {path.parent.name for path in data.manifests.values()}
    assert names == {"mtg-jamendo-genre-split-3"}


def test_the_order_of_the_tags_is_chosen_and_kept(splits, sounds):
    audio = sounds(*AUDIO)
    assert prepare(splits, audio).tags == [
        "genre---folk",
        "genre---pop",
        "genre---rock",
    ]
    first = prepare(splits, audio, tag_order="first appearance")
    assert first.tags == ["genre---rock", "genre---pop", "genre---folk"]
    # Those of all parts, also if one alone is written.
    test = prepare(splits, audio, parts=["test"])
    assert test.tags == prepare(splits, audio).tags


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tag_set": "mood"}, "tag_set must be 'top50' or .* got 'mood'"),
        ({"split": 5}, "split must be 0 or .* or 4, got 5"),
        ({"tag_order": "random"}, "tag_order must be 'sorted' or"),
        ({"split": 0}, r"split-0/autotagging_genre-train.tsv does not exist"),
    ],
)
def test_unknown_choices(splits, sounds, options, message):
    with pytest.raises(UserError, match=message):
        prepare(splits, sounds(*AUDIO), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("genre---pop", "instrument---oboe"),
            "line 2: the tag 'instrument---oboe'",
        ),
        (("\tgenre---pop", ""), "line 2: the tag '' does not start with genre"),
        (("\t", ","), "it must start with the columns TRACK_ID"),
        (b"", "it must start with the columns TRACK_ID"),
    ],
)
def test_damaged_annotations(splits, sounds, change, message):
    spoil(splits / "split-3" / "autotagging_genre-test.tsv", change)
    with pytest.raises(UserError, match=f"genre-test.tsv.*{message}.*Get it again"):
        prepare(splits, sounds(*AUDIO))
