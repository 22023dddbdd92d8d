"""The stage of pre-training as a module in other people's loops: docs/examples."""

import csv
import re
import sys

import pytest

from muq_plugins import MuQ
from tests.integration.commands import HERE, ROOT, run_command

TRAINING = (
    "--optimizer_step_limit 40 --target.quantizer.codebook_size 8 --log_interval 4 "
    "--clip_seconds 1 --lr 0.01 --encoder.dropout 0"
).split()


def losses_of(name, data_options, folder, *launch):
    """Runs an example on the music; every fourth loss that it has logged."""
    options = [HERE / "tiny.yaml", *data_options, *TRAINING, "--output_folder", folder]
    script = ROOT / "docs" / "examples" / name
    # Else Accelerate takes what GPUs there are.
    command = [sys.executable, *launch, script, *options]
    # While it exits, after all is done, torch may abort a process of several.
    check = not launch
    printed = run_command(*command, check=check, ACCELERATE_USE_CPU="true").stdout
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
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    losses = losses_of("pretrain_accelerate.py", data_options, tmp_path, *torchrun)
    assert losses != pytest.approx(accelerated, abs=0.01)  # they hear twice as much
