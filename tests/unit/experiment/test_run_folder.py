"""A run folder is one experiment, and one process works in it."""

import json
import logging
import os
from pathlib import Path

import pytest

from muq_plugins.errors import UserError
from muq_plugins.experiment import (
    check_run,
    load_experiment,
    note_inputs,
    save_experiment,
)
from muq_plugins.experiment.run_folder import hash_values, values
from muq_plugins.files import read_json_lines
from tests.forks import FORKS

MODEL = """
# Words that change nothing
seed: 1234
output_folder: results/<seed>
data_folder: null
lr: 0.0004
optimizer_step_limit: 20
num_workers: 0
chunk_size: null
betas: (0.9, 0.98)
data:
    corpus_folder: results/corpus
    data_folder: !ref <data_folder>
opt_class: !name:torch.optim.AdamW
    lr: !ref <lr>
    weight_decay: 0.01
tokenizer:
    lr: 0.01
    log_interval: 20
    optimizer_step_limit: 800
pretraining:
    experiment: muq.yaml
    overrides: {seed: !ref <seed>}
lr_schedule: !new:speechbrain.nnet.schedulers.WarmCoolDecayLRSchedule
    lr: !ref <lr>
    warmup: 2
    cooldown: !ref <optimizer_step_limit> - 2
    total_steps: !ref <optimizer_step_limit>
    decay_factor: 1.0
"""


@pytest.fixture
def begin(tmp_path):
    """Begins a run in a folder with what the command line says."""
    (tmp_path / "model.yaml").write_text(MODEL)

    def go(*options, file="model.yaml", study=False):
        argv = [str(tmp_path / file), *map(str, options)]
        return save_experiment(load_experiment(argv), tmp_path / "run", study)

    return go


@pytest.fixture
def run(begin, tmp_path):
    """The folder of a run with twelve updates."""
    begin()
    learn(tmp_path / "run", 12)
    return tmp_path / "run"


def learn(folder: Path, step: int):
    """What training leaves behind."""
    checkpoint = folder / "save" / f"CKPT+{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "CKPT.yaml").write_text(f"step: {step}\nunixtime: 1.0\n")
    row = {"kind": "train", "step": step, "lr": 0.0002}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def content(folder: Path):
    """Every file with its bytes and the time it was written, and every folder.

    Of a lock, some releases of filelock write the time, too.
    """
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.name != "run.lock"
    }


@pytest.mark.parametrize("name", ["muq", "muq_mulan"])
def test_loading_an_experiment_writes_nothing(tmp_path, name):
    """It may be refused after all its objects were built."""
    path = Path(__file__).parents[3] / "hparams" / f"{name}.yaml"
    experiment = load_experiment([str(path), "--output_folder", f"{tmp_path}/run"])
    checkpointer = experiment.hparams["checkpointer"]
    assert checkpointer.list_checkpoints() == []
    assert not (tmp_path / "run").exists()
    checkpointer.recover_if_possible()
    assert (tmp_path / "run" / "save").is_dir()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--lr", "0.01"], "lr: 0.0004 there, 0.01 here"),
        (["--seed", "2"], "seed: 1234 there, 2 here"),
        (["--data_folder", "music"], "data_folder: null there, music here"),
        (["--opt_class.weight_decay", "0.5"], "opt_class.weight_decay: 0.01 there, 0."),
        (["--betas", "(0.9, 0.99)"], "betas: !tuple (0.9, 0.98) there"),
        (["--precision", "bf16"], "precision: (not there) there, bf16 here"),
        (["--tokenizer.lr", "0.5"], "tokenizer.lr: 0.01 there, 0.5 here"),
        (["--optimizer_step_limit", "11"], "20 there, 11, which is fewer than are"),
        (["--lr_schedule.decay_factor", "True"], "decay_factor: 1 there, true here"),
        (["--data.corpus_folder", "x", "--lr", "1"], "lr: 0.0004 there, 1 here"),
    ],
)
def test_what_changes_what_is_learned_is_refused_before_anything_is_written(
    begin, run, options, line
):
    before = content(run)
    with pytest.raises(UserError) as refusal:
        begin(*options)
    message = str(refusal.value)
    assert line in message and str(run) in message and "step 12)" in message
    assert "--output_folder" in message and "go back to the values" in message
    assert "data_folder: !ref" not in message, "a value is named once"
    assert content(run) == before


