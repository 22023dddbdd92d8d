"""What is known to fail is refused before the first second of work."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from muq_plugins.errors import UserError
from muq_plugins.experiment import load_experiment
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import HERE, ROOT, experiment_file, recipe_here

TINY, TINY_MULAN = HERE / "tiny.yaml", HERE / "tiny_mulan.yaml"
LABELS = f"""
extends: {TINY}
labels: !new:muq_plugins.data.labels.StoredLabels
    window_seconds: 2.0
    context_seconds: 1.0
    folder: FOLDER/labels
"""
TEACHER = ["--targets.clusters.target.features.source", "small"]
OWN_PARTS = """
from muq_plugins.lobes import AudioTower, InfoNCE, LogMel, MuQEncoder

class Encoder(MuQEncoder):
    pass

class Spectrum(LogMel):
    def __init__(self):
        super().__init__(hop_length=960)
        del self.config

class Tower(AudioTower):
    pass

class Loss(InfoNCE):
    pass
"""
STUDY = f"""
extends: {experiment_file("study")}
study: early
title: Is it found at once?
runs_folder: FOLDER/runs
experiments:
    first: {{experiment: {TINY}, label: First}}
    second:
        experiment: {TINY}
        label: Second
        script: train.py
        overrides: {{masking.noise_std: 0.2}}
base: first
groups: [{{title: Both, experiments: [first, second]}}]
questions:
    - {{question: Better?, measure: probe, better: second, than: first}}
budget: {{corpus_minutes: 1, optimizer_step_limit: 4}}
"""


def refused(folder, script, *options, message, run=recipe_here):
    """Runs a recipe that must refuse, and have neither a run nor a corpus begun."""
    options = [str(option).replace("FOLDER", str(folder)) for option in options]
    options += ["--output_folder", folder / "out"]
    there = files(folder)
    with pytest.raises(UserError, match=message):
        run(script, *options)
    assert files(folder) == there


def study(script, *options):
    """As `recipe_here`, without the run options, which a study does not take."""
    sys.path.insert(0, str(ROOT / "recipes" / "MuQ"))
    importlib.import_module(Path(script).stem).main([str(word) for word in options])


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("script", "file", "theirs"),
    [
        ("distil.py", "muq", "MuQ/train.py"),
        ("train_mulan.py", "mel_rvq", "MuQ/train.py"),
        ("probe.py", "muq_iter", "MuQ/train.py"),
        ("train.py", "distil", "MuQ/distil.py"),
        ("train.py", "recognition", "Recognition/train.py"),
        ("train.py", "probe_notes", "MuQ/probe.py"),
        ("train.py", "study_rvq", "MuQ/ablate.py"),
        ("train_tokenizer.py", "embedded", "MARBLE/probe.py"),
        ("probe.py", "zero_shot", "MuQ/zero_shot.py"),
        ("measure_statistics.py", "muq_mulan", "MuQ/train_mulan.py"),
    ],
)
def test_files_of_other_recipes(tmp_path, script, file, theirs):
    """Which recipe it is comes before what is missing in the file for this one."""
    message = rf"{file}\.yaml is for recipes/{theirs}, not recipes/MuQ/{script}"
    refused(tmp_path, script, experiment_file(file), message=message)


def test_whose_recipe_runs(tmp_path, monkeypatch):
    """Also from its folder and by a link; somebody else's recipe takes any file."""
    recipes = ROOT / "recipes"
    (tmp_path / "probe.py").symlink_to(recipes / "MuQ" / "probe.py")
    monkeypatch.chdir(recipes / "MuQ")
    file = str(experiment_file("muq"))
    for started in ("probe.py", "../MARBLE/probe.py", tmp_path / "probe.py"):
        monkeypatch.setattr(sys, "argv", [str(started)])
        with pytest.raises(UserError, match=r"muq\.yaml is for recipes/MuQ/train\.py"):
            load_experiment([file])
    (tmp_path / "own.yaml").write_text("prompts: [a]\n")
    for started, own in (
        ("measure_statistics.py", file),
        (tmp_path / "MuQ" / "probe.py", file),
        (recipes / "Own" / "probe.py", tmp_path / "own.yaml"),
    ):
        monkeypatch.setattr(sys, "argv", [str(started)])
        assert load_experiment([str(own)]).path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokenizer_folder", "FOLDER/nowhere"], "No trained tokenizer in"),
        (["--data_folder", "FOLDER/nowhere"], "data folder .*nowhere does not exist"),
        (["--collections", "[polkas]"], "collections is"),
        (["--clips_per_update", "3"], "batch_size is 2"),
        (
            ["--data.valid_fraction", "0"],
            "valid_fraction is 0, and training needs files",
        ),
        (["--lr", "-1"], "lr is -1: give 0 or more"),
        (["--clip_seconds", "0"], "clip_seconds is 0: give a number above 0"),
        (["--valid_interval", "0"], "valid_interval is 0: give a number above 0"),
        (["--optimizer_step_limit", "0"], "optimizer_step_limit is 0: give a number"),
        (["--tokenizer.log_interval", "0"], "tokenizer.log_interval is 0"),
        # Each new checkpoint would take all others along, and itself
        (["--checkpoints_to_keep", "0"], "checkpoints_to_keep is 0: give a number"),
        (["--clip_seconds", ".inf"], "clip_seconds is inf: give a finite number"),
        (["--max_bad_fraction", "2"], "max_bad_fraction is 2: give a share from 0"),
        (["--corpus_minutes", "0"], "corpus_minutes is 0: give a number above 0"),
        (["--mel_statistics", "[1]"], r"mel_statistics is \[1\], but must be"),
        (["--mel_statistics", "[0, 0]"], r"mel_statistics is \[0, 0\], but must"),
        (
            ["--clip_seconds", "0.02"],
            "clip_seconds is 0.02: the masking needs at least 0.44 seconds .BlockM",
        ),
        (
            ["--masking.block_seconds", "2"],
            "clip_seconds is 2: the masking needs at least 2.04 s",
        ),
        (
            ["--tokenizer.clip_seconds", "0.02"],
            "^tokenizer.clip_seconds is 0.02: .* needs at least 0.043 seconds .LogMel",
        ),
        # Of the first stage, which is trained first
        (["--tokenizer.batch_size", "3"], "Choose --tokenizer.batch_size 2 or 4"),
    ],
)
def test_training(tmp_path, options, message):
    corpus = ["--data.corpus_folder", "FOLDER/corpus"]
    refused(tmp_path, "train.py", TINY, *corpus, *options, message=message)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("clmr", ["--clip_seconds", "2"], "clip_seconds is 2: .*views needs .* 2.68 s"),
        (
            "masking_spans",
            ["--masking.span_seconds", "4"],
            "clip_seconds is 4: the masking needs at least 4.04 s",
        ),
        ("mel_rvq", ["--tokenizer.clip_seconds", "0.02"], "^tokenizer.clip_seconds is"),
        *(
            (
                "mt4ssl",
                [*TEACHER, "--targets.clusters.labels.window_seconds", seconds],
                rf"^targets\.clusters\.labels.*{words}",
            )
            for seconds, words in (("0", "above 0"), ("0.05", "multiples of 0.04 s"))
        ),
    ],
)
def test_clips_and_what_hears_them(tmp_path, file, options, message):
    script = "train_tokenizer.py" if file == "mel_rvq" else "train.py"
    refused(tmp_path, script, experiment_file(file), *options, message=message)


