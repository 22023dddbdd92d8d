"""Every encoder trains, is saved, comes back and is probed: each file as it stands."""

import json
import math

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins import MuQ
from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.experiment import resolve_experiment
from muq_plugins.experiment.run_folder import values
from tests.integration.commands import experiment_file, recipe_here
from tests.unit.tiny_encoders import save_speech_model

#: What makes a run of any of these files a matter of seconds, on a target that needs
#: no training.
SMALL = """\
tokenizer: null
target:
    quantizer: !new:muq_plugins.lobes.RandomProjection
        input_size: !ref <target[features].output_size>
        num_codebooks: 2
        codebook_size: 32
clip_seconds: 2.0
clips_per_update: 4
batch_size: 2
max_windows: 8
optimizer_step_limit: 3
log_interval: 1
valid_interval: 3
ckpt_interval_minutes: 0
"""
TINY = """\
encoder: {width: 32, num_layers: 1, num_heads: 4, ffn_width: 64, conv_channels: 4}
"""

#: Experiment, what makes its encoder tiny, its class.
ENCODERS = [
    ("encoder_speechbrain", TINY, "SpeechBrainConformer"),
    ("encoder_summary_mixing", TINY, "SpeechBrainBranchformer"),
    ("encoder_transformer", TINY, "WaveformTransformer"),
    ("continue_hubert", "", "ResampledEncoder"),
]


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """A local HuBERT with random weights, so that nothing is downloaded."""
    return save_speech_model(tmp_path_factory.mktemp("hubert"))


def small(folder, name, text):
    """The experiment with less of everything."""
    path = folder / "small.yaml"
    path.write_text(f"extends: {experiment_file(name)}\n{SMALL}{text}")
    return path


def labels(folder):
    """A CSV of tones and noises in a folder."""
    lines = ["path,sound,artist"]
    for index in range(24):
        rng = np.random.default_rng(index)
        tone = np.sin(np.arange(8000) * rng.uniform(0.08, 0.16))
        wav = 0.2 * (tone if index % 2 else rng.normal(size=8000))
        soundfile.write(folder / f"{index}.wav", wav, 16000)
        lines.append(f"{index}.wav,{['noise', 'tone'][index % 2]},{index // 4}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "kind"), ENCODERS, ids=[row[0] for row in ENCODERS]
)
def test_the_experiment_trains(name, text, kind, hubert, data_options, tmp_path):
    run = tmp_path / "run"
    options = ["--output_folder", run, *data_options]
    if name == "continue_hubert":
        options += ["--encoder.encoder.source", hubert]
    recipe_here("train.py", small(tmp_path, name, text), *options)
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in select(rows, kind="train")] == [1, 2, 3]
    assert math.isfinite(select(rows, kind="valid")[-1]["loss"])
    assert (run / "report.html").is_file()

    config = json.loads((run / "inference" / "config.json").read_text())
    assert config["encoder"]["class"] == kind
    model = MuQ.from_pretrained(run)
    assert model.mods.encoder.frame_rate == 25.0
    assert model(torch.randn(1, 24000)).last_hidden_state.shape == (1, 25, 32)

    probe = ["hparams/probe_csv.yaml", "--encoder", run, "--output_folder"]
    probe += [tmp_path / "probe", "--labels_csv", labels(tmp_path), "--group", "artist"]
    probe += ["--tasks", "[{label: sound}]", "--features.folder", tmp_path / "cache"]
    probe += ["--reader.max_epochs", "2", "--reader.folds", "2", "--seeds", "[0]"]
    recipe_here("probe.py", *probe, "--untrained_seeds", "[1]")
    (sound,) = json.loads((tmp_path / "probe" / "scores.json").read_text())
    features = {row["features"] for row in sound["rows"]}
    assert {"log-mel statistics", "untrained encoder", "trained encoder"} <= features


@pytest.mark.parametrize("name", [name for name, _, _ in ENCODERS])
def test_only_the_student_differs(name):
    """The comparison is fair: data, target, masking and schedule are those of muq."""
    base, other = (
        values(resolve_experiment(experiment_file(n))) for n in ("muq", name)
    )
    keys = {key for key in base | other if base.get(key) != other.get(key)}
    changed = {key.split(".")[0] for key in keys}
    assert {"encoder"} <= changed <= {"experiment", "encoder", "lr"}
