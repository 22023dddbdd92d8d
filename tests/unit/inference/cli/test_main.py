"""The command itself: quick help, and ways to end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from muq_plugins.inference import export
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.main import main
from tests.forks import Fork
from tests.unit.inference.cli.records import read_record
from tests.unit.inference.tiny_mulan import tiny_mulan


@pytest.mark.parametrize("command", [[], ["embed"], ["index"], ["doctor"]])
def test_help_comes_without_torch(command, tmp_path):
    for package in ("torch", "numpy", "speechbrain", "torchaudio"):
        (tmp_path / f"{package}.py").write_text("raise RuntimeError('imported')\n")
    done = subprocess.run(
        [sys.executable, "-m", "muq_plugins.inference.cli.main", *command, "-h"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "muq-plugins" in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ([], 2, "Missing command"),
        (["embedd"], 2, "embed"),
        (["--version"], 0, "muq-plugins 0.1.0"),
        (["embed", "model"], 2, "Missing argument 'INPUT'"),
    ],
)
def test_words_and_codes(command, code, words, capsys):
    assert main(command) == code
    output = capsys.readouterr()
    assert words in output.out + output.err


def run(*command, **options):
    """The program itself, in another process."""
    return subprocess.Popen(
        [sys.executable, "-m", "muq_plugins", *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        **options,
    )


def test_an_interruption_is_no_traceback(monkeypatch, capsys, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "check_installation", interrupt)
    assert main(["embed", "model", "a.wav", "--out", str(tmp_path)]) == 130
    assert "the same command does what is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("received", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_signals_end_it(model_folder, write_wav, tmp_path, received, code):
    """While it works: a run of its own has begun to write."""
    for number in range(60):
        write_wav(tmp_path / "music" / f"{number}.wav", 1.0)
    out = tmp_path / "out"
    command = ["embed", model_folder, tmp_path / "music", "--out", out]
    fork = Fork("muq_plugins", *command, "--batch-seconds", 1)
    while not out.exists():
        assert fork.process.is_alive(), fork.result()
        time.sleep(0.01)
    os.kill(fork.process.pid, received)
    result = fork.result()
    assert result.returncode == code
    assert "the same command does what is left" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(out.rglob(".*.partial"))
    assert main([*map(str, command), "--batch-seconds", "1"]) == 0
    assert len(list(out.rglob("*.npz"))) == 60


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = run("doctor", stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    _, words = process.communicate(timeout=120)
    assert (process.returncode, words) == (141, "")


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode")
def test_names_that_are_not_utf8_come_from_the_command_line(
    model_folder, write_wav, tmp_path
):
    path = tmp_path / os.fsdecode(b"caf\xe9 \x1b[31m.wav")
    try:
        write_wav(tmp_path / "a.wav", 1.0).rename(path)
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    process = run("embed", model_folder, path, "--out", tmp_path / "out")
    assert process.wait(120) == 0
    [output] = (tmp_path / "out").iterdir()
    assert read_record(output).facts["path"] == str(path)


def test_completion_is_there(monkeypatch, capsys):
    monkeypatch.setenv("_MUQ_PLUGINS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "muq-plugins inspe")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([]) == 0
    assert "inspect-tokenizer" in capsys.readouterr().out


@pytest.fixture
def exported(monkeypatch):
    """What the exporter, which has tests of its own, is called with."""
    calls = []

    def export_onnx(model, path, *options):
        calls.append((type(model).__name__, *options))
        Path(path).write_bytes(bytes(3 * 10**6))
        return Path(path)

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    return calls


def test_export(model_folder, tmp_path, exported, capsys):
    command = ["export", model_folder, "--out", str(tmp_path / "muq.onnx")]
    assert main(command) == 0
    assert capsys.readouterr().err.endswith("muq.onnx: 3.0 MB\n")
    assert main([*command, "--hidden-states", "all", "--wav-lens"]) == 0
    assert main([*command, "--int8"]) == 0
    assert exported == [
        ("MuQ", "last", False, False),
        ("MuQ", "all", True, False),
        ("MuQ", "last", False, True),
    ]


def test_a_tower_is_exported_as_such(tmp_path, exported):
    folder = str(tiny_mulan(tmp_path))
    assert main(["export", folder, "--out", str(tmp_path / "tower.onnx")]) == 0
    assert exported == [("MuQMuLan", "last", False, False)]


def test_mistakes_in_an_export_are_explained(model_folder, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    assert main(["export", model_folder, "--out", str(tmp_path / "muq.bin")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
