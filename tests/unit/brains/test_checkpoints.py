"""Checkpoints are complete or not there, and the newest complete one is used."""

import json
import os
import random
import time
from pathlib import Path

import numpy
import pytest
import torch

from muq_plugins.brains import AtomicCheckpointer, CheckpointError
from muq_plugins.brains import checkpoints as module
from muq_plugins.brains.checkpoints import RandomStates


@pytest.fixture
def saved(tmp_path):
    """A model with two checkpoints: weights 1, then weights 2."""
    model = torch.nn.Linear(2, 2, bias=False)
    checkpointer = AtomicCheckpointer(tmp_path / "save", {"model": model})
    checkpoints = []
    for value in (1.0, 2.0):
        torch.nn.init.constant_(model.weight, value)
        checkpoints.append(checkpointer.save_checkpoint(meta={"value": value}))
    torch.nn.init.constant_(model.weight, 0.0)
    return model, checkpointer, checkpoints


def test_the_newest_is_loaded(saved):
    model, checkpointer, (_, second) = saved
    assert checkpointer.recover_if_possible().path == second.path
    assert model.weight[0, 0] == 2


@pytest.mark.parametrize("damage", ["truncate", "delete", "no sizes", "garbage"])
def test_a_damaged_one_is_passed_over(saved, damage):
    model, checkpointer, (first, second) = saved
    file = second.paramfiles["model"]
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "delete":
        file.unlink()
    elif damage == "no sizes":
        (second.path / "SIZES.json").unlink()
    else:  # the right size, but not what was written
        file.write_bytes(b"x" * file.stat().st_size)
    assert checkpointer.recover_if_possible().path == first.path
    assert model.weight[0, 0] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_neither_saved_nor_loaded(saved, monkeypatch, value):
    model, checkpointer, (first, second) = saved
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    checkpointer.add_recoverable("optimizer", optimizer, optional_load=True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.state[model.weight]["momentum_buffer"][0] = value
    with pytest.raises(CheckpointError, match="optimizer.state.0.momentum_buffer are"):
        checkpointer.save_checkpoint()
    torch.nn.init.constant_(model.weight, value)
    with pytest.raises(CheckpointError, match="values of model.weight are NaN or inf"):
        checkpointer.save_checkpoint()
    assert len(checkpointer.list_checkpoints()) == 2

    torch.save(model.state_dict(), second.paramfiles["model"])
    model.weight.data.zero_(), optimizer.state.clear()
    assert checkpointer.recover_if_possible().path == first.path
    torch.save({"weight": torch.full((2, 2), value)}, first.paramfiles["model"])
    with pytest.raises(CheckpointError, match="None .* values of model.weight are NaN"):
        checkpointer.recover_if_possible()


def test_when_all_are_damaged_training_does_not_start_afresh(saved):
    _, checkpointer, checkpoints = saved
    for checkpoint in checkpoints:
        checkpoint.paramfiles["model"].unlink()
    with pytest.raises(
        CheckpointError, match="None of the checkpoints.*Delete the folder"
    ):
        checkpointer.recover_if_possible()


def test_another_model_is_a_clear_error(saved):
    _, checkpointer, _ = saved
    checkpointer.recoverables["model"] = torch.nn.Linear(3, 2, bias=False)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        checkpointer.recover_if_possible()


def test_one_that_lacks_a_part_is_not_loaded(saved):
    model, checkpointer, _ = saved
    parts = {"model": model, "other": torch.nn.Linear(1, 1)}
    more = AtomicCheckpointer(checkpointer.checkpoints_dir, parts)
    with pytest.raises(CheckpointError, match="(?s)None of the .* missing a load path"):
        more.recover_if_possible()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("x")]
)
def test_a_full_disk_leaves_the_checkpoints_before_it(saved, monkeypatch, error):
    model, checkpointer, (_, second) = saved

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(
        CheckpointError, match="GiB free.*make room.*run the same command"
    ):
        checkpointer.save_checkpoint()
    monkeypatch.undo()
    assert not (checkpointer.checkpoints_dir / "unfinished").exists()
    assert checkpointer.recover_if_possible().path == second.path
    checkpointer.save_checkpoint()


