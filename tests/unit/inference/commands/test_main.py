"""The command itself: quick help, and ways to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muq_plugins.inference import export
from muq_plugins.inference.commands import embed
from muq_plugins.inference.commands.main import main


@pytest.mark.parametrize("command", [[], ["embed"], ["similar"], ["doctor"]])
def test_help_comes_without_torch(command, tmp_path):
    for package in ("torch", "numpy", "speechbrain", "torchaudio"):
        (tmp_path / f"{package}.py").write_text("raise RuntimeError('imported')\n")
    done = subprocess.run(
        [sys.executable, "-m", "muq_plugins.inference.commands.main", *command, "-h"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "muq-plugins" in done.stdout


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit) as error:
        main([])
    assert error.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_an_interruption_is_no_traceback(monkeypatch, capsys, tmp_path):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(embed, "run", interrupt)
    assert main(["embed", "model", "a.wav", "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.fixture
def exported(monkeypatch):
    """What the exporter, which has tests of its own, is called with."""
    calls = []

    def export_onnx(model, path, **options):
        calls.append(options)
        Path(path).write_bytes(bytes(3 * 10**6))
        return Path(path)

    monkeypatch.setattr(export, "export_onnx", export_onnx)
    return calls


def test_export(model_folder, tmp_path, exported, capsys):
    command = ["export", model_folder, str(tmp_path / "muq.onnx")]
    assert main([*command, "--format", "onnx"]) == 0
    assert capsys.readouterr().err.endswith("muq.onnx: 3.0 MB\n")
    assert main([*command, "--hidden-states", "all", "--wav-lens", "--opset=20"]) == 0
    assert exported == [
        {"hidden_states": "last", "wav_lens": False, "opset": 18},
        {"hidden_states": "all", "wav_lens": True, "opset": 20},
    ]


def test_mistakes_in_an_export_are_explained(model_folder, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    assert main(["export", model_folder, str(tmp_path / "muq.bin")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
