"""A run folder is one experiment: what is refused, and what goes on, for real."""

import shutil

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.files import read_json_lines
from tests.integration.commands import HERE, recipe


@pytest.fixture(scope="module")
def run(data_options, tokenizer_run, tmp_path_factory):
    """A finished run of its own, its options, and the copies that it depends on."""
    home = tmp_path_factory.mktemp("run_folders")
    shutil.copytree(data_options[1], home / "music")
    shutil.copytree(tokenizer_run / "inference", home / "tokenizer")
    options = [HERE / "tiny.yaml", "--data_folder", home / "music"]
    options += ["--data.corpus_folder", home / "corpus"]
    options += ["--tokenizer_folder", home / "tokenizer"]
    options += ["--output_folder", home / "run", "--optimizer_step_limit"]
    recipe("train.py", *options, "4")
    return home, options


def content(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def test_another_learning_rate_is_refused_and_no_file_changes(run):
    home, options = run
    before = content(home)
    result = recipe("train.py", *options, "4", "--lr", "0.01", check=False)
    assert result.returncode == 2
    assert "lr: 0.003 there, 0.01 here" in result.stderr
    assert "--output_folder" in result.stderr and "Traceback" not in result.stderr
    assert content(home) == before


def test_a_longer_limit_goes_on_and_is_recorded(run):
    home, options = run
    result = recipe("train.py", *options, "6")
    output = result.stdout + result.stderr
    assert "optimizer_step_limit changes from 4 to 6, from step 4 on" in output
    assert "The learning rate follows lr_schedule with the new limit" in output
    (row,) = [
        row for row in read_json_lines(home / "run/history.jsonl") if "pid" in row
    ][1:]
    assert (row["step"], row["changed"]) == (4, {"optimizer_step_limit": [4, 6]})
    rows = select(read_metrics(home / "run/metrics.jsonl"), kind="train")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_music_that_changed_in_place_is_said(run):
    home, options = run
    path = next((home / "music").rglob("*.flac"))
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[: 4 * rate], rate)
    result = recipe("train.py", *options, "7")
    assert "the music has changed since the last start" in result.stdout + result.stderr


def test_a_tokenizer_that_changed_in_place_is_refused(run):
    home, options = run
    weights = home / "tokenizer/model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "codebook" in name)
    tensors[name] = torch.flip(tensors[name], dims=[0])
    save_file(tensors, weights)
    checkpoints = content(home / "run/save")
    result = recipe("train.py", *options, "8", check=False)
    assert result.returncode == 2
    assert "the tokenizer that this run has learned from" in result.stderr
    assert content(home / "run/save") == checkpoints
