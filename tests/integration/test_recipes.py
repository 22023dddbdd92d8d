"""The commands of a user, from scanning a folder to using the trained model."""

import json
import math
import os
import re

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file

import muq_plugins
from muq_plugins.data.audio import read_audio
from muq_plugins.evaluation.run_files import read_metrics, select
from tests.goldens.metrics import check_rows
from tests.integration.commands import (
    HERE,
    complaint,
    experiment_file,
    recipe,
    started_recipe,
)


@pytest.fixture(scope="module")
def started(data_options, tmp_path_factory):
    """A run without a tokenizer, started as a user does, and what it printed."""
    folder = tmp_path_factory.mktemp("started") / "run"
    given = [HERE / "tiny.yaml", *data_options, "--output_folder", folder]
    given += ["--optimizer_step_limit", "10"]  # of pre-training, not of the tokenizer
    return folder, given, started_recipe("train.py", *given)


def test_a_run_is_documented(started, tokenizer_run):
    for folder in (started[0], tokenizer_run):
        for name in ("report.html", "hyperparams.yaml", "log.txt", "env.log"):
            assert (folder / name).stat().st_size > 0, name
    assert (started[0] / "train.py").is_file()  # SpeechBrain keeps what was started


def stages_in(text):
    """Which stages a run has told of, without the time that they took."""
    found = re.findall(r"[Ss]tage \d of \d: .*", text)
    return [re.sub(r", [^,]* so far$", "", words) for words in found]


def test_it_tells_which_stage_begins_and_how_long_it_takes(started, pretrain_run):
    folder, _, result = started
    stages = [
        "Stage 1 of 4: music",
        "Stage 2 of 4: tokenizer (30 updates)",
        "Stage 3 of 4: training (10 updates)",
        "Stage 4 of 4: test, probe and report",
    ]
    assert stages_in(result.stdout) == stages
    assert stages_in((folder / "log.txt").read_text()) == stages
    assert re.search(r"Stage 4 .*, \d+ s so far", result.stdout)
    assert re.search(r"Step 10 of 30: about \d+ s left", result.stdout)
    # With a finished tokenizer there is nothing to train before.
    given = stages_in((pretrain_run / "log.txt").read_text())
    assert given[1] == "Stage 2 of 3: training (12 updates)"


def test_a_tokenizer_is_trained_first_and_leaves_everything(started):
    folder, _, result = started
    folder = folder / "tokenizer"
    rows = read_metrics(folder / "metrics.jsonl")
    train = select(rows, kind="train")
    assert train[-1]["step"] == 30 and train[-1]["loss"] < 0.7 * train[0]["loss"]
    valid = select(rows, kind="valid")
    assert [row["step"] for row in valid] == [15, 30]
    assert len(valid[-1]["usage"]) == 2 and len(valid[-1]["perplexity"]) == 2
    assert len(valid[-1]["reconstruction_error_per_level"]) == 3
    assert "code usage" in result.stdout and "report.html" in result.stdout
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") >= 4


def test_the_pretraining_run_leaves_everything(started):
    folder, _, result = started
    rows = read_metrics(folder / "metrics.jsonl")
    train = select(rows, kind="train")
    assert [row["step"] for row in train] == list(range(1, 11))
    assert train[-1]["loss"] < train[0]["loss"]
    valid = select(rows, kind="valid")[-1]
    assert valid["chance"] == pytest.approx(math.log(32))
    assert 0 < valid["code_entropy"] <= valid["chance"]
    assert len(valid["accuracy_per_codebook"]) == 2
    last = result.stdout.strip().splitlines()[-4:]
    assert [line.split()[0] for line in last] == ["masked", "masked", "code", "Report:"]
    assert "chance (ln V): 3.47 nat" in last[0]
    assert (folder / "report.html").is_file()
    figures = [imread(path) for path in (folder / "figures").iterdir()]
    assert len(figures) >= 4 and all(figure.std() > 0.01 for figure in figures)


def test_the_same_command_again_trains_nothing_again(started):
    folder, given, _ = started
    weights = folder / "tokenizer/inference/model.safetensors"
    before = weights.stat().st_mtime_ns
    again = recipe("train.py", *given)
    assert weights.stat().st_mtime_ns == before
    assert "Report:" in again.stdout
    assert "Stage 2 of 4: tokenizer" in again.stdout
    assert f"It is finished, in {folder / 'tokenizer'}." in again.stdout
    assert " left." not in again.stdout


def test_the_rows_are_the_golden_ones(tokenizer_run, pretrain_run):
    check_rows("tokenizer", tokenizer_run)
    check_rows("pretrain", pretrain_run, relative=1e-2)


