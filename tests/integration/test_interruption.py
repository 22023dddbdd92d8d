"""A run survives being killed at any moment, and two processes learn as one does."""

import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import torch

from muq_plugins.evaluation.run_files import read_metrics, select
from tests.integration.commands import HERE, ROOT, recipe, run_command


def newest_weights(folder):
    (path,) = sorted((folder / "save").glob("CKPT*/pretrain.ckpt"))[-1:]
    return torch.load(path, weights_only=True)


def differing(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_the_command_itself_resumes_after_kill_9(options, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, ROOT / "recipes/MuQ/train.py", *options]
    command += ["--output_folder", folder, "--ckpt_interval_steps", "1"]
    command += ["--optimizer_step_limit", "200", "--device", "cpu", "--noprogressbar"]
    process = Popen([str(part) for part in command], cwd=ROOT, stdout=PIPE, stderr=PIPE)
    wait_for_checkpoint(folder, process)
    process.kill()
    process.communicate()
    step = newest_step(folder)
    assert 0 < step < 200
    limit = str(step + 3)
    result = run_command(*(limit if part == "200" else part for part in command))
    assert f"Going on from step {step}" in result.stdout + result.stderr


def test_ctrl_c_ends_with_a_checkpoint_and_a_message(options, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, ROOT / "recipes/MuQ/train.py", *options]
    command += ["--output_folder", folder, "--optimizer_step_limit", "5000"]
    command += ["--device", "cpu", "--noprogressbar"]
    process = Popen(
        [str(part) for part in command], cwd=ROOT, stdout=PIPE, stderr=PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or not read_metrics(
        folder / "metrics.jsonl"
    ):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert newest_step(folder) > 0


def wait_for_checkpoint(folder, process):
    deadline = time.monotonic() + 120
    while not list((folder / "save").glob("CKPT*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)


def newest_step(folder):
    import yaml

    newest = sorted((folder / "save").glob("CKPT*/CKPT.yaml"))[-1]
    return yaml.safe_load(newest.read_text(encoding="utf-8"))["step"]


def test_two_processes_learn_what_one_learns(options, tmp_path):
    """20 updates: two processes, or one with twice the accumulation."""
    common = [*options, "--optimizer_step_limit", "20", "--valid_interval", "20"]
    common += ["--device", "cpu", "--noprogressbar"]
    recipe("train.py", *common[:-3], "--output_folder", tmp_path / "one")
    torchrun = [Path(sys.executable).with_name("torchrun"), "--nproc_per_node=2"]
    torchrun += ["--master_port=29617", ROOT / "recipes/MuQ/train.py"]
    common += ["--distributed_backend", "gloo", "--output_folder", tmp_path / "two"]
    result = run_command(*torchrun, *common)
    assert "Report:" in result.stdout
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
    recipe("train_tokenizer.py", *common, "--output_folder", tmp_path / "one")
    torchrun = [Path(sys.executable).with_name("torchrun"), "--nproc_per_node=2"]
    torchrun += ["--master_port=29618", ROOT / "recipes/MuQ/train_tokenizer.py"]
    common += ["--device", "cpu", "--noprogressbar", "--distributed_backend", "gloo"]
    run_command(*torchrun, *common, "--output_folder", tmp_path / "two")
    losses = [
        [row["loss"] for row in select(read_metrics(path), kind="train")]
        for path in (tmp_path / "one/metrics.jsonl", tmp_path / "two/metrics.jsonl")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
