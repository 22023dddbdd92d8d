"""Audio in columns, as `datasets` keeps it: bytes or paths in, vectors out."""

import os
import shutil

import numpy as np
import pytest

from muq_plugins import MuQ
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.cli.outputs import read_facts
from tests.unit.processor import needs_int8

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def tables(music, tmp_path):
    """A parquet file with bytes, and an arrow stream with paths; one row is bad."""
    files = [music / "a.wav", music / "deep" / "b.flac", music / "deep" / "c.wav"]
    audio = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    audio.append({"bytes": b"no audio", "path": "bad.wav"})
    table = pa.table({"audio": audio, "genre": ["x", "y", "z", "x"]})
    folder = tmp_path / "tables"
    folder.mkdir()
    pq.write_table(table, folder / "train.parquet")
    paths = pa.table({"audio": [{"bytes": None, "path": str(files[0])}], "n": [7]})
    with pa.ipc.new_stream(str(folder / "data-00000.arrow"), paths.schema) as writer:
        writer.write_table(paths)
    return folder, files


def test_vectors_take_the_place_of_the_audio(tables, model_folder, tmp_path, capsys):
    folder, files = tables
    command = ["embed", model_folder, str(folder), "--dataset", "audio", "--layer", "1"]
    command += ["--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "train.parquet, row 3: " in capsys.readouterr().err
    model = MuQ.from_pretrained(model_folder)
    found = pq.read_table(tmp_path / "out" / "train.parquet")
    assert found.column_names == ["genre", "embedding"]
    assert found["genre"].to_pylist() == ["x", "y", "z", "x"]
    *vectors, none = found["embedding"].to_pylist()
    assert none is None
    for file, vector in zip(files, vectors, strict=True):
        expected = model.embed_track(file, 1).numpy()
        assert np.abs(np.float32(vector) - expected).max() < 1e-6
    other = pq.read_table(tmp_path / "out" / "data-00000.parquet").to_pylist()
    assert other == [{"n": 7, "embedding": vectors[0]}]
    facts = read_facts(tmp_path / "out" / "train.parquet")
    assert facts["space"] == model.space(1).name
    assert main(command) == 1
    words = capsys.readouterr().err
    assert words.count("was there already") == 1 and "train.parquet, row 3: " in words
    assert pq.read_table(tmp_path / "out" / "train.parquet").equals(found)
    command[command.index("--layer") + 1] = "2"
    assert main(command) == 2
    assert "was made otherwise" in capsys.readouterr().err


def test_what_failed_is_tried_again_and_only_that(
    tables, model_folder, tmp_path, monkeypatch
):
    folder, (file, *_) = tables
    paths = [str(file), str(tmp_path / "late.wav")]
    pq.write_table(pa.table({"audio": paths}), folder / "train.parquet")
    command = ["embed", model_folder, str(folder / "train.parquet"), "--dataset"]
    command += ["audio", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    shutil.copy(file, tmp_path / "late.wav")
    heard, embed = [], MuQ.embed_track
    monkeypatch.setattr(
        MuQ, "embed_track", lambda *args: heard.append(args[1]) or embed(*args)
    )
    assert main(command) == main(command) == 0
    assert heard == paths[1:]
    first, second = pq.read_table(tmp_path / "out" / "train.parquet")["embedding"]
    assert first == second


def test_vectors_of_another_column_or_table_do_not_stay(
    tables, model_folder, tmp_path, capsys
):
    folder, (first, second, _) = tables
    table, out = folder / "paths.parquet", tmp_path / "out" / "paths.parquet"
    command = ["embed", model_folder, str(table), "--out", str(out.parent), "--dataset"]
    row = {"one": str(first), "two": str(second)}
    pq.write_table(pa.Table.from_pylist([row]), table)
    assert main([*command, "one"]) == 0
    assert main([*command, "two"]) == 2
    assert "was made otherwise" in capsys.readouterr().err
    pq.write_table(pa.Table.from_pylist([row] * 2), table)
    os.utime(table, (1, 1))  # another second
    assert main([*command, "one"]) == 0
    assert len(pq.read_table(out)) == 2
    other = shutil.copy(table, tmp_path / "paths.parquet")
    command[2] = str(other)
    assert main([*command, "one"]) == 2
    assert f"was made of {table}, and the output of" in capsys.readouterr().err
    table.unlink()
    os.utime(other, (1, 1))
    assert main([*command, "one"]) == 0
    assert f"{out}: was there already" in capsys.readouterr().err  # it has moved


def test_processes_write_a_share_of_the_tables_each(
    tables, model_folder, tmp_path, monkeypatch
):
    command = ["embed", model_folder, str(tables[0]), "--dataset", "audio"]
    command += ["--layer", "1", "--out", str(tmp_path / "out")]
    written = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in "021":
        monkeypatch.setenv("RANK", rank)
        assert main(command) == 0  # also where there is a bad row
        written.append(len(list((tmp_path / "out").glob("*.parquet"))))
    assert written == [1, 2, 2]


@needs_int8
def test_int8(tables, model_folder, tmp_path, capsys):
    """Its vectors are in a space of their own, and near."""
    folder, (file, *_) = tables
    command = ["embed", model_folder, str(folder / "data-00000.arrow"), "--dataset"]
    command += ["audio", "--out", str(tmp_path), "--dtype", "int8", "--device", "cpu"]
    assert main(command) == 0
    model = MuQ.from_pretrained(model_folder, "cpu")
    [row] = pq.read_table(tmp_path / "data-00000.parquet").to_pylist()
    difference = np.float32(row["embedding"]) - model.embed_track(file).numpy()
    assert 1e-4 < np.linalg.norm(difference) < 0.05
    facts = read_facts(tmp_path / "data-00000.parquet")
    assert facts["space"] == model.int8().space().name
    command[command.index("int8")] = "float32"
    assert main(command) == 2
    assert "was made otherwise" in capsys.readouterr().err


def test_what_is_no_column_or_table_is_refused(tables, model_folder, tmp_path, capsys):
    folder, files = tables
    rest = ["--out", str(tmp_path / "out")]
    for inputs, options, words in (
        (folder, ["--dataset", "sound"], "has no column sound, but audio, "),
        (
            folder / "data-00000.arrow",
            ["--dataset", "n"],
            "is int64, which is no audio",
        ),
        (files[0], ["--dataset", "audio"], "holds no tables"),
        (folder, ["--dataset", "audio", "--pool", "mean"], "leave --pool out"),
        (folder, ["--dataset", "audio", "--dtype", "bfloat16"], "float32 or int8"),
    ):
        assert main(["embed", model_folder, str(inputs), *options, *rest]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    before = (folder / "train.parquet").read_bytes()
    command = ["embed", model_folder, str(folder / "train.parquet"), "--overwrite"]
    assert main([*command, "--dataset", "audio", "--out", str(folder)]) == 2
    assert "or of the table itself" in capsys.readouterr().err
    assert (folder / "train.parquet").read_bytes() == before
