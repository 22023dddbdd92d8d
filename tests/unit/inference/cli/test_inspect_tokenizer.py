"""``inspect-tokenizer``: files, folders and manifests; what is left out; mistakes."""

import json

import pytest

from muq_plugins.inference.cli.main import main
from muq_plugins.inference.muq import teacher_features
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import ResidualVQ, Target


@pytest.fixture
def inspect(tokenizer_folder, tmp_path):
    """Runs the command and gives its exit code and what it found."""

    def run(*inputs, model=tokenizer_folder):
        out = tmp_path / "out"
        command = ["inspect-tokenizer", model, *map(str, inputs), "--out", str(out)]
        code = main([*command, "--device", "cpu"])
        path = out / "inspection.json"
        return code, json.loads(path.read_text()) if path.exists() else None

    return run


def test_a_folder_is_heard(inspect, music, tmp_path, capsys):
    code, found = inspect(music)
    assert code == 0
    assert (found["clips"], found["num_codebooks"]) == (3, 2)
    assert found["seconds"] == pytest.approx(3.0, abs=0.01)
    shown = capsys.readouterr().out
    assert "code usage" in shown and "report.html" in shown
    assert "3 clips" in (tmp_path / "out" / "report.md").read_text()


def test_a_manifest_is_heard_beside_files(inspect, music, tmp_path):
    entry = {"wav": "{data_root}/deep/b.flac", "duration": 1.1}
    entry |= {"sample_rate": 44100, "channels": 1}
    (music / "test.json").write_text(json.dumps({"b": entry}))
    code, found = inspect(music / "test.json", music / "a.wav")
    assert (code, found["clips"]) == (0, 2)
    code, found = inspect(music / "test.json", music / "a.wav", "--max-files", "1")
    assert found["clips"] == 1 and found["seconds"] == pytest.approx(1.1, abs=0.01)


def test_bad_files_are_left_out_and_told(inspect, music, capsys):
    (music / "bad.wav").write_bytes(b"no sound")
    code, found = inspect(music)
    assert (code, found["clips"]) == (1, 3)
    assert "bad.wav" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["nowhere.json"], "nowhere.json"),
        (["MUSIC", "--max-files", "0"], "Invalid value for '--max-files'"),
    ],
)
def test_mistakes(inspect, music, inputs, message, capsys):
    inputs = [music if name == "MUSIC" else name for name in inputs]
    assert inspect(*inputs) == (2, None)
    assert message in capsys.readouterr().err


def test_a_run_keeps_its_own_report(inspect, music, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").touch()
    assert inspect(music) == (2, None)
    assert "its own report would be replaced" in capsys.readouterr().err
    assert not (tmp_path / "out" / "diagnostics.npz").exists()


def test_a_tokenizer_of_latents_needs_its_teacher(
    inspect, music, model_folder, tmp_path, capsys
):
    target = Target(teacher_features(model_folder, 1), ResidualVQ(32, 3, 16))
    folder = str(save_tokenizer(tmp_path / "latents", target, ""))
    assert inspect(music, model=folder) == (2, None)
    assert "give it with --teacher" in capsys.readouterr().err
    code, found = inspect(music, "--teacher", model_folder, model=folder)
    assert (code, found["clips"], found["num_codebooks"]) == (0, 3, 3)