@pytest.mark.parametrize(
    ("script", "text", "message"),
    [
        (
            "train.py",
            "encoder: !new:own_parts.Encoder {width: 32, num_layers: 1}",
            r"^encoder: A Encoder cannot be saved.* @part",
        ),
        (
            "train_tokenizer.py",
            "target: {features: !new:own_parts.Spectrum {}}",
            "^target: Spectrum has no attribute config",
        ),
        (
            "train_mulan.py",
            "audio_tower: !name:own_parts.Tower {latent_width: 16}",
            "needs an AudioTower and a TextTower, got Tower",
        ),
        (
            "train_mulan.py",
            "loss: !new:own_parts.Loss {}",
            "^loss: A Loss cannot be saved.* @part",
        ),
    ],
)
def test_parts_of_ones_own(tmp_path, monkeypatch, script, text, message):
    """What could not be saved at the end."""
    (tmp_path / "own_parts.py").write_text(OWN_PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    base = TINY_MULAN if script == "train_mulan.py" else TINY
    (tmp_path / "own.yaml").write_text(f"extends: {base}\n{text}\n")
    options = [tmp_path / "own.yaml", "--data.corpus_folder", "FOLDER/corpus"]
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    refused(tmp_path, script, *options, message=message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "FOLDER/nowhere"], "No trained MuQ model in"),
        # Of the second model, while the first is not trained yet
        (["--iteration.experiment", "FOLDER/no.yaml"], r"no\.yaml"),
        (["--iteration.overrides", "{widht: 3}"], "muq_latent.yaml.*widht"),
    ],
)
def test_iterations(tmp_path, options, message):
    plan = experiment_file("muq_iter")
    refused(tmp_path, "train.py", plan, *options, message=message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--captions_file", "FOLDER/no.json", "--data_folder", "."],
            "no file of capt",
        ),
        (["--captions_file", "FOLDER/c.json"], "captions_file is .* data_folder is"),
        (["--encoder", "FOLDER/nowhere"], "No trained MuQ model in"),
        (["--text_model", "./nowhere"], "No text model can be loaded from ./n"),
        (["--clips_per_update", "1"], "clips_per_update is 1"),
        *(
            (["--encoder", encoder, "--clip_seconds", "0.02"], "^clip_seconds is 0.02")
            for encoder in ("small", "untrained", "null")
        ),
        (
            ["--encoder", "null", "--pretraining.overrides.clip_seconds", "0.02"],
            "^pretraining: clip_seconds is 0.02: the masking",
        ),
        (["--pretraining.experiment", "FOLDER/no.yaml"], r"no\.yaml"),
        (["--pretraining.experiment", "FOLDER/none.yaml"], "which trains no encoder"),
        (["--pretraining.overrides.widht", "3"], "tiny.yaml.*widht"),
        (
            ["--encoder", "null", "--pretraining.overrides.clips_per_update", "3"],
            "batch_size is 2",
        ),
    ],
)
def test_towers(tmp_path, options, message):
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "none.yaml").write_text(f"extends: {TINY}\nmodules: !remove\n")
    corpus = ["--data.corpus_folder", "FOLDER/corpus"]
    options = [TINY_MULAN, *corpus, *options]
    refused(tmp_path, "train_mulan.py", *options, message=message)


