"""Ctrl-C ends a run well, and two processes learn as one does."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml

from muq_plugins.evaluation.run_files import read_metrics, select
from tests.integration.commands import (
    HERE,
    RECIPES,
    Fork,
    recipe_here,
    recipe_options,
    run_command,
    two_ranks,
)


def test_ctrl_c_ends_with_a_checkpoint_and_a_message(options, tmp_path):
    folder = tmp_path / "run"
    given = [*options, "--output_folder", folder, "--optimizer_step_limit", "5000"]
    run = Fork(RECIPES / "train.py", *recipe_options(given))
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or not read_metrics(metrics):
        assert run.process.is_alive(), run.result().stderr
        time.sleep(0.05)
    os.kill(run.process.pid, signal.SIGINT)
    result = run.result()
    assert result.returncode == 130
    assert "Run the same command again to go on" in result.stderr
    assert "Traceback" not in result.stderr
    newest = sorted((folder / "save").glob("CKPT*/CKPT.yaml"))[-1]
    assert yaml.safe_load(newest.read_text(encoding="utf-8"))["step"] > 0


def test_two_processes_learn_what_one_learns(options, tmp_path):
    """20 updates: two processes, or one with twice the accumulation."""
    common = [*options, "--optimizer_step_limit", "20", "--valid_interval", "20"]
    recipe_here("train.py", *common, "--output_folder", tmp_path / "one")
    torchrun = [Path(sys.executable).with_name("torchrun"), "--standalone"]
    torchrun += ["--nproc_per_node=2", RECIPES / "train.py"]
    common += ["--distributed_backend", "gloo", "--output_folder", tmp_path / "two"]
    result = run_command(*torchrun, *recipe_options(common))
    assert "Report:" in result.stdout
    assert result.stdout.count("Stage 2 of 3: training (20 updates)") == 1
    one, two = (
        read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two")
    )
    losses = [
        [row["loss"] for row in select(rows, kind="train")] for rows in (one, two)
    ]
    assert len(losses[0]) == len(losses[1]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
    # The validation part is shared by the processes, and its sums are added.
    valid = [select(rows, kind="valid")[-1] for rows in (one, two)]
    assert valid[0]["chance"] == valid[1]["chance"]
    assert valid[1]["code_entropy"] == pytest.approx(valid[0]["code_entropy"], rel=1e-6)
    assert valid[1]["loss"] == pytest.approx(valid[0]["loss"], rel=1e-4)


def test_two_processes_train_the_tokenizer_that_one_trains(data_options, tmp_path):
    common = [HERE / "tiny_tokenizer.yaml", *data_options]
    common += ["--tokenizer.batch_size", "2", "--tokenizer.optimizer_step_limit", "20"]
    common += ["--target.quantizer.stale_tolerance", "2"]
    common += ["--tokenizer.log_interval", "1"]
    recipe_here("train_tokenizer.py", *common, "--output_folder", tmp_path / "one")
    two_ranks("train_tokenizer.py", *common, "--output_folder", tmp_path / "two")
    losses = [
        [row["loss"] for row in select(read_metrics(path), kind="train")]
        for path in (tmp_path / "one/metrics.jsonl", tmp_path / "two/metrics.jsonl")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
