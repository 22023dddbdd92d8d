"""Searching from the command line: texts, examples, and what cannot be searched."""

import json
import os
import shutil
from pathlib import Path

import pytest
import soundfile

from muq_plugins import MuQ
from muq_plugins.inference.cli.main import main
from tests.unit.inference.tones import make_model, use_tones, write_tone
from tests.unit.meter import needs_meter
from tests.unit.processor import needs_int8


@pytest.fixture
def music(tmp_path, monkeypatch):
    """An indexed folder: rows of pitches."""
    use_tones(monkeypatch)
    for name, pitch in (("a", 220), ("b", 440), ("c", 880)):
        write_tone(tmp_path / "music" / f"{name}.wav", pitch)
    return tmp_path / "music"


@pytest.fixture
def index(music, tmp_path):
    model, index = make_model(tmp_path / "model"), str(tmp_path / "index")
    assert main(["index", str(music), "--model", model, "--out", index]) == 0
    return index


def rows(capsys, *arguments):
    capsys.readouterr()
    assert main(["search", *map(str, arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["matches"]
    return [row["path"].rpartition("/")[2] for row in found]


def message(capsys, *arguments):
    capsys.readouterr()
    assert main(["search", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_text(index, music, capsys):
    assert rows(capsys, "440 Hz", "--index", index)[0] == "b.wav"
    assert rows(capsys, "880 Hz", "--index", index, "--top", 1) == ["c.wav"]
    assert main(["search", "440 Hz", "--index", index]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "score", "path"]
    rank, score, path = lines[1].split()
    assert (rank, path) == ("1", str(music / "b.wav")) and 0.5 < float(score) <= 1


@pytest.mark.parametrize("text", ["440 " * 2500, "🎻 440 🎻", "很慢的 440 медленно"])
def test_long_and_mixed_texts(index, capsys, text):
    assert rows(capsys, text, "--index", index)[0] == "b.wav"


def test_an_example(index, music, tmp_path, capsys):
    new = write_tone(tmp_path / "new.flac", 441)
    assert rows(capsys, "--audio", new, "--index", index)[0] == "b.wav"
    # An indexed file is not its own answer, and needs no model.
    shutil.rmtree(tmp_path / "model")
    assert set(rows(capsys, "--audio", music / "b.wav", "--index", index)) == {
        "a.wav",
        "c.wav",
    }


def test_an_example_that_is_indexed_as_a_link(music, tmp_path, monkeypatch, capsys):
    """Links to a file and to a folder; the index holds where they are, not to what."""
    for name, pitch in (("file", 220), ("folder/inside", 441)):
        write_tone(tmp_path / "elsewhere" / f"{name}.wav", pitch)
    (music / "link.wav").symlink_to(tmp_path / "elsewhere" / "file.wav")
    (music / "links").symlink_to(tmp_path / "elsewhere" / "folder")
    (tmp_path / "way").symlink_to(music)
    model, index = make_model(tmp_path / "model"), str(tmp_path / "index")
    assert main(["index", str(music), "--model", model, "--out", index]) == 0
    shutil.rmtree(model)  # an indexed example needs none
    monkeypatch.chdir(music)
    for example in ("link.wav", music / "link.wav", tmp_path / "way" / "link.wav"):
        found = rows(capsys, "--audio", example, "--index", index)
        assert sorted(found) == ["a.wav", "b.wav", "c.wav", "inside.wav"]
    for example in ("links/inside.wav", tmp_path / "way" / "links" / "inside.wav"):
        found = rows(capsys, "--audio", example, "--index", index)
        assert sorted(found) == ["a.wav", "b.wav", "c.wav", "link.wav"]


def test_an_example_behind_a_link_and_back(index, music, tmp_path, capsys):
    """After a link, .. is not the folder of the link: a.wav is another file here."""
    (tmp_path / "elsewhere" / "folder").mkdir(parents=True)
    write_tone(tmp_path / "elsewhere" / "a.wav", 880)
    (music / "links").symlink_to(tmp_path / "elsewhere" / "folder")
    example = music / "links" / ".." / "a.wav"
    assert rows(capsys, "--audio", example, "--index", index)[0] == "c.wav"


def test_an_indexed_file_that_has_changed_since(index, music, capsys):
    write_tone(music / "a.wav", 880, seconds=0.5)
    assert rows(capsys, "--audio", music / "a.wav", "--index", index)[0] == "c.wav"


def test_files_that_are_not_what_was_indexed_are_marked(index, music, capsys):
    (music / "b.wav").unlink()
    write_tone(music / "c.wav", 110, seconds=0.5)
    capsys.readouterr()
    assert main(["search", "440 Hz", "--index", index]) == 0
    out, err = capsys.readouterr()
    marked = {line.split()[2].rpartition("/")[2] for line in out.splitlines()[1:]}
    stale = [line for line in out.splitlines() if line.endswith("  (changed or gone)")]
    assert len(marked) == 3 and len(stale) == 2 and not any("a.wav" in x for x in stale)
    assert "Of these, 2 files changed or went" in err and "`muq-plugins index`" in err
    assert main(["search", "440 Hz", "--index", index, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["matches"]
    assert {row["path"][-5:]: row["current"] for row in found} == {
        "a.wav": True,
        "b.wav": False,
        "c.wav": False,
    }
    write_tone(music / "c.wav", 110)
    assert main(["index", str(music), "--out", index]) == 0
    capsys.readouterr()
    assert main(["search", "440 Hz", "--index", index]) == 0
    out, err = capsys.readouterr()
    assert "gone" not in out + err


def test_paths_are_those_of_the_disk_for_programs(index, music, capsys):
    """Also where a person is shown one name for two files."""
    names = [os.fsdecode(b"bad\xfe.wav"), os.fsdecode(b"bad\xff.wav")]
    for name in names:
        shutil.copy(music / "b.wav", music / name)
    assert main(["index", str(music), "--out", index]) == 0
    assert rows(capsys, "440", "--index", index, "--top", 3) == ["b.wav", *names]


def test_no_matches(index, music, capsys):
    capsys.readouterr()
    assert main(["search", "440", "--index", index, "--min-score", "1.1"]) == 0
    assert "No matches: none of the 3 files has a score of 1.1 or more." in (
        capsys.readouterr().out
    )
    assert rows(capsys, "440", "--index", index, "--min-score", 1.1) == []
    assert rows(capsys, "440", "--index", index, "--min-score", 0.7) == ["b.wav"]


def test_the_only_file(index, music, tmp_path, capsys):
    for name in "ab":
        (music / f"{name}.wav").unlink()
    model = str(tmp_path / "model")
    assert main(["index", str(music), "--model", model, "--out", index]) == 0
    capsys.readouterr()
    assert main(["search", "--audio", str(music / "c.wav"), "--index", index]) == 0
    assert "the example is the only file of the index" in capsys.readouterr().out


def test_the_model_has_moved(index, tmp_path, capsys):
    (tmp_path / "model").rename(tmp_path / "moved")
    assert "somewhere else now, give --model" in message(
        capsys, "440", "--index", index
    )
    moved = ["--index", index, "--model", tmp_path / "moved"]
    assert rows(capsys, "440", *moved)[0] == "b.wav"


def test_mistakes_are_explained(index, tmp_path, capsys):
    at = ["--index", index]
    for query in ("", " \n"):
        assert "The query is empty: describe" in message(capsys, query, *at)
    assert "Give one query" in message(capsys, *at)
    assert "Give one query" in message(capsys, "440", "--audio", "a.wav", *at)
    assert "--min-score nan: give" in message(capsys, "440", *at, "--min-score", "nan")
    other = make_model(tmp_path / "other", "0ff0")
    assert "70e5 there, 0ff0 here" in message(capsys, "440", *at, "--model", other)
    missing = message(capsys, "--audio", tmp_path / "new.wav", *at)
    assert "new.wav: missing" in missing
    nowhere = message(capsys, "440", "--index", tmp_path / "nowhere")
    assert "is not an index of music" in nowhere


def test_an_index_without_files(tmp_path, monkeypatch, capsys):
    use_tones(monkeypatch)
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "bad.wav").write_text("no audio")
    model, index = make_model(tmp_path / "model"), str(tmp_path / "index")
    command = ["index", str(tmp_path / "music"), "--model", model, "--out", index]
    assert main(command) == 1
    assert "holds no files (1 could not be read): there is nothing to find" in (
        message(capsys, "440", "--index", index)
    )


def test_a_damaged_index(index, tmp_path, capsys):
    (tmp_path / "index" / "music.sqlite").write_bytes(b"x" * 5000)
    assert "music.sqlite is damaged" in message(capsys, "440", "--index", index)


@pytest.fixture
def timbre(model_folder, music, tmp_path):
    """An index of an encoder, which knows no words."""
    index = str(tmp_path / "timbre")
    options = ["--model", model_folder, "--layer", "-2", "--out", index]
    assert main(["index", str(music), *options]) == 0
    return index


def test_an_example_in_an_index_of_an_encoder(timbre, music, tmp_path, capsys):
    copy = tmp_path / "copy.wav"
    shutil.copy(music / "b.wav", copy)
    assert rows(capsys, "--audio", copy, "--index", timbre)[0] == "b.wav"
    found = rows(capsys, "--audio", music / "b.wav", "--index", timbre)
    assert sorted(found) == ["a.wav", "c.wav"]
    words = message(capsys, "calm solo cello", "--index", timbre)
    assert "holds layer 1 of" in words and "--audio FILE" in words


def test_an_index_of_an_encoder_keeps_its_layer(timbre, music, model_folder, capsys):
    write_tone(music / "d.wav", 660)
    command = ["index", str(music), "--out", timbre]
    assert main(command) == 0  # its model and layer
    assert "1 new" in capsys.readouterr().err
    before = sorted(Path(timbre).iterdir())
    write_tone(music / "e.wav", 990)
    assert main([*command, "--layer", "2"]) == 2
    assert "layers 1 there, 2 here): give --layer 1," in capsys.readouterr().err
    assert main([*command, "--layer", "3"]) == 2
    assert "has 3 hidden states" in capsys.readouterr().err
    assert sorted(Path(timbre).iterdir()) == before


@needs_meter
def test_an_index_keeps_its_loudness(music, model_folder, tmp_path, capsys):
    index = str(tmp_path / "even")
    command = ["index", str(music), "--out", index]
    assert main([*command, "--model", model_folder, "--loudness", "-20"]) == 0
    write_tone(music / "d.wav", 660, seconds=1)
    assert main(command) == 0
    space = MuQ.from_pretrained(model_folder).space(loudness=-20.0).name
    assert f"3 unchanged. Now 4 files in the space {space}." in capsys.readouterr().err
    wav, rate = soundfile.read(music / "d.wav")
    soundfile.write(tmp_path / "quiet.wav", wav / 20, rate, "FLOAT")
    query = ["search", "--audio", str(tmp_path / "quiet.wav"), "--index", index]
    assert main([*query, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["space"] == space
    best = found["matches"][0]
    assert best["path"] == str(music / "d.wav")
    assert best["score"] == pytest.approx(1, abs=1e-5)


@needs_int8
def test_an_index_keeps_its_precision(music, model_folder, tmp_path, capsys):
    index = str(tmp_path / "fast")
    command = ["index", str(music), "--out", index, "--device", "cpu"]
    assert main([*command, "--model", model_folder, "--dtype", "int8"]) == 0
    write_tone(music / "d.wav", 660)
    assert main(command) == 0
    space = MuQ.from_pretrained(model_folder, "cpu").int8().space().name
    assert f"3 unchanged. Now 4 files in the space {space}." in capsys.readouterr().err
    assert main([*command, "--dtype", "float32"]) == 2
    words = "precision int8 there, float here): give --dtype int8, or make a new one"
    assert words in capsys.readouterr().err
    shutil.copy(music / "d.wav", tmp_path / "same.wav")
    query = ["search", "--audio", str(tmp_path / "same.wav"), "--index", index]
    assert main([*query, "--device", "cpu", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["matches"][0]
    assert best["path"] == str(music / "d.wav")
    assert best["score"] == pytest.approx(1, abs=1e-5)


def test_pruned_and_exported(index, music, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    (music / "a.wav").unlink()
    table = str(tmp_path / "music.parquet")
    assert main(["index", "--out", index, "--prune", "--export", f"{table}.csv"]) == 2
    assert "a table ends in .parquet" in capsys.readouterr().err
    assert main(["index", "--out", index, "--prune", "--export", table]) == 0
    words = capsys.readouterr().err
    assert f"  {music / 'a.wav'}\n{index}: 1 file taken out." in words
    assert f"{table}: 2 files." in words
    paths = parquet.read_table(table)["path"].to_pylist()
    assert paths == [str(music / "b.wav"), str(music / "c.wav")]


def test_what_the_model_was_trained_on_is_said(index, capsys):
    assert main(["search", "440 Hz", "--index", index]) == 0
    assert "The model was trained on: pure tones." in capsys.readouterr().err
    assert main(["search", "440 Hz", "--index", index, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trained_on"] == "pure tones"
    assert found["stands_out"] is None  # of three files nobody can tell


def test_that_nothing_stands_out_is_said(music, index, tmp_path, capsys):
    for number in range(9):
        write_tone(music / f"{number}.wav", 110)
    assert main(["index", str(music), "--out", index]) == 0
    for text, said in (("880 Hz", False), ("no pitch", True)):
        capsys.readouterr()
        assert main(["search", text, "--index", index]) == 0
        assert ("Nothing stands out" in capsys.readouterr().err) == said
