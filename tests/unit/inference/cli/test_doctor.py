"""The doctor: a report on what works and what does not, whatever is broken."""

import importlib.metadata
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from muq_plugins import MuQ
from muq_plugins.inference import stability
from muq_plugins.inference.cli import doctor
from muq_plugins.inference.cli.main import main
from muq_plugins.lobes import MuQEncoder
from tests.unit.meter import needs_meter


def run_with_broken(package, tmp_path, *arguments):
    """Runs a command where importing a package fails."""
    words = "compiled with different CUDA versions"
    (tmp_path / f"{package}.py").write_text(f"raise RuntimeError('{words}')\n")
    return subprocess.run(
        [sys.executable, "-m", "muq_plugins.inference.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )


def test_a_working_installation(capsys):
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    for words in ("torch ", "torchaudio ", "speechbrain ", "transformers ", "threads"):
        assert words in report
    assert "cpu     ok, " in report
    assert report.endswith("Everything works.\n")


@needs_meter
def test_what_moves_a_vector(model_folder, write_wav, tmp_path, capsys, monkeypatch):
    """One table: level moves it, and does not where files have one loudness."""
    other = write_wav(tmp_path / "other.wav", 1.0, pitch=2000.0)
    monkeypatch.setattr(stability, "two_pieces", lambda folder: (str(other),) * 2)
    song = write_wav(tmp_path / "song.wav", 2.0)
    assert main(["doctor", "--stability", model_folder, str(song)]) == 0
    report = capsys.readouterr().out
    space = MuQ.from_pretrained(model_folder).space().name
    assert f"space {space}: cosine" in report and f"2 s of {song}" in report
    rows = re.findall(r"^(.+?) +([\d.]+) +([\d.]+)$", report, re.MULTILINE)
    found = {name: [float(one) for one in pair] for name, *pair in rows}
    assert len(found) == 12
    assert found["gain of -20 dB"][0] < 0.999 < found["gain of -20 dB"][1]
    for name in ("padding in a batch", "a batch with other music"):
        assert min(found[name]) > 0.9999
    assert "mp3 at 64 kbit/s" in found and "Opus at 32 kbit/s" in found
    assert 0 < min(found["lead-in silence of 1.2 s"]) < 1
    assert "moves it most" in report
    for given in ([str(song)], ["--layer", "3"], ["--device", "banana"]):
        assert main(["doctor", *given]) == 2
        assert "is for --stability MODEL" in capsys.readouterr().err
    soundfile.write(song, np.zeros(48000), 24000)
    assert main(["doctor", "--stability", model_folder, str(song)]) == 2
    assert "song.wav is silent in its first 60 s" in capsys.readouterr().err


def test_a_broken_pair_is_explained_with_its_remedy(tmp_path):
    done = run_with_broken("torchaudio", tmp_path, "doctor")
    assert done.returncode == 1, done.stderr
    assert "cannot be imported: RuntimeError: compiled with different" in done.stdout
    assert "not run: speechbrain, torchaudio cannot be imported" in done.stdout
    assert "pip install --force-reinstall 'torch<" in done.stdout
    assert done.stdout.count("--force-reinstall") == 1
    assert "Everything works" not in done.stdout


def test_other_commands_point_to_the_doctor(tmp_path):
    (tmp_path / "a.wav").touch()
    rest = [str(tmp_path / "a.wav"), "--out", str(tmp_path / "out")]
    done = run_with_broken("torchaudio", tmp_path, "embed", "model", *rest)
    assert done.returncode == 2
    assert "different CUDA versions\nRun `muq-plugins doctor`" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unsupported_version_is_explained(monkeypatch, capsys):
    version = importlib.metadata.version
    needed = ["torch>=2.11,<2.15", "ruff; extra == 'dev'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needed)
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "2.15.0+cu132" if name == "torch" else version(name),
    )
    assert main(["doctor"]) == 1
    report = capsys.readouterr().out
    assert "torch         2.15.0+cu132 (needs <2.15,>=2.11): not supported" in report
    assert "--force-reinstall" in report
    assert "ruff" not in report


def test_a_missing_package_is_explained(monkeypatch, capsys):
    version = importlib.metadata.version

    def find(name):
        if name in ("scipy", "pyarrow"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", find)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["scipy"])
    assert main(["doctor"]) == 1
    report = capsys.readouterr().out
    assert (
        "scipy is missing, unsupported or broken: run `pip install --upgrade 'scipy'`."
        in report
    )
    assert "not installed (pip install pyarrow)" in report


def test_a_package_that_is_not_installed_itself_is_explained(monkeypatch, capsys):
    def fail(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", fail)
    assert main(["doctor"]) == 1
    assert "run `pip install -e .` in its folder" in capsys.readouterr().out


def test_the_self_test_notices_padding_that_matters(monkeypatch, capsys):
    forward = MuQEncoder.forward
    monkeypatch.setattr(
        MuQEncoder, "forward", lambda self, wavs, lens=None: forward(self, wavs)
    )
    with pytest.raises(RuntimeError, match="padding changes hidden states"):
        doctor.self_test("cpu")
    assert main(["doctor"]) == 1
    assert "The self-test on cpu failed: RuntimeError: padding" in (
        capsys.readouterr().out
    )


def test_the_self_test_on_the_device_under_test(device):
    doctor.self_test(device)
