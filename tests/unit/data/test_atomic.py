"""Files that several processes write at once."""

import multiprocessing

import pytest

from muq_plugins.data import atomic
from muq_plugins.data.atomic import replace_file, replace_model_folder


def write_often(path, letter):
    """Writes one file again and again."""
    for _ in range(100):
        replace_file(path, letter * 10000)


def test_writers_do_not_meet(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write_often, args=(tmp_path / "x", letter))
        for letter in (b"a", b"b")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert (tmp_path / "x").read_bytes() in (b"a" * 10000, b"b" * 10000)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    replace_file(tmp_path / "x", b"old")

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_model_takes_the_place_of_an_older_one_only(tmp_path):
    folder = tmp_path / "model"
    for number in (1, 2):
        with replace_model_folder(folder) as unfinished:
            (unfinished / "config.json").write_text(str(number))
            (unfinished / f"weights-{number}.safetensors").write_text("")
    assert (folder / "config.json").read_text() == "2"
    assert not (folder / "weights-1.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "kept",
    [["precious.jpg"], ["config.json", "save/checkpoint"], ["notes.json"]],
    ids=["photos", "a model and more", "no model"],
)
def test_what_is_no_model_is_never_lost(tmp_path, kept):
    for name in kept:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    with (
        pytest.raises(FileExistsError, match="mine holds more than a model"),
        replace_model_folder(tmp_path / "mine") as unfinished,
    ):
        (unfinished / "config.json").write_text("{}")
    for name in kept:
        assert (tmp_path / "mine" / name).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_place_for_a_model(tmp_path):
    (tmp_path / "file").write_text("precious")
    with (
        pytest.raises(FileExistsError, match="file is a file: give a folder"),
        replace_model_folder(tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "precious"


def test_an_older_model_stays_until_the_new_one_is_complete(tmp_path):
    with replace_model_folder(tmp_path / "model") as unfinished:
        (unfinished / "config.json").write_text("old")
    with (
        pytest.raises(OSError, match="disk full"),
        replace_model_folder(tmp_path / "model"),
    ):
        raise OSError("disk full")
    assert (tmp_path / "model" / "config.json").read_text() == "old"
