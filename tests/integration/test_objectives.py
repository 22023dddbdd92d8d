"""Several objectives at once: the experiment files as they stand, only smaller."""

import json
import math

import pytest
import torch
import yaml

from muq_plugins.errors import UserError
from muq_plugins.evaluation.pages import headline
from muq_plugins.evaluation.run_files import load_measures, read_metrics, select
from muq_plugins.inference.muq import MuQ, save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import HERE, experiment_file, recipe_here
from tests.integration.test_targets import SMALL, SMALL_TOKENIZER


@pytest.fixture(scope="module")
def mt4ssl(data_options, tmp_path_factory):
    """A run with a trained tokenizer, a fitted one with stored labels, and neither."""
    folder = tmp_path_factory.mktemp("mt4ssl")
    torch.manual_seed(0)
    teacher = MuQEncoder(16, 2, 2, 32, conv_channels=4)
    save_muq(folder / "teacher", teacher.eval())
    tiny = yaml.safe_load((HERE / "tiny.yaml").read_text())
    clusters = {
        "target": {"quantizer": {"codebook_size": 8}},
        "tokenizer": SMALL_TOKENIZER,
    }
    small = {**SMALL, "target": tiny["target"], "tokenizer": SMALL_TOKENIZER}
    small["targets"] = {"clusters": clusters}
    path = folder / "small.yaml"
    path.write_text(f"extends: {experiment_file('mt4ssl')}\n" + yaml.safe_dump(small))
    source = ["--targets.clusters.target.features.source", folder / "teacher"]
    command = [path, *source, "--output_folder", folder / "run", *data_options]
    recipe_here("train.py", *command)
    return folder / "run", command


def test_every_target_is_learned_with_numbers_of_its_own(mt4ssl):
    run, _ = mt4ssl
    rows = read_metrics(run / "metrics.jsonl")
    test = select(rows, kind="test")[-1]
    sizes = {"mel_rvq": (2, 32), "clusters": (1, 8), "random": (4, 256)}
    for name, (codebooks, entries) in sizes.items():
        assert len(test[f"{name}/cross_entropy_per_codebook"]) == codebooks
        assert test[f"{name}/chance"] == pytest.approx(math.log(entries))
    parts = [test[f"{name}/loss"] for name in sizes]
    assert test["loss"] == pytest.approx(sum(parts), rel=0.02)
    assert test["random/random_target"] == "RandomProjection"
    assert "clusters/random_target" not in test and "chance" not in test


def test_every_tokenizer_and_the_labels_are_there(mt4ssl):
    run, _ = mt4ssl
    for folder in ("tokenizer", "tokenizer_clusters"):
        assert (run / folder / "inference" / "model.safetensors").is_file()
    labels = json.loads((run / "labels" / "labels.json").read_text())
    assert labels["codebook_size"] == 8 and labels["layer"] == 2
    facts = (run / "history.jsonl").read_text()
    assert "teacher_clusters" in facts


def test_the_report_tells_them_apart(mt4ssl):
    run, _ = mt4ssl
    text = (run / "report.md").read_text()
    measures = load_measures(run)
    for name in ("mel_rvq", "clusters", "random"):
        assert f"Has it learned from the music? ({name})" in text
        assert (run / "figures" / f"{name}_loss.png").is_file()
        assert (run / "figures" / f"{name}_codes.png").is_file()
        assert f"{name}/cross_entropy" in measures
    assert "tokenizer_clusters: " in text
    first = [line.split(": ")[0] for line in headline(run)[:3]]
    assert first == ["mel_rvq", "clusters", "random"]


def test_the_command_again_finds_everything_done(mt4ssl):
    run, command = mt4ssl
    before = {p: p.stat().st_mtime_ns for p in run.glob("**/model.safetensors")}
    rows = (run / "metrics.jsonl").read_text()
    recipe_here("train.py", *command)
    told = [json.loads(line) for line in rows.splitlines()]
    again = read_metrics(run / "metrics.jsonl")
    assert [r for r in again if r["kind"] == "train"] == select(told, kind="train")
    for path in run.glob("tokenizer*/**/model.safetensors"):
        assert path.stat().st_mtime_ns == before[path]


#: Experiments that name no codes: what is made smaller, and the numbers of a test row.
WITHOUT_CODES = {
    "clmr": ({"view_seconds": 1.0}, ["loss", "accuracy", "chance"]),
    "ema_latents": (
        {"top_layers": 1},
        ["error", "constant_error", "target_spread", "prediction_spread", "rank"],
    ),
}


@pytest.mark.parametrize("name", WITHOUT_CODES)
def test_what_names_no_codes_trains(name, data_options, tmp_path):
    settings, numbers = WITHOUT_CODES[name]
    (objective,) = {"clmr": ["views"], "ema_latents": ["latents"]}[name]
    small = {**SMALL, "modules": {"pretrain": {"objectives": {objective: settings}}}}
    path, run = tmp_path / "small.yaml", tmp_path / "run"
    path.write_text(f"extends: {experiment_file(name)}\n" + yaml.safe_dump(small))
    recipe_here("train.py", path, "--output_folder", run, *data_options)
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in select(rows, kind="train")] == [1, 2, 3]
    test = select(rows, kind="test")[-1]
    assert all(math.isfinite(test[number]) for number in numbers)
    text = (run / "report.md").read_text()
    assert "Has it learned from the music?" in text and "codebook" not in text
    titles = [m.title.partition(",")[0] for m in load_measures(run).values()]
    assert len(titles) > 1 and all(f"| {title} |" in text for title in titles)
    assert headline(run)[0].startswith(titles[0].lower()[:10])
    wavs = torch.randn(1, 24000)
    assert MuQ.from_pretrained(run)(wavs).last_hidden_state.shape[:2] == (1, 25)


def test_what_names_no_codes_has_no_tokenizer_and_no_labels(tmp_path):
    path, options = experiment_file("clmr"), ["--output_folder", tmp_path / "run"]
    for script, words in (
        ("train_tokenizer.py", "there is no tokenizer to train .it asks for no codes"),
        ("extract_labels.py", "stores no labels"),
    ):
        with pytest.raises(UserError, match=words):
            recipe_here(script, path, *options)
    with pytest.raises(UserError, match="batch_size is 1.*give --batch_size 2 or more"):
        recipe_here("train.py", path, *options, "--batch_size", "1")
    assert not (tmp_path / "run").exists()
