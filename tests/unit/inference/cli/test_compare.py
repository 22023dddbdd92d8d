"""Two results side by side: paired where they may be, refused where they may not."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from muq_plugins.evaluation.probing.results import Row, TaskResult, save_results
from muq_plugins.inference.cli.main import main


def write(folder, share, protocol="corrected", label="gtzan_genre", **settings):
    """A result in which a share of the test recordings is right."""
    targets = np.arange(200) % 2
    wrong = np.random.default_rng(0).random(200) >= share
    row = Row("mine", "hidden layer", 3, 1 - wrong.mean(), 0, 1, {}, chosen=True)
    predictions = {
        "targets": targets,
        "groups": np.array([str(i // 2) for i in range(200)]),
        row.key: np.where(wrong, 1 - targets, targets)[None],
    }
    about = {"protocol": protocol, "split": "a", "encoders": {"mine": ["x"]}}
    about |= settings
    known = label, "single", None, None, "accuracy", 0.5, ["a", "b"], {}, 100, [row]
    result = TaskResult(*known, about=about, predictions=predictions)
    other = replace(result, label="emo" if label == "gtzan_genre" else "other")
    save_results(folder, [result, other])
    return folder


@pytest.fixture
def both(tmp_path):
    return write(tmp_path / "good", 0.9), write(tmp_path / "worse", 0.6)


def test_differences_are_paired(both, capsys):
    good, worse = both
    assert main(["compare", str(good / "scores.json"), str(worse)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert (
        line.startswith("gtzan_genre (accuracy): ") and "points, 95% interval +" in line
    )
    assert main(["compare", str(good), str(good)]) == 0
    assert "+0.0 points, 95% interval +0.0 to +0.0" in capsys.readouterr().out


def test_what_was_made_otherwise_is_not_compared(both, tmp_path, capsys):
    first = write(tmp_path / "a", 0.9, cutting={"seconds": 10.0}, seeds=[0])
    other = write(tmp_path / "b", 0.9, cutting={"seconds": 5.0}, seeds=[0])
    assert main(["compare", str(first), str(other)]) == 1
    words = "gtzan_genre: cutting {'seconds': 10.0} is not {'seconds': 5.0}"
    assert words in capsys.readouterr().err
    assert main(["compare", str(first), str(both[0])]) == 0  # which does not say


def test_predictions_are_needed(both, capsys):
    shutil.rmtree(both[0] / "tasks")
    assert main(["compare", *map(str, both)]) == 2
    words = "scores.json alone has no predictions, which are in the folder tasks"
    assert words in capsys.readouterr().err


def test_what_is_not_to_be_compared(both, tmp_path, capsys):
    other = write(tmp_path / "v1", 0.9, "v1_constrained")
    assert main(["compare", str(both[0]), str(other)]) == 1
    said = capsys.readouterr()
    assert "gtzan_genre: protocol corrected is not v1_constrained" in said.err
    assert said.out == ""
    none = write(tmp_path / "none", 0.9, label="x")
    assert main(["compare", str(both[0]), str(none)]) == 2
    assert "share no task: there are gtzan_genre, emo and" in capsys.readouterr().err
    assert main(["compare", str(both[0]), str(tmp_path)]) == 2
    assert "holds no scores.json" in capsys.readouterr().err
