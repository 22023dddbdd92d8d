"""Zero-shot tags of files: tables, JSON, CSV, prompts, and lists with mistakes."""

import csv
import io
import json
import os

import pytest

from muq_plugins.inference.cli.main import main
from tests.unit.inference.tones import make_model, use_tones, write_tone


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Tags for two tones."""
    use_tones(monkeypatch)
    write_tone(tmp_path / "music" / "low.wav", 220)
    write_tone(tmp_path / "music" / "high.wav", 880)
    (tmp_path / "tags.txt").write_text("220 Hz\n440 Hz\n880 Hz\n220  hz\n")
    model = make_model(tmp_path / "model")
    tags = str(tmp_path / "tags.txt")
    return ["tag", str(tmp_path / "music"), "--tags", tags, "--model", model]


def test_table(command, tmp_path, capsys):
    assert main(command) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == str(tmp_path / "music" / "high.wav")
    assert [line.split()[1] for line in lines[1:4]] == ["880", "220", "440"]
    assert lines[4] == str(tmp_path / "music" / "low.wav")
    assert 'line 4, "220 hz", repeats line 1, "220 Hz": counted once.' in output.err
    assert main([*command, "--top", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_json_and_csv_hold_the_same(command, capsys):
    assert main([*command, "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert main([*command, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 6
    expected = [
        (file["path"], rank, tag["tag"], pytest.approx(tag["score"], abs=1e-6))
        for file in files
        for rank, tag in enumerate(file["tags"], start=1)
    ]
    found = [(r["path"], int(r["rank"]), r["tag"], float(r["score"])) for r in rows]
    assert found == expected
    assert main([*command, "--json", "--top", "1"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["tags"][0]["tag"] for file in files] == ["880 Hz", "220 Hz"]


def test_paths_are_those_of_the_disk_for_programs(command, tmp_path, capsysbinary):
    name = os.fsdecode(b"bad\xff.wav")
    (tmp_path / "music" / "low.wav").rename(tmp_path / "music" / name)
    (tmp_path / "music" / "high.wav").unlink()
    path = str(tmp_path / "music" / name)
    assert main([*command, "--json"]) == 0
    files = json.loads(capsysbinary.readouterr().out)["files"]
    assert [file["path"] for file in files] == [path]
    assert main([*command, "--csv"]) == 0
    assert os.fsencode(f"{path},1,220 Hz,") in capsysbinary.readouterr().out


def test_prompts_change_the_scores(command, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("{tag}\n440 and {tag}\n")
    assert main([*command, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["files"][0]["tags"][0]
    prompts = ["--prompts", str(tmp_path / "prompts.txt")]
    assert main([*command, *prompts, "--json"]) == 0
    averaged = json.loads(capsys.readouterr().out)["files"][0]["tags"][0]
    assert averaged["tag"] == alone["tag"] == "880 Hz"
    assert averaged["score"] < alone["score"] - 0.01


def test_bad_files_are_listed(command, tmp_path, capsys):
    (tmp_path / "music" / "bad.wav").write_text("no audio")
    os.mkfifo(tmp_path / "music" / "pipe.wav")  # to open it would wait for a writer
    assert main([*command, "--json"]) == 1
    output = capsys.readouterr()
    assert len(json.loads(output.out)["files"]) == 2
    assert "bad.wav: undecodable" in output.err
    assert "pipe.wav: undecodable (not a regular file)" in output.err


def test_mistakes_are_explained(command, tmp_path, capsys):
    (tmp_path / "tags.txt").write_text("")
    assert main(command) == 2
    assert "tags.txt holds no tags" in capsys.readouterr().err
    (tmp_path / "tags.txt").unlink()
    assert main(command) == 2
    assert "tags.txt" in capsys.readouterr().err
    (tmp_path / "tags.txt").write_text("220 Hz")
    assert main([*command[:-1], str(tmp_path / "nowhere")]) == 2
    assert "No trained MuQ-MuLan model" in capsys.readouterr().err
    for options in (["--json", "--csv"], ["--top", "0"]):
        assert main([*command, *options]) == 2
    assert "Invalid value for '--top'" in capsys.readouterr().err
    command[command.index("--tags") + 1] = "rock,pop"
    assert main(command) == 2
    assert "rock,pop cannot be read ([Errno 2]" in capsys.readouterr().err
