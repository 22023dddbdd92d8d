"""Output files: the same content in every format, complete or not there."""

import os
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from muq_plugins.errors import UserError, refusal
from muq_plugins.inference.cli.outputs import (
    FORMATS,
    check_format,
    find_records,
    output_path,
    read_facts,
    write_record,
)
from tests.unit.inference.cli.records import read_record

FACTS = {"path": "a/é.wav", "duration": 1.5, "layers": [0, 2], "source": {"bytes": 3}}
ARRAYS = {
    "mean": {
        "layers": np.array([0, 2]),
        "embedding": np.arange(8, dtype=np.float32).reshape(2, 4),
    },
    "frames": {
        "layers": np.array([0, 2]),
        "embedding": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "times": np.array([0.0, 0.04, 0.08]),
    },
    "codes": {"codes": np.arange(12, dtype=np.int16).reshape(6, 2)},
}


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    """A file that is to be written, in every format."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / "deep" / f"a.wav.{request.param}"


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_record_comes_back(path, kind):
    write_record(path, FACTS, ARRAYS[kind])
    record = read_record(path)
    assert record.facts == read_facts(path) == FACTS
    assert record.arrays.keys() == ARRAYS[kind].keys()
    for name, array in ARRAYS[kind].items():
        assert record.arrays[name].dtype == array.dtype
        assert np.array_equal(record.arrays[name], array)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_arrays_may_have_any_layout_in_memory(path):
    array = np.arange(8, dtype=np.float32).reshape(4, 2).T
    arrays = {"layers": np.array([0, 2]), "embedding": array}
    write_record(path, FACTS, arrays)
    assert np.array_equal(read_record(path).arrays["embedding"], array)


def test_names_that_are_not_utf8_survive(path):
    facts = {**FACTS, "path": os.fsdecode(b"caf\xe9.wav")}
    write_record(path, facts, ARRAYS["codes"])
    assert read_facts(path) == facts


@pytest.mark.parametrize("name", ["長" * 83 + ".wav", "\udce9" * 251 + ".wav"])
def test_names_that_are_too_long_with_their_extension(tmp_path, name):
    """As long as a file system takes: 253 and 255 bytes."""
    (tmp_path / name).touch()
    path = output_path(tmp_path / "out", name, "npz")
    write_record(path, {**FACTS, "path": name}, ARRAYS["codes"])
    assert read_facts(path)["path"] == name
    assert output_path("out", name, "npz") != output_path("out", "x" + name[1:], "npz")
    assert output_path("out", "x" * 251, "npz").name == "x" * 251 + ".npz"


@pytest.mark.parametrize("length", [0, 10, -10])
def test_a_damaged_file_is_an_error(path, length):
    write_record(path, FACTS, ARRAYS["mean"])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"a\.wav\.\w+ is damaged"):
        read_facts(path)


def test_files_of_something_else_have_no_facts(tmp_path):
    np.savez(tmp_path / "a.npz", embedding=np.zeros(3))
    save_file({"embedding": np.zeros(3)}, tmp_path / "a.safetensors")
    assert [read_facts(file) for file in find_records(tmp_path)] == [{}, {}]


def test_an_interrupted_write_leaves_what_was_there(path, monkeypatch):
    write_record(path, FACTS, ARRAYS["mean"])
    monkeypatch.setattr("os.replace", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_record(path, {**FACTS, "duration": 2.0}, ARRAYS["codes"])
    assert read_facts(path) == FACTS
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        write_record(tmp_path / "file" / "a.npz", FACTS, ARRAYS["mean"])
    assert "file: File exists: something else has this name" in refusal(caught.value)


def test_a_missing_pyarrow_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        check_format("parquet")
    check_format("npz")


def test_a_folder_of_parquet_is_one_table(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.dataset

    for name in ("a", "b"):
        facts = {**FACTS, "path": f"{name}.wav"}
        write_record(tmp_path / f"{name}.parquet", facts, ARRAYS["frames"])
    table = pyarrow.dataset.dataset(tmp_path).to_table().to_pydict()
    assert list(table) == ["path", "layer", "time", "embedding"]
    assert table["path"] == ["a.wav"] * 6 + ["b.wav"] * 6
    assert table["layer"] == [0, 0, 0, 2, 2, 2] * 2
    assert table["time"][1:3] == [0.04, 0.08]
    assert table["embedding"][4] == [16.0, 17.0, 18.0, 19.0]