def test_a_kill_while_writing_leaves_no_checkpoint(saved, monkeypatch):
    model, checkpointer, (_, second) = saved

    class Killed(BaseException):
        pass

    def kill(*args, **kwargs):
        raise Killed

    monkeypatch.setattr("os.rename", kill)
    with pytest.raises(Killed):
        checkpointer.save_checkpoint(meta={"value": 3.0})
    monkeypatch.undo()
    fresh = AtomicCheckpointer(checkpointer.checkpoints_dir, {"model": model})
    assert fresh.recover_if_possible().path == second.path
    fresh.save_checkpoint()  # what was left behind is not in the way


def test_it_is_on_the_disk_before_it_has_its_name(saved, monkeypatch):
    """Or a power cut would leave a complete name with empty files."""
    _, checkpointer, _ = saved
    done, rename = [], os.rename
    monkeypatch.setattr(module, "flush", lambda path: done.append(Path(path).name))
    monkeypatch.setattr(os, "rename", lambda *pair: (done.append(0), rename(*pair)))
    name = checkpointer.save_checkpoint().path.name
    assert done == ["CKPT.yaml", "model.ckpt", "SIZES.json", name, 0, "save"]


def test_numbers_of_torch_and_numpy_in_the_metadata_can_be_read_again(saved):
    _, checkpointer, _ = saved
    meta = {
        "loss": torch.tensor(0.5),
        "count": numpy.int64(3),
        "mean": numpy.float32(2),
    }
    checkpointer.save_checkpoint(meta=meta)
    newest = checkpointer.recover_if_possible()
    assert {key: newest.meta[key] for key in meta} == {
        "loss": 0.5,
        "count": 3,
        "mean": 2,
    }


def test_only_the_newest_are_kept(saved):
    _, checkpointer, (first, second) = saved
    checkpointer.save_and_keep_only(num_to_keep=2)
    names = {c.path.name for c in checkpointer.list_checkpoints()}
    assert (
        first.path.name not in names and second.path.name in names and len(names) == 2
    )


def test_the_newest_is_that_of_the_highest_step_whatever_the_clock_says(
    tmp_path, monkeypatch
):
    model = torch.nn.Linear(1, 1)
    checkpointer = AtomicCheckpointer(tmp_path / "save", {"model": model})
    clock = time.time() + 11 * 24 * 3600
    for step in range(1, 9):
        if step == 5:  # resumed with the right clock
            clock -= 11 * 24 * 3600
        monkeypatch.setattr("time.time", lambda now=clock + step: now)
        torch.nn.init.constant_(model.weight, step)
        checkpointer.save_and_keep_only({"step": step}, num_to_keep=2)
    kept = [c.meta["step"] for c in checkpointer.find_checkpoints()]
    assert kept == [8, 7] and len(checkpointer.list_checkpoints()) == 2
    assert checkpointer.recover_if_possible().meta["step"] == 8
    assert model.weight.item() == 8
    lowest = checkpointer.find_checkpoint(min_key="step")
    assert lowest.meta["step"] == 7, "other orders are as they were"


def test_a_damaged_checkpoint_takes_no_place_of_one_that_is_kept(saved):
    _, checkpointer, (first, second) = saved
    second.paramfiles["model"].unlink()
    checkpointer.save_and_keep_only({"step": 3}, num_to_keep=2)
    assert {c.path.name for c in checkpointer.find_checkpoints()} >= {first.path.name}


def test_sizes_are_those_of_all_files(saved):
    _, _, (first, _) = saved
    sizes = json.loads((first.path / "SIZES.json").read_text())
    assert set(sizes) == {"CKPT.yaml", "model.ckpt"}


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    checkpointer = AtomicCheckpointer(tmp_path / "file" / "save", {})
    for use in (checkpointer.recover_if_possible, checkpointer.save_checkpoint):
        with pytest.raises(CheckpointError, match="Choose another --output_folder"):
            use()


def test_random_states_come_back(tmp_path):
    def draw():
        return torch.rand(2).tolist(), numpy.random.randn(), random.gauss(0, 1)

    states = RandomStates()
    numpy.random.seed(0), random.seed(0)
    draw()  # of two Gaussians that are drawn at once, the second is kept
    states.save(tmp_path / "states")
    first = draw()
    states.load(tmp_path / "states", end_of_epoch=True)
    assert draw() == first
