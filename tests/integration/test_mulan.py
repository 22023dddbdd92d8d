"""Two towers learn real pairs: from a folder of sounds to a model that is used."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import RobertaConfig, RobertaModel

from muq_plugins.brains import MuLanBrain
from muq_plugins.errors import UserError
from muq_plugins.evaluation.run_files import read_metrics, select
from muq_plugins.experiment import load_hparams, resolve_experiment
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.text_models import make_text_model
from muq_plugins.lobes import MuQEncoder
from tests.goldens.metrics import check_rows
from tests.integration.commands import HERE, experiment_file, recipe_here, two_ranks

TINY = HERE / "tiny_mulan.yaml"
NAMES = ["flute", "harmonica", "tuba", "violin"]


def sound(kind, seed, seconds=2.0, rate=16000):
    """Ten sines somewhere in one of four octaves that lie far apart."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitches = 60 * 4.0**kind * 2 ** random.uniform(size=(10, 1))
    phases = random.uniform(0, 2 * np.pi, size=(10, 1))
    wav = np.sin(2 * np.pi * pitches * time + phases).sum(axis=0)
    return 0.05 * wav + 0.001 * random.normal(size=len(time))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Options that point a recipe to 40 files and the labels of them."""
    folder = tmp_path_factory.mktemp("sounds")
    captions = {}
    for index in range(40):
        kind = index % 4
        soundfile.write(folder / f"{index}.wav", sound(kind, index), 16000)
        captions[f"{index}.wav"] = {"instruments": [NAMES[kind]]}
    path = folder / "captions.json"
    path.write_text(json.dumps(captions), encoding="utf-8")
    results = tmp_path_factory.mktemp("results")
    options = ["--data_folder", folder, "--captions_file", path]
    return [TINY, *options, "--data.corpus_folder", results / "corpus"]


@pytest.fixture(scope="module")
def run(sounds, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("mulan") / "run"
    recipe_here("train_mulan.py", *sounds, "--output_folder", folder)
    return folder


def weights(folder):
    return load_file(folder / "inference" / "model.safetensors")


def differing(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def losses(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return [row["loss"] for row in select(rows, kind="train")]


def test_it_learns(run):
    rows = select(read_metrics(run / "metrics.jsonl"), kind="train")
    assert [row["step"] for row in rows] == list(range(1, 61))
    late = rows[-10:]
    chance = np.mean([row["chance"] for row in late])
    assert np.mean([row["loss"] for row in late]) < chance - 0.4
    assert rows[0]["loss"] > rows[0]["chance"] - 0.4


def test_the_rows_are_the_golden_ones(run):
    # Empty bands are rounding, which differs from CPU to CPU and is normalised too.
    check_rows("mulan", run, relative=1e-2)


def test_it_names_sounds_that_it_has_never_heard(run):
    model = MuQMuLan.from_pretrained(run)
    kinds = [index % 4 for index in range(16)]
    wavs = [sound(kind, 1000 + i, 1.0, 24000) for i, kind in enumerate(kinds)]
    latents = model.embed_audio(torch.tensor(np.stack(wavs), dtype=torch.float32))
    for names in (NAMES, ["长笛", "口琴", "大号", "小提琴"]):
        nearest = model.similarity(latents, model.embed_text(names)).argmax(dim=1)
        assert (nearest == torch.tensor(kinds)).float().mean() >= 0.8


def test_it_leaves_everything(run):
    for name in ("report.html", "report.md", "hyperparams.yaml", "log.txt"):
        assert (run / name).stat().st_size > 0, name
    scores = json.loads((run / "mulan.json").read_text(encoding="utf-8"))
    assert list(scores["retrieval"]) == ["en", "zh"]
    assert [path.suffix for path in (run / "latents").iterdir()] == [".npy"]
    kinds = [row["kind"] for row in read_metrics(run / "metrics.jsonl")]
    assert kinds.count("valid") == 2 and kinds[-1] == "test"


def test_the_same_command_again_changes_nothing(run, sounds, capsys):
    before = weights(run)
    recipe_here("train_mulan.py", *sounds, "--output_folder", run)
    assert differing(before, weights(run)) == []
    first, second = capsys.readouterr().out.strip().splitlines()[-4:][::3]
    assert first.startswith("text to music, recall at 10")
    assert second.startswith("Report: ")


def test_other_captions_leave_the_tokenizer_that_was_learned_with(run, sounds):
    """Else the weights would get other pieces of words."""
    path = sounds[sounds.index("--captions_file") + 1]
    text, before = path.read_text(encoding="utf-8"), weights(run)
    tokenizers = {p: p.read_bytes() for p in (run / "text_model").iterdir()}
    try:
        path.write_text(text.replace(NAMES[0], "an entirely different zither"))
        recipe_here("train_mulan.py", *sounds, "--output_folder", run)
    finally:
        path.write_text(text, encoding="utf-8")
    assert {p: p.read_bytes() for p in (run / "text_model").iterdir()} == tokenizers
    assert differing(before, weights(run)) == []


def test_an_interrupted_run_ends_with_the_same_weights(sounds, tmp_path, monkeypatch):
    short = [*sounds, "--optimizer_step_limit", "8", "--ckpt_interval_steps", "1"]
    short += ["--new_text_model.dropout", "0.1"]
    recipe_here("train_mulan.py", *short, "--output_folder", tmp_path / "whole")

    def stop_at(brain, *arguments):
        if brain.optimizer_step == 5:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(MuLanBrain, "on_fit_batch_end", stop_at)
        with pytest.raises(RuntimeError, match="power cut"):
            recipe_here("train_mulan.py", *short, "--output_folder", tmp_path / "cut")
    recipe_here("train_mulan.py", *short, "--output_folder", tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert differing(weights(tmp_path / "whole"), weights(tmp_path / "cut")) == []


def test_chunks_learn_what_the_whole_batch_learns(sounds, run, tmp_path):
    steps = ["--optimizer_step_limit", "4"]
    recipe_here("train_mulan.py", *sounds, *steps, "--output_folder", tmp_path / "a")
    steps += ["--chunk_size", "3"]
    recipe_here("train_mulan.py", *sounds, *steps, "--output_folder", tmp_path / "b")
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=1e-4)


@pytest.mark.slow
def test_without_an_encoder_one_is_pretrained_first(sounds, tmp_path):
    options = ["--encoder", "null", "--optimizer_step_limit", "2"]
    recipe_here("train_mulan.py", *sounds, *options, "--output_folder", tmp_path / "x")
    encoder = tmp_path / "x" / "encoder"
    told = (tmp_path / "x" / "log.txt").read_text()
    assert "Stage 2 of 4: encoder" in told
    assert "Stage 4 of 4: test, evaluation and report" in told
    inner = (encoder / "log.txt").read_text()
    assert "Encoder, stage 3 of 4: training (2 updates)" in inner
    assert "Stage 4 of 4: test, evaluation and report" not in inner
    assert (encoder / "inference" / "model.safetensors").is_file()
    # The limit of the command line is that of the two towers.
    rows = read_metrics(encoder / "metrics.jsonl")
    assert select(rows, kind="train")[-1]["step"] == 2
    assert len(losses(tmp_path / "x")) == 2
    # Another run takes it, and goes on from its weights.
    options = ["--encoder", encoder, *options[2:], "--output_folder", tmp_path / "y"]
    recipe_here("train_mulan.py", *sounds, *options)
    assert differing(weights(tmp_path / "x"), weights(tmp_path / "y")) == []
    options[1] = "untrained"
    options[-1] = tmp_path / "z"
    recipe_here("train_mulan.py", *sounds, *options)
    untrained = weights(tmp_path / "z")
    assert differing(weights(tmp_path / "x"), untrained) != []
    means = [name for name in untrained if name.endswith("running_mean")]
    assert means and all(untrained[name].abs().max() > 0 for name in means)


def test_a_text_model_that_is_given_stays_as_it_is_when_frozen(sounds, tmp_path):
    folder = make_text_model(tmp_path / "text", ["slow flute"] * 9, 300, 32, 1, 4, 64)
    model = RobertaModel(RobertaConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    options = ["--text_model", folder, "--text_tower.trainable", "none"]
    options += ["--optimizer_step_limit", "2", "--output_folder", tmp_path / "run"]
    recipe_here("train_mulan.py", *sounds, *options)
    assert not (tmp_path / "run" / "text_model").exists()
    trained = MuQMuLan.from_pretrained(tmp_path / "run").mods.text.model.state_dict()
    given = model.state_dict()
    assert all(torch.equal(trained[name], given[name]) for name in trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--captions_file", "null"], "has nothing to write a caption from"),
        (["--captions.languages", "[de]"], r"languages is \['de'\]"),
        (["--text_tower.latent_width", "8"], "same latent_width"),
    ],
)
def test_mistakes_are_clear_errors(sounds, tmp_path, arguments, message):
    options = dict(zip(sounds[1::2], sounds[2::2], strict=True))
    options |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    options["--output_folder"] = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        recipe_here("train_mulan.py", TINY, *sum(options.items(), ()))


def test_errors_of_training_keep_their_traceback(sounds, tmp_path, monkeypatch):
    def fails(brain, *arguments):
        raise ValueError("a bug")

    monkeypatch.setattr(MuLanBrain, "fit", fails)
    with pytest.raises(ValueError, match="a bug") as raised:
        recipe_here("train_mulan.py", *sounds, "--output_folder", tmp_path / "run")
    assert not isinstance(raised.value, UserError)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(sounds, tmp_path):
    common = [*sounds, "--optimizer_step_limit", "10", "--valid_interval", "10"]
    recipe_here("train_mulan.py", *common, "--output_folder", tmp_path / "one")
    common += ["--output_folder", tmp_path / "two"]
    first, second = two_ranks("train_mulan.py", *common)
    assert "Report:" in first.stdout and "Report:" not in second.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
    valid = [
        select(read_metrics(tmp_path / name / "metrics.jsonl"), kind="valid")[-1]
        for name in ("one", "two")
    ]
    assert valid[1]["chance"] == valid[0]["chance"]
    assert valid[1]["loss"] == pytest.approx(valid[0]["loss"], rel=1e-3)


def test_the_large_experiment_is_that_of_the_paper_and_trains(tmp_path):
    """One forward and backward pass, with smaller models and nothing downloaded."""
    overrides = {"new_text_model": {"num_layers": 1, "vocab_size": 300}}
    text = resolve_experiment(experiment_file("muq_mulan_large"), overrides)
    hparams = load_hparams(text)
    assert hparams["encoder"] == "OpenMuQ/MuQ-large-msd-iter"
    assert hparams["text_model"] == "xlm-roberta-base"
    assert (hparams["clips_per_update"], hparams["clip_seconds"]) == (768, 10.0)
    assert (hparams["chunk_size"], hparams["max_grad_norm"]) == (24, 0.5)
    source = hparams["new_text_model"](tmp_path / "text", ["slow flute"] * 9)
    # No dropout: chunks draw other numbers for it.
    encoder = MuQEncoder(32, 1, 4, 64, 4, dropout=0.0)
    stage = hparams["stage"](
        audio_tower=hparams["audio_tower"](encoder),
        text_tower=hparams["text_tower"](source, pretrained=False),
    )
    assert stage.chunk_size == 24
    assert stage.audio_tower.projection.weight.shape == (768, 32)
    assert stage.audio_tower.latent_width == stage.text_tower.latent_width == 512
    transformer = stage.text_tower.transformer
    assert sum(p.numel() for p in transformer.parameters()) == 50_344_960
    stage.chunk_size = 2
    texts = ["slow flute", "快速的小号", "🎻"]
    wavs = torch.randn(3, 24000)
    out = stage.train()(wavs, None, texts)
    out.loss.backward()
    with torch.no_grad():
        stage.chunk_size = None
        whole = stage(wavs, None, texts).loss
    assert out.loss.item() == pytest.approx(whole.item(), rel=1e-5)
    assert all(p.grad is not None for p in transformer.parameters())
    assert all(p.grad is None for p in stage.text_tower.model.parameters())
    assert all(p.grad is not None for p in stage.audio_tower.encoder.parameters())
    optimizer = hparams["opt_class"]([torch.nn.Parameter(torch.zeros(1))])
    group = optimizer.param_groups[0]
    assert group["betas"] == (0.9, 0.99) and group["weight_decay"] == 0
    for update in (1, 1000, 10_000):
        hparams["lr_schedule"](optimizer, update)
        assert group["lr"] == 1e-4
