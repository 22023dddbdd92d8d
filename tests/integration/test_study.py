"""A study as a user runs it: killed in the middle, gone on with, reported again."""

import json
import shutil
import time

import numpy as np
import pytest
import soundfile

from tests.forks import RECIPES, ROOT, Fork, checked
from tests.integration.commands import experiment_file, recipe

SCRIPT = RECIPES / "ablate.py"
EXPERIMENT = f"""\
extends: {experiment_file("baseline_bestrq_n8")}
target: {{quantizer: {{num_codebooks: 2, codebook_size: 32}}}}
clip_seconds: 1.0
clips_per_update: 4
batch_size: 4
max_windows: 8
encoder: {{width: 16, num_layers: 1, num_heads: 2, ffn_width: 16, conv_channels: 2}}
warmup_steps: 1
log_interval: 1
"""
STUDY = f"""\
extends: {experiment_file("study")}
study: small
title: Do two codebooks help?
experiments:
    two: {{experiment: two.yaml, label: Two codebooks}}
    one:
        experiment: two.yaml
        label: One
        overrides: {{target.quantizer.num_codebooks: 1}}
base: two
seeds: [1]
budget:
    corpus_minutes: !remove
    optimizer_step_limit: 4
    valid_interval: 2
    data_folder: FOLDER
    data.corpus_folder: FOLDER/corpus
probes:
    corpus: !remove
    sounds:
        experiment: probe.yaml
        overrides: {{features.folder: FOLDER/features}}
groups: [{{title: Codebooks, x: codebooks, experiments: {{one: 1, two: 2}}}}]
questions:
    - {{question: Do two codebooks help?, measure: probe, better: two, than: one}}
"""
PROBE = f"""\
extends: {ROOT}/hparams/probe_csv.yaml
labels_csv: FOLDER/labels.csv
group: artist
tasks: [{{label: sound, level: acoustic}}]
reader: {{readers: [linear], mixture: False}}
untrained_seeds: [1]
seeds: [0]
"""


@pytest.fixture
def study(tmp_path):
    """A study of two experiments on a folder of tones and noises."""
    music = tmp_path / "music"
    music.mkdir()
    lines = ["path,sound,artist"]
    for index in range(36):
        rng = np.random.default_rng(index)
        time_axis = np.arange(16000) / 16000
        wave = np.sin(2 * np.pi * rng.uniform(200, 400) * time_axis)
        wav = 0.1 * (wave if index % 2 else rng.normal(size=16000))
        soundfile.write(music / f"{index}.wav", wav, 16000)
        lines.append(f"{index}.wav,{['noise', 'tone'][index % 2]},{index // 4}")
    (music / "labels.csv").write_text("\n".join(lines) + "\n")
    for name, text in (("two", EXPERIMENT), ("small", STUDY), ("probe", PROBE)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.replace("FOLDER", str(music)))
    return tmp_path


def options(folder):
    """Options of the command."""
    return [
        folder / "small.yaml",
        *("--output_folder", folder / "study", "--runs_folder", folder / "runs"),
    ]


def ablate(*options, check=True):
    """Runs the command; sums differ with the number of threads."""
    # Two trainings and two probes, each a process that imports everything anew.
    result = Fork(SCRIPT, *options, OMP_NUM_THREADS="1").result(900)
    return checked(result) if check else result


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_with_the_same_numbers(study):
    both = [*options(study), "--devices", "[cpu, cpu]"]
    fork = Fork(SCRIPT, *both, OMP_NUM_THREADS="1")
    runs = study / "runs"
    while not [path for path in runs.glob("*/metrics.jsonl") if path.stat().st_size]:
        assert fork.process.is_alive()
        time.sleep(0.1)
    fork.kill()  # the study and what it has started
    assert not list(runs.glob("*/finished.json"))

    result = ablate(*both)
    assert "Report:" in result.stdout
    content = json.loads((study / "study" / "study.json").read_text())
    assert content["missing"] == []
    assert [run["experiment"] for run in content["runs"]] == ["two", "one"]
    assert [run["num_codebooks"] for run in content["runs"]] == [2, 1]
    heard = {(run["updates"], run["audio_seconds"]) for run in content["runs"]}
    assert heard == {(4, 16.0)}

    # A run that nobody interrupted.
    alone = study / "alone"
    arguments = ["--target.quantizer.num_codebooks", "1", "--seed", "1"]
    arguments += ["--output_folder", alone]
    arguments += ["--data_folder", study / "music", "--optimizer_step_limit", "4"]
    arguments += ["--data.corpus_folder", study / "music" / "corpus"]
    arguments += ["--valid_interval", "2", "--final_probe", "False"]
    recipe("train.py", study / "two.yaml", *arguments, OMP_NUM_THREADS="1")
    test = json.loads((alone / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("cross_entropy", "accuracy", "code_entropy"):
        assert content["runs"][1][name] == pytest.approx(test[name], rel=1e-5)

    # Nothing is left to do: the same numbers again, from the records alone.
    assert "one seed" in (study / "study" / "report.md").read_text()
    (runs / "records").rename(study / "records")
    shutil.rmtree(runs)
    again = ablate(*options(study), "--records_folder", study / "records")
    assert "train on cpu" not in again.stdout and not runs.exists()
    later = json.loads((study / "study" / "study.json").read_text())
    assert later["runs"] == content["runs"]

    # Looked at from where the records are not: nothing is lost.
    result = ablate(*options(study), "--only_report", "True", check=False)
    assert result.returncode == 2
    assert "study.json tells of one with seed 1, two with seed 1" in result.stderr
    assert later == json.loads((study / "study" / "study.json").read_text())


def test_run_options_are_refused(study):
    result = ablate(*options(study), "--device", "cpu", check=False)
    assert result.returncode == 2
    assert "device: a study takes no run options. Set devices" in result.stderr
