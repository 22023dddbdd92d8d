"""The metrics log survives kills, resumes and values that JSON does not have."""

import json
import math
import os

import numpy as np
import pytest
import torch

from muq_plugins.evaluation import run_files
from muq_plugins.evaluation.run_files import MetricsLog, read_metrics, select, series


def row(step, kind="train", **values):
    return {"kind": kind, "stage": "pretrain", "step": step, **values}


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "run" / "metrics.jsonl")


def test_round_trip(log):
    log.write(row(1, loss=torch.tensor(5.5), usage=np.array([0.5, 1.0]), note="a"))
    assert read_metrics(log.path) == [row(1, loss=5.5, usage=[0.5, 1.0], note="a")]


def test_non_finite_values_are_null_and_named(log):
    log.write(row(1, loss=math.nan, per_codebook=[1.0, math.inf], lr=0.1))
    log.write(row(2, loss=1.0))
    text = log.path.read_text("utf-8")
    assert "NaN" not in text and "Infinity" not in text
    read, finite = read_metrics(log.path)
    assert read["loss"] is None and read["per_codebook"] == [1.0, None]
    assert read["non_finite"] == ["loss", "per_codebook"]
    assert "non_finite" not in finite


def test_row_without_step_is_refused(log):
    with pytest.raises(ValueError, match=r"lacks \['step'\]"):
        log.write({"kind": "train"})
    assert not log.path.exists()


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_truncated_last_line(log, cut):
    log.write(row(1, loss=2.0))
    log.write(row(2, loss=1.0))
    os.truncate(log.path, log.path.stat().st_size - cut)
    assert [r["step"] for r in read_metrics(log.path)][:1] == [1]

    MetricsLog(log.path).write(row(3, loss=0.5))  # the next process goes on
    assert [r["step"] for r in read_metrics(log.path)] == [1, 3]


def test_broken_line_in_the_middle_is_an_error(log):
    log.write(row(1))
    with open(log.path, "a", encoding="utf-8") as file:
        file.write('{"kind": "tr\n')
    log.write(row(2))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not a row"):
        read_metrics(log.path)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training has written"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_the_later_of_repeated_steps_wins(log):
    for step, loss in ((1, 5.0), (2, 4.0), (2, 3.9), (3, 3.5)):
        log.write(row(step, loss=loss))
    log.write(row(2, kind="valid", loss=4.2))
    rows = read_metrics(log.path)
    assert [(r["kind"], r["step"], r["loss"]) for r in rows] == [
        ("train", 1, 5.0),
        ("train", 2, 3.9),
        ("valid", 2, 4.2),
        ("train", 3, 3.5),
    ]


def test_unwanted_rows_are_dropped(log):
    def later(row):
        return row["step"] > 2

    assert log.drop(later) == 0
    for step in (1, 2, 3):
        log.write(row(step))
    assert log.drop(later) == 1
    assert [r["step"] for r in read_metrics(log.path)] == [1, 2]
    assert log.drop(later) == 0
    assert os.listdir(log.path.parent) == ["metrics.jsonl"]


def test_a_full_disk_leaves_no_half_row(log, monkeypatch):
    log.write(row(1))

    def write_part(file, data):
        file.write(data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_files, "_write_all", write_part)
    with pytest.raises(OSError, match="No space left"):
        log.write(row(2))
    monkeypatch.undo()
    log.write(row(3))
    assert [r["step"] for r in read_metrics(log.path)] == [1, 3]


def test_a_row_is_on_the_disk_when_write_returns(log, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    log.write(row(1))
    assert len(synced) == 1
    assert json.loads(log.path.read_text("utf-8"))["step"] == 1


def test_select_and_series():
    rows = [row(1, x=1.0), row(1, kind="valid", x=2.0), row(2, x=None), row(3)]
    assert [r["step"] for r in select(rows, kind="train")] == [1, 2, 3]
    assert select(rows, stage="tokenizer") == []
    steps, values = series(select(rows, kind="train"), "x")
    assert steps.tolist() == [1, 2]
    np.testing.assert_array_equal(values, [1.0, np.nan])
    _, lists = series([row(1, x=[1.0, None])], "x")
    np.testing.assert_array_equal(lists, [[1.0, np.nan]])
