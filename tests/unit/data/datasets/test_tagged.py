"""What all data sets share: annotation files, audio that is missing or broken, tags."""

import json

import pytest

from muq_plugins.data.datasets.tagged import (
    TaggedClip,
    read_tag_order,
    read_text,
    write_manifests,
)
from muq_plugins.data.manifest import load_manifest
from muq_plugins.errors import UserError

CLIPS = [
    TaggedClip("a/one.wav", "train", ["calm"], {"song": "{1}"}),
    TaggedClip("a/two.wav", "test", ["calm", "loud"]),
    TaggedClip("b/two.wav", "test", []),
]


TAGS = ["loud", "calm"]


def test_manifests_are_read_by_our_own_reader(sounds, tmp_path):
    audio = sounds("a/one.wav", "a/two.wav", "b/two.wav")
    data = write_manifests(
        "mine", tmp_path / "out", audio, CLIPS, TAGS, parts=["train", "test"]
    )
    train = load_manifest(data.manifests["train"], audio)
    assert train["a__one"]["tags"] == ["calm"]
    assert train["a__one"]["song"] == "{1}"
    assert train["a__one"]["wav"] == f"{audio}/a/one.wav"
    assert train["a__one"]["duration"] == 0.5
    test = load_manifest(data.manifests["test"], audio)
    assert list(test) == ["a__two", "b__two"]
    assert test["b__two"]["tags"] == []
    assert read_tag_order(tmp_path / "out" / "mine") == TAGS == data.tags
    assert data.left_out == []


def test_a_missing_file_is_an_error_that_says_what_to_do(sounds, tmp_path):
    audio = sounds("a/one.wav", "a/two.wav")
    with pytest.raises(UserError, match="1 of 2 clips .* first is b/two.wav"):
        write_manifests("mine", tmp_path, audio, CLIPS, TAGS, parts=["test"])
    data = write_manifests(
        "mine", tmp_path, audio, CLIPS, TAGS, parts=["test"], leave_out_missing=True
    )
    assert list(load_manifest(data.manifests["test"], audio)) == ["a__two"]
    listed = json.loads(
        (tmp_path / "mine" / "left_out.json").read_text(encoding="utf-8")
    )
    assert listed == data.left_out
    assert [(one["path"], one["reason"]) for one in listed] == [
        ("b/two.wav", "missing")
    ]


@pytest.mark.parametrize("content", [b"", b"not audio"])
def test_only_known_broken_files_are_left_out(sounds, tmp_path, content):
    audio = sounds("a/one.wav", "a/two.wav", "b/two.wav")
    (audio / "b/two.wav").write_bytes(content)
    with pytest.raises(UserError, match="b/two.wav: .* No such fault"):
        write_manifests("mine", tmp_path, audio, CLIPS, TAGS, parts=["test"])
    data = write_manifests(
        "mine",
        tmp_path,
        audio,
        CLIPS,
        TAGS,
        known_unreadable=["b/two.wav"],
        parts=["test"],
    )
    assert [one["path"] for one in data.left_out] == ["b/two.wav"]
    (audio / "b/two.wav").unlink()  # many remove it
    data = write_manifests(
        "mine",
        tmp_path,
        audio,
        CLIPS,
        TAGS,
        known_unreadable=["b/two.wav"],
        parts=["test"],
    )
    assert [one["reason"] for one in data.left_out] == ["missing"]


@pytest.mark.parametrize(
    ("clips", "tags", "options", "message"),
    [
        (CLIPS, ["calm"], {}, "a/two.wav has the tag 'loud'"),
        (CLIPS, ["calm", "loud", "calm"], {}, "'calm' comes twice"),
        (
            [*CLIPS, TaggedClip("a/one.wav", "test", [])],
            TAGS,
            {},
            "a/one.wav is listed in train and in test",
        ),
        (CLIPS, TAGS, {"parts": ["dev"]}, "parts must be some of train"),
        (CLIPS, TAGS, {"parts": ["valid"]}, "No clip of the part 'valid'"),
    ],
)
def test_what_no_data_set_may_have(sounds, tmp_path, clips, tags, options, message):
    audio = sounds("a/one.wav", "a/two.wav", "b/two.wav")
    with pytest.raises(UserError, match=message):
        write_manifests("mine", tmp_path, audio, clips, tags, **options)


def test_a_missing_folder_of_audio(tmp_path):
    with pytest.raises(UserError, match="gone, does not exist. Give the folder"):
        write_manifests("mine", tmp_path, tmp_path / "gone", CLIPS, TAGS)


def test_a_mark_of_utf_8_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffclip".encode())
    assert read_text(tmp_path / "a.csv", "the web") == "clip"


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="a.csv does not exist. Get it from the web"):
        read_text(tmp_path / "a.csv", "the web")


def test_annotations_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.csv is no text .* from the web"):
        read_text(tmp_path / "a.csv", "the web")
