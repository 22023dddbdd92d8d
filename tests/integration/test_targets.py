"""Every target and masking trains: each experiment file as it stands, only smaller."""

import math

import pytest
import torch
import yaml

from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.experiment import load_experiment
from tests.integration.commands import (
    HERE,
    complaint,
    experiment_file,
    recipe,
    recipe_here,
)

#: What makes a run of any of these files a matter of seconds.
SMALL = {
    name: value
    for name, value in yaml.safe_load((HERE / "tiny.yaml").read_text()).items()
    if name not in ("extends", "experiment", "target", "tokenizer")
} | {"optimizer_step_limit": 3, "valid_interval": 3}
SMALL["encoder"]["num_layers"] = 1
SMALL_TOKENIZER = {
    "max_windows": 8,
    "clip_seconds": 1.0,
    "clips_per_update": 4,
    "batch_size": 4,
    "optimizer_step_limit": 3,
    "log_interval": 1,
    "valid_interval": 3,
}

#: Experiment, codebooks, entries, whether a tokenizer is trained first.
TARGETS = [
    ("ablation_n8", 8, 64, True),
    ("ablation_n12", 12, 64, True),
    ("ablation_random_rvq", 8, 64, False),
    ("ablation_virtual", 8, 128, False),
    ("baseline_bestrq", 1, 8192, False),
    ("baseline_bestrq_n8", 8, 64, False),
    ("baseline_fsq", 8, 64, True),
    ("baseline_hubert", 1, 100, True),
    ("baseline_kmeans_n8", 8, 64, True),
    ("baseline_vq", 1, 64, True),
    ("masking_spans", 8, 64, False),
    ("mel_rvq_constant_q", 8, 64, True),
    ("mert", 8, 1024, False),
    ("multi_view", 8, 64, False),
]
#: Random weights: the real codec would be downloaded.
ENCODEC = ["--target.features.features.source", "null"]


def write_small(folder, name, tokenizer):
    """The experiment with less of everything."""
    small = {**SMALL, "tokenizer": SMALL_TOKENIZER} if tokenizer else SMALL
    text = f"extends: {experiment_file(name)}\n" + yaml.safe_dump(small)
    (folder / "small.yaml").write_text(text)
    return folder / "small.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codebooks", "entries", "tokenizer"), TARGETS)
def test_the_experiment_trains(
    name, codebooks, entries, tokenizer, data_options, tmp_path, caplog
):
    options = ["--output_folder", tmp_path / "run", *data_options]
    if name == "mert":  # baseline_encodec and more
        options += ENCODEC
    if name == "masking_spans":  # whose tokenizer is that of muq
        options += ["--tokenizer", "null"]
    recipe_here("train.py", write_small(tmp_path, name, tokenizer), *options)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in select(rows, kind="train")] == [1, 2, 3]
    valid = select(rows, kind="valid")[-1]
    assert math.isfinite(valid["loss"])
    pitch = name in ("mert", "mel_rvq_constant_q")
    codes = "codes/" if pitch else ""
    assert valid[f"{codes}chance"] == pytest.approx(math.log(entries))
    assert len(valid[f"{codes}accuracy_per_codebook"]) == codebooks
    assert (tmp_path / "run" / "report.html").is_file()
    first = tmp_path / "run" / "tokenizer"
    assert (first / "inference" / "model.safetensors").is_file() == bool(tokenizer)
    if tokenizer:
        assert (first / "report.html").is_file()
        test = select(read_metrics(first / "metrics.jsonl"), kind="test")[-1]
        assert test["step"] == 3
        errors = test["reconstruction_error_per_level"]
        assert len(errors) == codebooks + 1
    if name == "mert":
        assert "random weights" in caplog.text
    if pitch:
        assert valid["constant_q/error"] > 0 < valid["constant_q/variance"]


@pytest.mark.parametrize(
    ("name", "other", "more"),
    [
        ("ablation_n12", "baseline_encodec", ENCODEC),
        ("muq", "masking_spans", []),
        ("muq", "multi_view", []),
    ],
)
def test_the_student_begins_alike(name, other, more, tmp_path):
    """Whatever the target and the masking."""
    options = ["--output_folder", str(tmp_path), "--device", "cpu"]
    first, second = (
        load_experiment([str(experiment_file(file)), *options, *words])
        for file, words in ((name, []), (other, more))
    )
    expected = first.hparams["encoder"].state_dict()
    for key, value in second.hparams["encoder"].state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_class_that_does_not_exist_is_named(data_options, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(
        f"extends: {experiment_file('baseline_bestrq')}\n"
        "target:\n  quantizer: !new:muq_plugins.lobes.RandomProjektion\n"
    )
    words = complaint(recipe("train.py", path, *data_options, check=False))
    assert "there is no class or function muq_plugins.lobes.RandomProj" in words


def test_more_clusters_than_frames_is_an_error(data_options, tmp_path):
    options = ["--output_folder", tmp_path / "run", *data_options]
    options += ["--target.quantizer.codebook_size", "100000"]
    options += ["--tokenizer.optimizer_step_limit", "1"]
    result = recipe(
        "train_tokenizer.py", experiment_file("baseline_hubert"), *options, check=False
    )
    message = "codebook_size is 100000, but there are only 400 training frames"
    assert message in complaint(result)
    assert not (tmp_path / "run" / "inference").exists()


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
