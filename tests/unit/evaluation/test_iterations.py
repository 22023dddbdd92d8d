"""The comparison of a model with the one that it learned from."""

import json

import numpy as np
import pytest

from muq_plugins.evaluation.iterations import iterations_report
from muq_plugins.evaluation.probing.results import TRAINED
from muq_plugins.evaluation.run_files import MetricsLog, save_diagnostics
from tests.unit.evaluation.probed import save_final_probe


def write_run(folder, accuracy, noise, clips=60):
    """A run of some accuracy, whose probe sees two classes through noise."""
    row = {"kind": "test", "stage": "pretrain", "step": 9, "accuracy": accuracy}
    row |= {"cross_entropy": 2.0, "code_entropy": 2.75}
    MetricsLog(folder / "metrics.jsonl").write(row)
    save_diagnostics(folder, code_counts=np.array([[4, 4, 0, 0]]))
    random = np.random.default_rng(0)
    labels = ["Brass", "Organ"] * (clips // 2)
    values = np.array([[0.0], [1.0]] * (clips // 2))
    values = values + noise * random.normal(size=values.shape)
    test = values + noise * random.normal(size=values.shape)
    features = {TRAINED: np.concatenate([values, test])}
    save_final_probe(folder, features, 2 * labels, clips * ["train"] + clips * ["test"])


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "bad", accuracy=0.25, noise=2.0)
    write_run(tmp_path / "good", accuracy=0.5, noise=0.1)
    return tmp_path / "bad", tmp_path / "good"


def test_the_numbers_of_every_model(runs, tmp_path):
    iterations_report(tmp_path / "out", runs)
    rows = json.loads((tmp_path / "out" / "iterations.json").read_text("utf-8"))
    assert [row["accuracy"] for row in rows] == [0.25, 0.5]
    assert rows[0]["learned"] == 0.75 and rows[0]["usage"] == 0.5
    assert rows[0]["perplexity"] == pytest.approx([2.0])
    assert rows[1]["probe"] == 1.0 > rows[0]["probe"]


@pytest.mark.parametrize(
    ("order", "level"), [((0, 1), "good"), ((1, 0), "warning"), ((1, 1), "undecided")]
)
def test_whether_a_model_is_better_than_its_teacher(runs, order, level, tmp_path):
    iterations_report(tmp_path / "out", [runs[index] for index in order])
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    found = [line for line in text.splitlines() if "against its teacher" in line]
    assert len(found) == 1 and level in found[0].lower(), text


def test_a_run_that_is_named_after_its_seed_is_told_from_others(runs, tmp_path):
    (tmp_path / "muq").mkdir()
    teacher = runs[0].rename(tmp_path / "muq" / "1234")
    iterations_report(tmp_path / "out", [teacher, runs[1]])
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "| muq/1234 | " in text


def test_a_teacher_that_names_no_codes(runs, tmp_path):
    """What it guesses right are no codes; its probe is compared all the same."""
    row = {"kind": "test", "stage": "pretrain", "step": 7, "accuracy": 0.9}
    (runs[0] / "metrics.jsonl").unlink()
    (runs[0] / "diagnostics.npz").unlink()
    MetricsLog(runs[0] / "metrics.jsonl").write(row)
    iterations_report(tmp_path / "out", runs)
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "| bad | 7 | - | - | - | - | - | " in text
    assert "against its teacher" in text


def test_a_teacher_that_is_no_run(runs, tmp_path):
    iterations_report(tmp_path / "out", ["OpenMuQ/MuQ-large-msd-iter", runs[1]])
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "| MuQ-large-msd-iter | - | - | - | - | - | - | - |" in text
    assert "no probe to compare" in text
    assert "recipes/MuQ/probe.py" in text and f"--encoder {runs[1]}" in text