def test_a_run_can_be_refused_before_long_work(begin, run, tmp_path):
    model = str(tmp_path / "model.yaml")
    before = content(tmp_path)
    check_run(load_experiment([model]), run)
    check_run(load_experiment([model]), tmp_path / "new")
    with pytest.raises(UserError, match="lr: 0.0004 there, 0.01 here"):
        check_run(load_experiment([model, "--lr", "0.01"]), run)
    assert content(tmp_path) == before


def test_all_differences_are_named_at_once(begin, run):
    with pytest.raises(UserError) as refusal:
        begin("--lr", "0.01", "--seed", "2")
    assert "lr: 0.0004" in str(refusal.value) and "seed: 1234" in str(refusal.value)


def test_as_many_updates_as_are_done_can_be_asked_for(begin, run):
    begin("--optimizer_step_limit", "12")
    assert read_json_lines(run / "history.jsonl")[-1]["step"] == 12


def test_what_may_change_goes_on_and_is_recorded_with_its_step(begin, run, caplog):
    with caplog.at_level(logging.WARNING):
        begin("--optimizer_step_limit", "42", "--num_workers", "2")
    row = read_json_lines(run / "history.jsonl")[-1]
    assert row["step"] == 12
    assert row["changed"] == {"optimizer_step_limit": [20, 42], "num_workers": [0, 2]}
    assert "optimizer_step_limit: 42" in (run / "hyperparams.yaml").read_text()
    assert "num_workers changes from 0 to 2, from step 12 on" in caplog.text
    # (42 - 13) of 40 parts of the peak are left at step 13 with the new limit.
    assert "it was 0.0002 up to step 12 and goes on at 0.00029" in caplog.text


