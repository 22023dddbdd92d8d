"""What all data sets share: annotation files, audio that is missing or broken."""

import pytest

from muq_plugins.data.datasets.tagged import Labelled, TaggedClip, read_text
from muq_plugins.errors import UserError

CLIPS = [
    TaggedClip("a/one.wav", "train", ["calm"]),
    TaggedClip("a/two.wav", "test", ["calm", "loud"]),
    TaggedClip("b/two.wav", "test", []),
]


def data(audio, clips=CLIPS, **options):
    return Labelled("mine", audio, clips, ["loud", "calm"], **options)


@pytest.fixture
def audio(sounds):
    return sounds("a/one.wav", "a/two.wav", "b/two.wav")


def test_files_are_found_with_their_headers(audio):
    found, left_out = data(audio).found()
    assert [(clip, path) for clip, path, _ in found] == [
        (clip, audio / clip.path) for clip in CLIPS
    ]
    assert {info.duration for *_, info in found} == {0.5} and left_out == []


def test_a_missing_file_is_an_error_that_says_what_to_do(audio):
    (audio / "b/two.wav").unlink()
    words = "1 of 3 recordings are missing: b/two.wav .* Set leave_out_missing"
    with pytest.raises(UserError, match=words):
        data(audio).found()
    found, (missing,) = data(audio).found(leave_out_missing=True)
    assert [clip for clip, *_ in found] == CLIPS[:2]
    assert (missing["path"], missing["reason"]) == ("b/two.wav", "missing")
    with pytest.raises(UserError, match="no folder .*gone: give the folder"):
        data(audio / "gone").found(leave_out_missing=True)


def test_an_error_names_no_more_missing_files_than_one_can_read(audio):
    many = [TaggedClip(f"{number}.wav", "test", []) for number in range(25)]
    with pytest.raises(UserError, match=r"25 of 25 .*, 19.wav and 5 more \(in"):
        data(audio, many).found()


@pytest.mark.parametrize("content", [b"", b"not audio"])
def test_only_known_broken_files_are_left_out(audio, content):
    (audio / "b/two.wav").write_bytes(content)
    with pytest.raises(UserError, match="b/two.wav: .* No such fault"):
        data(audio).found(leave_out_missing=True)
    known = data(audio, known_unreadable=["b/two.wav"])
    assert [one["path"] for one in known.found()[1]] == ["b/two.wav"]
    (audio / "b/two.wav").unlink()  # many remove it
    assert [one["reason"] for one in known.found()[1]] == ["missing"]


def test_a_recording_is_in_one_part_alone(audio):
    clips = [*CLIPS, TaggedClip("a/one.wav", "test", [])]
    with pytest.raises(UserError, match="a/one.wav is listed in train and in test"):
        data(audio, clips).found()


def test_annotations_are_text(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(UserError, match="a.csv does not exist. Get it from the web"):
        read_text(path, "the web")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.csv: it is no text .* Save it as UTF-8"):
        read_text(path, "the web")
    path.write_bytes("\ufeffclip".encode())
    assert read_text(path, "the web") == "clip", "the mark of UTF-8 is no text"
