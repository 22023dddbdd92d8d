"""The stage of pre-training as a module in other people's loops: docs/examples."""

import csv
import re
import runpy
import sys

import pytest

from muq_plugins import MuQ
from tests.integration.commands import (
    HERE,
    ROOT,
    Fork,
    checked,
    experiment_file,
    fork_ranks,
)

TRAINING = (
    "--optimizer_step_limit 40 --target.quantizer.codebook_size 8 --log_interval 4 "
    "--clip_seconds 1 --lr 0.01 --encoder.dropout 0"
).split()


def fork_one(script, *options, **environment):
    return [checked(Fork(script, *options, **environment).result())]


def losses_of(name, data_options, folder, fork=fork_one):
    """Runs an example on the music; every fourth loss that it has logged."""
    options = [HERE / "tiny.yaml", *data_options, *TRAINING, "--output_folder", folder]
    # Else Accelerate takes what GPUs there are.
    results = fork(ROOT / "docs/examples" / name, *options, ACCELERATE_USE_CPU="true")
    printed = results[0].stdout
    if files := list(folder.rglob("metrics.csv")):  # of Lightning
        with open(files[0], newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    else:
        losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed)]
    assert len(losses) == 10
    # A guess among eight codes has a loss of 2.08.
    assert min(losses[-3:]) < losses[0] - 0.15, losses
    assert MuQ.from_pretrained(folder).mods.encoder.num_layers == 2
    return losses


@pytest.fixture(scope="module")
def accelerated(data_options, tmp_path_factory):
    """Losses of Accelerate's loop on one process."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("accelerate")
    return losses_of("pretrain_accelerate.py", data_options, folder)


def test_lightning_learns_what_accelerate_learns(accelerated, data_options, tmp_path):
    pytest.importorskip("pytorch_lightning")
    losses = losses_of("pretrain_lightning.py", data_options, tmp_path)
    assert losses == pytest.approx(accelerated, abs=0.01)


def test_accelerate_on_two_processes(accelerated, data_options, tmp_path):
    # While they exit, after all is done, torch may abort one of them.
    losses = losses_of("pretrain_accelerate.py", data_options, tmp_path, fork_ranks)
    assert losses != pytest.approx(accelerated, abs=0.01)  # they hear twice as much


SMALL = (
    "--encoder.width 16 --encoder.num_layers 2 --encoder.ffn_width 16 "
    "--encoder.conv_channels 2 --optimizer_step_limit 3 --clip_seconds 1 "
    "--batch_size 2 --clips_per_update 2"
).split()


@pytest.mark.parametrize(
    ("name", "library"),
    [("lightning", "pytorch_lightning"), ("accelerate", "accelerate")],
)
def test_objectives_hear_of_each_update(
    name, library, data_options, tmp_path, monkeypatch
):
    """The slower copy that ema_latents compares with would stand still otherwise."""
    pytest.importorskip(library)
    script = str(ROOT / "docs" / "examples" / f"pretrain_{name}.py")
    options = [experiment_file("ema_latents"), *data_options, *SMALL]
    options += ["--output_folder", tmp_path]
    monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    experiment = runpy.run_path(script)["experiment"]
    latents = experiment["modules"]["pretrain"].objectives["latents"]
    assert latents.updates == 3