def test_device_and_processes_may_change_and_are_recorded(begin, run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    begin("--device", "cpu")
    changed = read_json_lines(run / "history.jsonl")[-1]["changed"]
    assert changed == {"device": [None, "cpu"], "processes": [1, 2]}


def test_the_same_command_goes_on(begin, run):
    text = (run / "hyperparams.yaml").read_text()
    begin()
    assert (run / "hyperparams.yaml").read_text() == text
    assert [row["changed"] for row in read_json_lines(run / "history.jsonl")] == [
        {}
    ] * 2


def test_where_nothing_was_learned_a_mistake_can_be_corrected(begin, tmp_path):
    begin("--data_folder", "musik")
    (tmp_path / "run" / "save").mkdir()
    begin("--data_folder", "music", "--lr", "0.01")
    assert "data_folder: music" in (tmp_path / "run/hyperparams.yaml").read_text()


@pytest.mark.parametrize(
    "result", ["inference/model.safetensors", "scores.json", "iteration-0/inference/x"]
)
def test_other_results_than_checkpoints_are_kept_too(begin, tmp_path, result):
    begin()
    path = tmp_path / "run" / result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(UserError, match="lr: 0.0004 there, 1 here"):
        begin("--lr", "1")


def test_comments_order_and_the_way_a_number_is_written_do_not_count(
    begin, run, tmp_path
):
    lines = MODEL.replace("0.0004", "4.0e-4  # peak").replace("# Words", "# Other")
    lines = lines.replace("seed: 1234\n", "", 1) + "seed: 1234\n"
    (tmp_path / "other.yaml").write_text(lines)
    begin(file="other.yaml")
    assert hash_values(lines) == hash_values(MODEL)
    assert hash_values(MODEL.replace("20", "21")) != hash_values(MODEL)
    assert hash_values("a: True") != hash_values("a: 1")
    assert hash_values("a: '1'") != hash_values("a: 1")


def test_values_by_key():
    text = "a:\n  b: [1, 2.0]\n  c: !ref  <a>  * 2\nd: !name:torch.nn.GELU\ne: {}"
    assert values(text) == {
        "a.b": [1, 2],
        "a.c": "!ref <a> * 2",
        "d": "!name:torch.nn.GELU",
    }


def test_two_names_of_one_folder_are_the_same(begin, tmp_path, monkeypatch):
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    begin("--data_folder", "music")
    learn(tmp_path / "run", 3)
    begin("--data_folder", tmp_path / "music")


def test_a_run_of_before_is_told_from_a_changed_one(begin, run):
    old = (run / "hyperparams.yaml").read_text()
    old = old.replace("tokenizer:\n", "tokenizer:\n  experiment: mel_rvq.yaml\n")
    (run / "hyperparams.yaml").write_text(old)
    with pytest.raises(UserError, match="when a tokenizer had an experiment file"):
        begin()


def test_a_stage_takes_what_may_change_but_not_another_length(begin, run):
    begin("--tokenizer.log_interval", "3")
    begin("--pretraining.overrides.num_workers", "3")
    for stage in ("tokenizer", "pretraining.overrides"):
        with pytest.raises(UserError, match=f"{stage}.optimizer_step_limit"):
            begin(f"--{stage}.optimizer_step_limit", "3")


def test_models_of_an_iteration_get_no_longer_but_more_of_them(tmp_path, begin):
    plan = "iterations: 1\noutput_folder: x\noverrides: {}\n"
    (tmp_path / "plan.yaml").write_text(plan)
    begin(file="plan.yaml")
    (tmp_path / "run/iteration-0/inference").mkdir(parents=True)
    begin("--iterations", "2", file="plan.yaml")
    with pytest.raises(UserError, match="optimizer_step_limit: "):
        begin("--iterations", "2", "--optimizer_step_limit", "9", file="plan.yaml")


def test_a_study_may_grow_but_is_no_other_study(tmp_path, begin):
    (tmp_path / "study.yaml").write_text("study: a\noutput_folder: x\nseeds: [1]\n")
    begin(file="study.yaml", study=True)
    begin("--seeds", "[1, 2]", file="study.yaml", study=True)
    with pytest.raises(UserError, match="study: a there, b here"):
        begin("--study", "b", file="study.yaml", study=True)


def hold(experiment, folder, here, done):
    save_experiment(load_experiment([str(experiment)]), folder)
    here.set()
    done.wait()


def test_the_second_run_in_a_folder_says_who_holds_it(begin, tmp_path):
    here, done = FORKS.Event(), FORKS.Event()
    given = tmp_path / "model.yaml", tmp_path / "run", here, done
    begun = FORKS.Process(target=hold, args=given)
    begun.start()
    assert here.wait(120)
    before = content(tmp_path / "run")
    experiment = load_experiment([str(tmp_path / "model.yaml")])
    with pytest.raises(UserError, match="Another run works in"):
        check_run(experiment, tmp_path / "run")
    with pytest.raises(UserError) as refusal:
        begin()
    assert f"process {begun.pid} on {os.uname().nodename}, since" in str(refusal.value)
    assert str(tmp_path / "model.yaml") in str(refusal.value)
    assert content(tmp_path / "run") == before
    begun.kill()
    begun.join()
    begin()  # the lock has ended with its process


def test_changed_music_is_said_and_another_model_is_refused(run, caplog):
    files, models = {"files": 12, "hash": "1ec3"}, {"tokenizer": "aaaa"}
    note_inputs(run, files, models)
    note_inputs(run, files, models)
    rows = read_json_lines(run / "history.jsonl")
    assert rows[1:] == [{"step": 12, "data": files, "models": models}]
    with caplog.at_level(logging.WARNING):
        note_inputs(run, {"files": 10, "hash": "1ec4"}, models)
    assert "the music has changed" in caplog.text and '"files": 10' in caplog.text
    assert read_json_lines(run / "history.jsonl")[-1]["data"]["files"] == 10
    with pytest.raises(UserError, match="the tokenizer that this run"):
        note_inputs(run, files, {"tokenizer": "bbbb"})
