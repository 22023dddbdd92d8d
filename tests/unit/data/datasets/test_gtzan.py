"""GTZAN in its published layout, made by the test."""

import pytest

from muq_plugins.data.datasets.gtzan import GENRES, gtzan_genre
from muq_plugins.errors import UserError
from tests.unit.data.datasets.conftest import spoil

PARTS = {
    "train": "blues/blues.00029.wav\njazz/jazz.00054.wav\n",
    "valid": "rock/rock.00000.wav\n",
    "test": "hiphop/hiphop.00001.wav\nblues/blues.00012.wav\n",
}


@pytest.fixture
def folder(tmp_path, sounds):
    """Its lists, and `sounds` writes its audio."""
    for part, text in PARTS.items():
        (tmp_path / f"{part}_filtered.txt").write_text(text, encoding="utf-8")
    sounds("blues/blues.00029.au").rename(tmp_path / "genres")
    return tmp_path


def test_every_part_has_its_genres(folder):
    data = gtzan_genre(folder)
    assert [(clip.path, clip.part, clip.tags) for clip in data.clips] == [
        ("blues/blues.00029.wav", "train", ["blues"]),
        ("jazz/jazz.00054.wav", "train", ["jazz"]),
        ("rock/rock.00000.wav", "valid", ["rock"]),
        ("hiphop/hiphop.00001.wav", "test", ["hiphop"]),
        ("blues/blues.00012.wav", "test", ["blues"]),
    ]
    assert data.clips[-1].labels == {"genre": "blues"}
    assert data.classes == sorted(GENRES)


def test_the_old_format_and_the_known_broken_file(folder):
    (folder / "genres/jazz").mkdir()
    (folder / "genres/jazz/jazz.00054.wav").write_bytes(b"broken")
    with pytest.raises(UserError, match="3 of 5 recordings are missing: rock/rock"):
        gtzan_genre(folder).found()
    found, left_out = gtzan_genre(folder).found(leave_out_missing=True)
    assert [path for _, path, _ in found] == [folder / "genres/blues/blues.00029.au"]
    assert left_out[0]["path"] == "jazz/jazz.00054.wav"
    assert [one["reason"] == "missing" for one in left_out] == [False, *[True] * 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"\npolka/polka.00001.wav\n", ", line 2: 'polka/polka"),
        (None, " does not exist. Get it"),
    ],
)
def test_damaged_lists(folder, change, message):
    spoil(folder / "valid_filtered.txt", change)
    with pytest.raises(UserError, match=f"valid_filtered.txt{message}"):
        gtzan_genre(folder)
