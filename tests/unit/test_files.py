"""Files that several processes write at once, the lock between them, and JSON."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from muq_plugins import files
from muq_plugins.errors import UserError
from muq_plugins.files import (
    append_json_line,
    atomic,
    atomic_folder,
    locked,
    open_json_lines,
    read_json,
    read_json_lines,
    replace_file,
    sweep,
    write_json,
)


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


def test_nothing_is_replaced_by_half_a_file(tmp_path):
    replace_file(tmp_path / "x", b"old")
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "x") as partial:
        partial.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    replace_file(tmp_path / "x", b"old")

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_model_takes_the_place_of_an_older_one_only(tmp_path):
    folder = tmp_path / "model"
    for number in (1, 2):
        with atomic_folder(folder) as unfinished:
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
        pytest.raises(UserError, match="mine holds more than a model"),
        atomic_folder(tmp_path / "mine") as unfinished,
    ):
        (unfinished / "config.json").write_text("{}")
    for name in kept:
        assert (tmp_path / "mine" / name).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_place_for_a_model(tmp_path):
    (tmp_path / "file").write_text("precious")
    with (
        pytest.raises(UserError, match="file is a file: give a folder"),
        atomic_folder(tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "precious"


def test_an_older_model_stays_until_the_new_one_is_complete(tmp_path):
    with atomic_folder(tmp_path / "model") as unfinished:
        (unfinished / "config.json").write_text("old")
    with (
        pytest.raises(OSError, match="disk full"),
        atomic_folder(tmp_path / "model"),
    ):
        raise OSError("disk full")
    assert (tmp_path / "model" / "config.json").read_text() == "old"


def write_model(folder, content):
    with atomic_folder(folder) as unfinished:
        (unfinished / "config.json").write_text(content)


def test_folders_beside_a_model_are_not_touched(tmp_path):
    for name in ("model.old", "model.unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    for content in "12":
        write_model(tmp_path / "model", content)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {
        *("model", "model.old", "model.unfinished", "model/config.json"),
        *("model.old/precious", "model.unfinished/precious"),
    }


def test_an_older_model_is_not_lost_between_two_renames(tmp_path, monkeypatch):
    write_model(tmp_path / "model", "old")
    rename, calls = os.rename, []

    def second_fails(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError("gone")
        rename(*paths)

    monkeypatch.setattr(files.os, "rename", second_fails)
    with pytest.raises(OSError, match="gone"):
        write_model(tmp_path / "model", "new")
    assert (tmp_path / "model" / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_to_a_model_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "model")
    for content in "12":
        write_model(tmp_path / "link", content)
    assert (tmp_path / "model" / "config.json").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_the_folder_that_this_runs_in_is_no_place_for_a_model(
    tmp_path, monkeypatch, folder
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is the folder that this runs in.*: give a"):
        write_model(folder, "")
    assert not list(tmp_path.iterdir())


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


KILLED = """
import os, sys
from muq_plugins.files import atomic
with atomic(sys.argv[1]) as partial:
    partial.write_bytes(b"x")
    os.kill(os.getpid(), 9)
"""


def test_only_what_a_killed_writer_has_left_is_swept(tmp_path):
    killed = "import os, sys; from muq_plugins.files import atomic\n"
    killed += (
        "with atomic(sys.argv[1]) as p: p.write_bytes(b'x'); os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", killed, tmp_path / "new"])
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    replace_file(tmp_path / "kept.partial", b"")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.partial"]


HOLDER = """
import sys, time
from muq_plugins.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_until_its_process_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with locked(tmp_path, wait=False) as alone:
            assert not alone
        with locked(tmp_path, ".other", wait=False) as alone:
            assert alone
        said = []
        threading.Timer(0.5, holder.kill).start()
        start = time.monotonic()
        with locked(tmp_path, say=said.append) as alone:
            assert alone and time.monotonic() - start > 0.4
    assert said == [f"Waiting for another process that works in {tmp_path} ..."]


def test_a_lock_keeps_threads_apart_and_ends_with_an_error(tmp_path):
    def look():
        with locked(tmp_path, wait=False) as alone:
            found.append(alone)

    found = []
    with pytest.raises(OSError, match="disk full"), locked(tmp_path):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        raise OSError("disk full")
    look()
    assert found == [False, True]


def test_where_there_can_be_no_lock_one_line_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file cannot be locked .*: choose a folder"),
        locked(tmp_path / "file"),
    ):
        pass


def test_the_package_can_be_imported_without_flock():
    code = "import sys; sys.modules['fcntl'] = None; import muq_plugins.files"
    code += "; from muq_plugins.data import labels, preparation, mel_statistics"
    code += "; from muq_plugins.experiment import runner, run_folder"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": os.fsdecode(b"caf\xe9")})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": os.fsdecode(b"caf\xe9")}


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged \(.*\): delete it\."):
        read_json(path, "delete it")


def test_lines_are_on_disk_while_the_file_is_open(tmp_path):
    with open_json_lines(tmp_path / "a.jsonl") as file:
        append_json_line(file, {"a": 1})
        assert read_json_lines(tmp_path / "a.jsonl") == [{"a": 1}]


def test_half_a_line_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    with open_json_lines(path) as file:
        append_json_line(file, {"a": 3})
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_no_file_no_lines(tmp_path):
    assert read_json_lines(tmp_path / "a.jsonl") == []


def test_what_is_written_follows_the_umask_whoever_writes_it(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic(tmp_path / "x.safetensors") as partial:
            save_file({"a": np.zeros(1)}, partial)
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o640