def test_the_trained_model_can_be_used(pretrain_run, music):
    folder = pretrain_run
    wavs = read_audio(next(music.rglob("1.flac")))[None, :48000]
    for model in (
        muq_plugins.MuQ.from_pretrained(folder),
        muq_plugins.MuQ.from_pretrained(folder / "inference"),
        *(
            muq_plugins.MuQ.from_hparams(
                str(source), savedir=str(folder / f"sb_cache_{source.name}")
            )
            for source in (folder, folder / "inference")
        ),
    ):
        out = model(wavs, torch.tensor([1.0]))
        assert out.last_hidden_state.shape == (1, 50, 32)
        assert len(out.hidden_states) == 3
        weights = load_file(folder / "inference" / "model.safetensors")
        for name, value in model.mods.encoder.state_dict().items():
            assert torch.equal(value, weights[name]), name
        assert not model.mods.encoder.training


def test_the_saved_hyperparameters_reproduce_the_run(pretrain_run, tmp_path):
    saved = pretrain_run / "hyperparams.yaml"
    recipe("train.py", saved, "--output_folder", tmp_path / "run")
    first, second = (
        load_file(path / "inference" / "model.safetensors")
        for path in (pretrain_run, tmp_path / "run")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_tokenizer_is_the_one_that_was_trained(pretrain_run, tokenizer_run):
    state = torch.load(
        next((pretrain_run / "save").glob("CKPT*/pretrain.ckpt")), weights_only=True
    )
    trained = load_file(tokenizer_run / "inference" / "model.safetensors")
    for name, value in trained.items():
        assert torch.equal(state[f"objectives.codes.target.{name}"], value), name


def test_a_tokenizer_of_another_experiment_is_an_error(options, tmp_path):
    arguments = ["--output_folder", tmp_path / "run"]
    arguments += ["--target.quantizer.num_codebooks", "4"]
    result = recipe("train.py", *options, *arguments, check=False)
    assert "num_codebooks is 2 there, 4 here" in complaint(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_folder", "{empty}"], "Other files there: none"),
        (["--output_folder", "{file}/results"], "file"),
        (["--num_codebooks", "3"], "here it is 'target.quantizer.num_codebooks'"),
        (["--devise", "cpu"], "device"),
        (["--encoder.hop_length", "480"], "frame_rate"),
        (["--clips_per_update", "0"], "clips_per_update"),
    ],
)
def test_mistakes_are_clear_errors(options, tmp_path, arguments, message):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "empty").mkdir()
    arguments = [
        part.format(empty=tmp_path / "empty", file=tmp_path / "file")
        for part in arguments
    ]
    given = {str(part) for part in arguments}
    defaults = ["--output_folder", tmp_path / "run"]
    if "--output_folder" in given:
        defaults = []
    base = list(options)
    if "--data_folder" in given:
        base[1:3] = []
    result = recipe("train.py", *base, *defaults, *arguments, check=False)
    assert message in complaint(result)


REAL_MUSIC = os.environ.get("MUQ_REAL_MUSIC")


@pytest.mark.skipif(not REAL_MUSIC, reason="MUQ_REAL_MUSIC is not set")
def test_real_recordings_train_without_a_change(tmp_path):
    corpus = ["--data.corpus_folder", tmp_path / "corpus"]
    arguments = [HERE / "tiny.yaml", "--data_folder", REAL_MUSIC, *corpus]
    arguments += ["--output_folder", tmp_path / "run", "--optimizer_step_limit", "6"]
    result = recipe("train.py", *arguments)
    assert "Report:" in result.stdout
    losses = [
        row["loss"]
        for row in select(read_metrics(tmp_path / "run/metrics.jsonl"), kind="train")
    ]
    assert len(losses) == 6 and all(math.isfinite(loss) for loss in losses)
    (scan,) = (tmp_path / "manifests").rglob("scan.json")
    assert json.loads(scan.read_text(encoding="utf-8"))["files"] > 100


def test_large_experiment_has_the_size_of_the_paper_and_trains():
    """One forward and backward pass on CPU, with a clip of 0.8 s."""
    from muq_plugins.experiment import load_hparams, resolve_experiment

    text = resolve_experiment(experiment_file("muq_large"))
    hparams = load_hparams(text)
    stage = hparams["modules"]["pretrain"]
    asked = stage.objectives["codes"]
    parts = {"masking": stage.masking, "encoder": stage.encoder}
    parts |= {"target": asked.target, "head": asked.head}
    count = {k: sum(p.numel() for p in part.parameters()) for k, part in parts.items()}
    assert count == {
        "masking": 0,
        "target": 270_592,
        "encoder": 316_343_296,
        "head": 8_396_800,
    }
    assert (hparams["clips_per_update"], hparams["clip_seconds"]) == (192, 30.0)
    out = stage.train()(torch.randn(1, 19200), None, torch.tensor([3]))
    out.loss.backward()
    assert abs(out.loss.item() - math.log(1024)) < 1.5
    missing = [
        name
        for name, p in stage.named_parameters()
        if p.grad is None and ".target." not in name
    ]
    assert missing == []
    optimizer = hparams["opt_class"]([torch.nn.Parameter(torch.zeros(1))])
    schedule, rates = hparams["lr_schedule"], []
    for update in (16_000, 32_000, 216_000, 400_000):
        schedule(optimizer, update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([2.5e-4, 5e-4, 2.5e-4, 0.0])
