"""MTG-Jamendo in its published layout, made by the test."""

import pytest

from muq_plugins.data.datasets.mtg_jamendo import COLUMNS, mtg_jamendo
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


def read(splits, **options):
    return mtg_jamendo(splits.parent, **{"tag_set": "genre", "split": 3, **options})


def test_songs_with_all_their_tags(splits, sounds):
    (sounds(*AUDIO) / "00").mkdir()  # which tells where the audio is
    data = read(splits)
    found, _ = data.found()
    assert [clip.part for clip, *_ in found] == ["train", "train", "valid", "test"]
    assert found[0][0].tags == ["genre---rock"]
    clip, path, info = found[1]
    assert clip.tags == ["genre---pop", "genre---rock"]
    assert clip.labels["artist"] == "artist_000014"
    # The small edition has other names; durations are those of the files.
    assert path == splits.parent / "audio/15/215.low.mp3"
    assert info.duration == pytest.approx(0.5, abs=0.1)
    # Results of splits, as of sets of tags, are not to be compared.
    assert data.name == "MTG-Jamendo genre, split 3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tag_set": "mood"}, "tag_set must be 'top50' or .* got 'mood'"),
        ({"split": 5}, "split must be 0 or .* or 4, got 5"),
        ({"split": 0}, r"split-0/autotagging_genre-train.tsv does not exist"),
    ],
)
def test_unknown_choices(splits, options, message):
    with pytest.raises(UserError, match=message):
        read(splits, **options)


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
def test_damaged_annotations(splits, change, message):
    spoil(splits / "split-3" / "autotagging_genre-test.tsv", change)
    with pytest.raises(UserError, match=f"genre-test.tsv.*{message}.*Get it again"):
        read(splits)
