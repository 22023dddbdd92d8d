"""GTZAN in its published layout, made by the test."""

import pytest

from muq_plugins.data.datasets import prepare_gtzan
from muq_plugins.data.datasets.gtzan import GENRES
from muq_plugins.data.manifest import load_manifest
from muq_plugins.errors import UserError
from tests.unit.data.datasets.conftest import spoil

PARTS = {
    "train": "blues/blues.00029.wav\njazz/jazz.00054.wav\n",
    "valid": "rock/rock.00000.wav\n",
    "test": "hiphop/hiphop.00001.wav\nblues/blues.00012.wav\n",
}


@pytest.fixture
def split(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for part, text in PARTS.items():
        (folder / f"{part}_filtered.txt").write_text(text, encoding="utf-8")
    return folder


def test_every_part_has_its_genres(split, sounds, tmp_path):
    audio = sounds(*"".join(PARTS.values()).split())
    data = prepare_gtzan(split, audio, tmp_path / "out")
    found = {
        part: {clip: entry["tags"] for clip, entry in load_manifest(p, audio).items()}
        for part, p in data.manifests.items()
    }
    assert found == {
        "train": {"blues__blues.00029": ["blues"], "jazz__jazz.00054": ["jazz"]},
        "valid": {"rock__rock.00000": ["rock"]},
        "test": {"hiphop__hiphop.00001": ["hiphop"], "blues__blues.00012": ["blues"]},
    }
    assert data.tags == sorted(GENRES)
    test = load_manifest(data.manifests["test"], audio)
    assert test["blues__blues.00012"]["genre"] == "blues"


def test_the_old_format_and_the_known_broken_file(split, sounds, tmp_path):
    audio = sounds("blues/blues.00029.au", "jazz/jazz.00054.wav")
    (audio / "jazz/jazz.00054.wav").write_bytes(b"broken")
    data = prepare_gtzan(split, audio, tmp_path / "out", parts=["train"])
    train = load_manifest(data.manifests["train"], audio)
    assert [entry["wav"] for entry in train.values()] == [
        f"{audio}/blues/blues.00029.au"
    ]
    assert [one["path"] for one in data.left_out] == ["jazz/jazz.00054.wav"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"\npolka/polka.00001.wav\n", ", line 2: 'polka/polka"),
        (None, " does not exist. Get it"),
    ],
)
def test_damaged_lists(split, sounds, tmp_path, change, message):
    spoil(split / "valid_filtered.txt", change)
    with pytest.raises(UserError, match=f"valid_filtered.txt{message}"):
        prepare_gtzan(split, sounds("a.wav"), tmp_path / "out")
