"""Students of a teacher: experiment files as they stand, only smaller; their table."""

import json

import pytest
import torch
import yaml

from muq_plugins.errors import UserError
from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.muq import MuQ, save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import experiment_file, recipe_here
from tests.integration.test_targets import SMALL
from tests.integration.tiny_mulan import make_mulan


def small(folder, name, **changes):
    """The experiment with less of everything."""
    encoder = {**SMALL["encoder"], "dropout": 0.0}
    text = yaml.safe_dump(
        {**SMALL, "encoder": encoder, "ckpt_interval_minutes": 5} | changes
    )
    (folder / "small.yaml").write_text(f"extends: {experiment_file(name)}\n{text}")
    return folder / "small.yaml"


@pytest.fixture(scope="module")
def distilled(data_options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    torch.manual_seed(0)
    teacher = MuQEncoder(48, 2, 2, 64, conv_channels=4, hop_length=120)  # at 50 Hz
    save_muq(folder / "teacher", teacher.eval(), "nothing")
    path = small(folder, "distil", teacher_layers=[1, 2], optimizer_step_limit=8)
    options = ["--teacher", folder / "teacher", "--output_folder", folder / "run"]
    recipe_here("distil.py", path, *options, *data_options)
    return folder / "run", [path, *options, *data_options]


def test_the_student_learns(distilled):
    run, _ = distilled
    rows = read_metrics(run / "metrics.jsonl")
    losses = [row["loss"] for row in select(rows, kind="train")]
    assert len(losses) == 8 and losses[-1] < losses[0]
    test = select(rows, kind="test")[-1]
    assert 0 < test["constant_cosine"] < 1 and 0 < test["cosine"] < 1
    assert "Has it learned from the music?" in (run / "report.md").read_text()
    told = (run / "log.txt").read_text()
    assert "Stage 2 of 4: training (8 updates)" in told
    assert "Stage 4 of 4: comparison with the teacher" in told


def test_the_table_has_every_form_of_the_student(distilled):
    pytest.importorskip("onnxruntime")
    run, _ = distilled
    found = json.loads((run / "distillation" / "distillation.json").read_text())
    teacher, student, onnx, int8 = found["models"]
    assert teacher["frames"] == pytest.approx(1.0) and teacher["weights"] > 1e4
    assert student["weights"] < teacher["weights"]
    assert onnx["frames"] == pytest.approx(student["frames"], abs=1e-3)
    assert student["frames"] < student["clips"] < 1
    assert int8["frames"] == pytest.approx(student["frames"], abs=0.05)
    assert int8["frames"] != onnx["frames"]
    assert onnx["bytes"] == (run / "distillation" / "student.onnx").stat().st_size
    assert all(row["speed"] > 1 for row in found["models"])
    page = (run / "distillation" / "report.md").read_text()
    assert "| student, ONNX in int8 |" in page
    assert found["teacher"] == str(run.parent / "teacher") and found["teacher"] in page
    assert found["music"] in page and f"{found['clips']} clips of" in page
    assert "](distillation/report.html)" in (run / "report.md").read_text()


def test_the_student_is_a_model_like_any_other_and_names_its_teacher(distilled):
    run, _ = distilled
    model = MuQ.from_pretrained(run)
    assert model(torch.randn(1, 24000)).last_hidden_state.shape == (1, 25, 32)
    assert (
        f"taught by {run.parent / 'teacher'} (licence: not stated" in model.trained_on
    )
    card = model.save_pretrained(run.parent / "hub", "transformers") / "README.md"
    assert "taught by" in card.read_text()


def test_another_teacher_is_another_experiment(distilled, tmp_path):
    run, command = distilled
    before = (run / "metrics.jsonl").read_text()
    torch.manual_seed(1)
    folder = run.parent / "teacher"
    save_muq(folder, MuQEncoder(48, 2, 2, 64, conv_channels=4, hop_length=120).eval())
    with pytest.raises(UserError, match="teacher"):
        recipe_here("distil.py", *command)
    assert (run / "metrics.jsonl").read_text() == before


def test_a_small_tower_stands_beside_the_texts_of_a_large_one(data_options, tmp_path):
    teacher = make_mulan(tmp_path)
    path = small(tmp_path, "distil_mulan", teacher=teacher)
    options = ["--output_folder", tmp_path / "run", *data_options]
    recipe_here("distil.py", path, *options, "--clip_seconds", "2")
    large, little = (
        MuQMuLan.from_pretrained(x) for x in (teacher, tmp_path / "run/mulan")
    )
    texts = ["slow solo cello", "loud brass"]
    torch.testing.assert_close(little.embed_text(texts), large.embed_text(texts))
    assert little.embed_audio(torch.randn(1, 48000)).shape == (1, 16)
    assert "taught by" in little.trained_on
    found = json.loads((tmp_path / "run/distillation/distillation.json").read_text())
    assert found["models"][1]["frames"] == pytest.approx(found["models"][1]["clips"])
    _, student, onnx, int8 = found["models"]
    assert student["weights"] == sum(p.numel() for p in little.mods.audio.parameters())
    assert onnx["clips"] == pytest.approx(student["clips"], abs=1e-5)
    assert onnx["clips"] != int8["clips"] == pytest.approx(student["clips"], abs=0.05)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("distil", ["--teacher", "no_such_run"], "No trained MuQ model in no_such_run"),
        ("distil", ["--teacher", "small", "--teacher_layers", "[4]"], "no layer 4"),
        ("distil", ["--encoder.sample_rate", "16000"], "sample_rate differs"),
        ("distil", ["--teacher", "MULAN"], "use hparams/distil_mulan.yaml"),
        ("distil_mulan", ["--teacher", "small"], "use hparams/distil.yaml"),
        ("distil_mulan", ["--teacher", "MULAN"], "give --clip_seconds 2"),
        ("distil_mulan", [], "teacher"),
    ],
)
def test_what_cannot_teach_is_refused_before_anything_is_written(
    name, options, words, tmp_path
):
    options = [make_mulan(tmp_path) if x == "MULAN" else x for x in options]
    with pytest.raises(ValueError, match=words):
        recipe_here(
            "distil.py",
            experiment_file(name),
            "--output_folder",
            tmp_path / "run",
            *options,
        )
    assert not (tmp_path / "run").exists()
