"""Which files a command finds, and where their outputs go."""

import os

import pytest

from muq_plugins.data.scan import Found
from muq_plugins.errors import UserError, shown
from muq_plugins.inference.cli.inputs import AudioInput, find_inputs


def names(*sources):
    inputs, problems = find_inputs([str(source) for source in sources])
    assert not problems
    assert all(os.path.isfile(found.path) for found in inputs)
    return sorted(found.name for found in inputs)


@pytest.fixture
def tree(tmp_path):
    for name in ("x/a.wav", "x/deep/b.FLAC", "x/cover.jpg", "x/.hidden.wav", "y/a.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_folders_keep_their_tree(tree):
    assert names(tree / "x") == ["a.wav", "deep/b.FLAC"]
    assert names(tree) == ["x/a.wav", "x/deep/b.FLAC", "y/a.wav"]


def test_files_are_taken_whatever_their_name(tree):
    assert names(tree / "x" / "cover.jpg") == ["cover.jpg"]


def test_patterns_keep_the_tree_below_their_fixed_part(tree):
    assert names(tree / "*" / "a.wav") == ["x/a.wav", "y/a.wav"]
    assert names(tree / "x" / "**" / "*.FLAC") == ["deep/b.FLAC"]
    assert names(tree / "x" / "**") == ["a.wav", "deep/b.FLAC"]
    assert names(tree / "x" / "*") == ["a.wav", "deep/b.FLAC"]


def test_patterns_may_be_relative(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert names("*/a.wav") == ["x/a.wav", "y/a.wav"]
    assert names("./x/*.wav") == ["a.wav"]


def test_a_name_with_brackets_is_a_name(tree):
    (tree / "song [live].wav").touch()
    assert names(tree / "song [live].wav") == ["song [live].wav"]


def test_a_pattern_in_a_folder_with_brackets(tree):
    """The folder is a folder, and only what follows it is a pattern."""
    (tree / "x").rename(tree / "live [2020]")
    assert names(tree / "live [2020]" / "*.wav") == ["a.wav"]
    assert names(tree / "live [2020]" / "**") == ["a.wav", "deep/b.FLAC"]


def test_a_pattern_follows_links_once(tree):
    """As folders do: a link to a folder above would be followed forty times."""
    (tree / "x" / "a-loop").symlink_to(tree)
    (tree / "z").symlink_to(tree / "y")
    assert names(tree / "**" / "*.wav") == ["x/a.wav", "y/a.wav"]
    assert names(tree / "x" / "*.wav") == names(tree / "x" / "[a]*.wav") == ["a.wav"]


def test_a_file_given_twice_is_one(tree):
    assert names(tree / "x", tree / "x" / "a.wav", tree / "x" / "*.wav") == [
        "a.wav",
        "deep/b.FLAC",
    ]


def test_two_files_with_one_output_are_refused(tree):
    with pytest.raises(UserError) as error:
        names(tree / "x" / "a.wav", tree / "y")
    assert str(tree / "x" / "a.wav") in str(error.value)
    assert str(tree / "y" / "a.wav") in str(error.value)
    assert "give the folder above both" in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("empty", "There are no audio files in .*empty: no name there ends in .wav"),
        ("x/*.jpg", "There are no audio files in"),
        ("none/*.wav", "There are no audio files in"),
    ],
)
def test_inputs_without_audio_are_refused(tree, source, message):
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        names(tree / source)


def test_a_folder_that_cannot_be_listed_is_a_problem(tree, monkeypatch):
    """Simulated, since root may list every folder."""
    found = Found(["a.wav"], [("deep", "Permission denied")], [], {})
    monkeypatch.setattr(
        "muq_plugins.inference.cli.inputs.find_audio", lambda top: found
    )
    inputs, problems = find_inputs([str(tree / "x")])
    assert [item.name for item in inputs] == ["a.wav"]
    assert "deep: cannot be listed (Permission denied)" in problems[0]


def test_sound_that_is_not_looked_for_is_a_problem(tree):
    """It must not vanish without a word."""
    film = tree / "x" / "deep" / "film.mp4"
    film.touch()
    for source in (tree / "x", tree / "x" / "**", tree / "x" / "*"):
        inputs, problems = find_inputs([str(source)])
        assert [item.name for item in inputs] == ["a.wav", "deep/b.FLAC"]
        assert problems[0].startswith(f"{film}: other format (.mp4 is not looked for")
        assert "Convert it" in problems[0]
    assert names(film) == ["film.mp4"]
    with pytest.raises(UserError, match="no audio files in (?s:.*)film.mp4: other"):
        find_inputs([str(tree / "x" / "**" / "*.mp4")])


def test_a_broken_link_is_left_to_the_command(tree):
    """Which says that it is missing."""
    (tree / "x" / "b.wav").symlink_to(tree / "nowhere.wav")
    inputs, problems = find_inputs([str(tree / "x")])
    assert "b.wav" in [item.name for item in inputs] and not problems


def test_names_that_are_not_utf8_can_be_shown():
    found = AudioInput(os.fsdecode(b"caf\xe9.wav"), "x")
    assert shown(found.path).encode("utf-8").endswith(b".wav")
