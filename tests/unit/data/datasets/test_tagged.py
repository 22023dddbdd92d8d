"""What all data sets share: annotation files, audio that is missing or broken, tags."""

import json

import pytest

from muq_plugins.data.datasets.tagged import (
    Labelled,
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


def write(folder, audio, clips=CLIPS, tags=TAGS, parts=("test",), **options):
    return write_manifests("mine", folder, audio, clips, tags, parts=parts, **options)


@pytest.fixture
def audio(sounds):
    return sounds("a/one.wav", "a/two.wav", "b/two.wav")


def test_manifests_are_read_by_our_own_reader(audio, tmp_path):
    data = write(tmp_path / "out", audio, parts=["train", "test"])
    train = load_manifest(data.manifests["train"], audio)
    assert train["a__one"] == {
        "wav": f"{audio}/a/one.wav",
        "duration": 0.5,
        "sample_rate": 16000,
        "channels": 1,
        "tags": ["calm"],
        "song": "{1}",
    }
    test = load_manifest(data.manifests["test"], audio)
    assert {clip: entry["tags"] for clip, entry in test.items()} == {
        "a__two": ["calm", "loud"],
        "b__two": [],
    }
    assert read_tag_order(tmp_path / "out" / "mine") == TAGS == data.tags
    assert data.left_out == []


def test_a_missing_file_is_an_error_that_says_what_to_do(audio, tmp_path):
    (audio / "b/two.wav").unlink()
    with pytest.raises(UserError, match="1 of 2 clips .* first is b/two.wav"):
        write(tmp_path, audio)
    data = write(tmp_path, audio, leave_out_missing=True)
    assert list(load_manifest(data.manifests["test"], audio)) == ["a__two"]
    assert json.loads((tmp_path / "mine/left_out.json").read_text()) == data.left_out
    (missing,) = data.left_out
    assert (missing["path"], missing["reason"]) == ("b/two.wav", "missing")


@pytest.mark.parametrize("content", [b"", b"not audio"])
def test_only_known_broken_files_are_left_out(audio, tmp_path, content):
    (audio / "b/two.wav").write_bytes(content)
    with pytest.raises(UserError, match="b/two.wav: .* No such fault"):
        write(tmp_path, audio)
    data = write(tmp_path, audio, known_unreadable=["b/two.wav"])
    assert [one["path"] for one in data.left_out] == ["b/two.wav"]
    (audio / "b/two.wav").unlink()  # many remove it
    data = write(tmp_path, audio, known_unreadable=["b/two.wav"])
    assert [one["reason"] for one in data.left_out] == ["missing"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": ["calm"]}, "a/two.wav has the tag 'loud'"),
        ({"tags": ["calm", "loud", "calm"]}, "'calm' comes twice"),
        (
            {"clips": [*CLIPS, TaggedClip("a/one.wav", "test", [])]},
            "train and in test",
        ),
        ({"parts": ["dev"]}, "parts must be some of train"),
        ({"parts": ["valid"]}, "No clip of the part 'valid'"),
    ],
)
def test_what_no_data_set_may_have(audio, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path, audio, **{"parts": ["train", "test"], **changes})
    with pytest.raises(UserError, match="gone, does not exist. Give the folder"):
        write(tmp_path, tmp_path / "gone")


def test_a_recording_is_in_one_part_alone(audio):
    clips = [*CLIPS, TaggedClip("a/one.wav", "test", [])]
    with pytest.raises(UserError, match="a/one.wav is listed in train and in test"):
        Labelled("mine", audio, clips, TAGS).found()


def test_annotations_are_text(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(UserError, match="a.csv does not exist. Get it from the web"):
        read_text(path, "the web")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.csv: it is no text .* Save it as UTF-8"):
        read_text(path, "the web")
    path.write_bytes("\ufeffclip".encode())
    assert read_text(path, "the web") == "clip", "the mark of UTF-8 is no text"