def test_probes(tmp_path):
    encoder = MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(tmp_path / "encoder", encoder)
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", np.zeros(2400) + 0.1, 24000)
    (tmp_path / "labels.csv").write_text("path,mood\na.wav,sad\n")
    plain = [experiment_file("probe"), "--encoder", "FOLDER/encoder"]
    plain += ["--data.corpus_folder", "FOLDER/corpus"]
    plain += ["--notes.notes_folder", "FOLDER/notes"]
    useless = ["--precision", "bf16", "--compile"]
    message = "^compile, precision: only a training follows this, .* Leave it out"
    refused(tmp_path, "probe.py", *plain, *useless, message=message)
    tasks = ["--tasks", "[{label: famly}]"]
    refused(tmp_path, "probe.py", *plain, *tasks, message="nearest one is 'family'")
    table = [experiment_file("probe_csv"), "--encoder", "FOLDER/encoder", "--group"]
    table += ["null", "--labels_csv", "FOLDER/labels.csv", "--audio_folder"]
    table += ["FOLDER/music", "--tasks", "[{label: moood}]"]
    refused(tmp_path, "probe.py", *table, message="nearest one is 'mood'")


def test_label_extraction(tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_text(LABELS.replace("FOLDER", str(tmp_path)))
    options = [path, "--data.corpus_folder", "FOLDER/corpus", "--tokenizer_folder"]
    message = "No trained tokenizer in"
    refused(tmp_path, "extract_labels.py", *options, "FOLDER/no", message=message)


def test_zero_shot(tmp_path):
    options = [experiment_file("zero_shot_corpus"), "--model", "FOLDER/nowhere"]
    useless = [*options, "--max_grad_norm", "3"]
    refused(tmp_path, "zero_shot.py", *useless, message="^max_grad_norm: only a train")
    options += ["--clips.prepare.corpus_folder", "FOLDER/corpus"]
    refused(tmp_path, "zero_shot.py", *options, message="nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [
                "--questions",
                "[{question: a, measure: gian, rises: {first: 1}}]",
            ],
            r"study.yaml: questions\[0\].measure must be .* gain, .*got 'gian'",
        ),
        (
            # A measure of another kind of study
            ["--questions", "[{question: a, measure: roc_auc, rises: {first: 1}}]"],
            r"questions\[0\].measure must be one of",
        ),
        (
            ["--questions", "[{question: a, measure: probe, better: frist, than: b}]"],
            r"questions\[0\].better must be one of the experiments",
        ),
        (
            ["--questions", "[{question: a, measure: 'probe:corpus/kee', rises: {}}]"],
            r"measure must be one of .*probe:corpus/key.*, got 'probe:corpus/kee'",
        ),
        (
            ["--groups", "[{title: a, experiments: [frist]}]"],
            r"groups\[0\].experiments",
        ),
        (["--base", "frist"], "base must be one of"),
        (["--devices", "cpu"], "devices must be a list, got 'cpu'"),
        (["--seeds", "1"], "seeds must be a list, got 1"),
        (["--budget.lr", "-1"], "lr is -1: give 0 or more"),
        (["--lr", "0.1"], "--lr is neither .* all runs of a study is --budget.lr"),
        (
            ["--only_report", "True", "--records_folder", "FOLDER/rusn"],
            "no folder .*rusn, where records would be",
        ),
        (["--experiments.second.label", "First"], "different labels"),
        (["--experiments.second.script", "trian.py"], "there is no recipe .*trian.py"),
        (
            ["--experiments.second.overrides", "{masking.noise_sdt: 0.1}"],
            "second.*noise_sdt|noise_sdt.*second",
        ),
        (["--probes.corpus.overrides.precision", "bf16"], "precision: only a train"),
        (
            ["--probes.corpus.overrides.tasks", "[{label: famly}]"],
            "nearest one is 'family'",
        ),
        (
            ["--probes.corpus.overrides.tasks", "[{label: programs, kind: multi}]"],
            "probes.corpus: a study compares labels with one class",
        ),
    ],
)
def test_studies(tmp_path, options, message):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("FOLDER", str(tmp_path)))
    refused(tmp_path, "ablate.py", path, *options, message=message, run=study)
