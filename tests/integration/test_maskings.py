"""Every masking trains, and several views: the experiment files, only smaller."""

import math

import pytest
import torch

from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.experiment import load_experiment
from tests.integration.commands import experiment_file, recipe_here
from tests.integration.test_targets import write_small


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masking_spans", "multi_view"])
def test_the_experiment_trains(name, data_options, tmp_path):
    options = ["--output_folder", tmp_path / "run", *data_options]
    options += ["--tokenizer", "null"]  # it has tests of its own
    recipe_here("train.py", write_small(tmp_path, name, False), *options)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in select(rows, kind="train")] == [1, 2, 3]
    valid = select(rows, kind="valid")[-1]
    assert math.isfinite(valid["loss"])
    assert valid["chance"] == pytest.approx(math.log(64))
    assert len(valid["accuracy_per_codebook"]) == 8
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("name", ["masking_spans", "multi_view"])
def test_the_student_begins_as_that_of_the_base(name, tmp_path):
    options = ["--output_folder", str(tmp_path), "--device", "cpu"]
    here, base = (
        load_experiment([str(experiment_file(file)), *options]).hparams
        for file in (name, "muq")
    )
    expected = base["encoder"].state_dict()
    for key, value in here["encoder"].state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_ratio_and_length_are_a_matter_of_yaml(tmp_path):
    options = ["--output_folder", str(tmp_path), "--device", "cpu"]
    options += ["--masking.probability", "0.3"]
    for name, key, frames in (
        ("muq", "block_seconds", "block_frames"),
        ("masking_spans", "span_seconds", "span_frames"),
    ):
        path = str(experiment_file(name))
        experiment = load_experiment([path, f"--masking.{key}", "0.8", *options])
        masking = experiment.hparams["masking"]
        assert masking.probability == 0.3 and getattr(masking, frames) == 20


def test_views_of_several_seeds_share_no_random_numbers(tmp_path):
    options = ["--output_folder", str(tmp_path), "--device", "cpu", "--seed"]
    path = str(experiment_file("multi_view"))
    codebooks = [
        codebook
        for seed in ("1", "2")
        for view in load_experiment([path, *options, seed]).hparams["target"].views
        for codebook in view.quantizer.codebooks
    ]
    assert len(codebooks) == 16
    for first, codebook in enumerate(codebooks):
        assert not any(torch.equal(codebook, other) for other in codebooks[:first])
