"""Two processes train the lobe in anybody's Brain, and learn what one learns."""

import subprocess
import sys
from pathlib import Path

import torch

from muq_plugins import MuQEncoder
from muq_plugins.inference.muq import save_muq
from tests.unit.inference import plain_brain


def test_two_processes_learn_what_one_learns_in_a_plain_brain(tmp_path):
    torch.manual_seed(0)
    encoder = MuQEncoder(
        32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4, dropout=0.0
    )
    source = save_muq(tmp_path / "muq", encoder)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc_per_node=2", Path(plain_brain.__file__)]
    command += [source, tmp_path / "two.pt", "--distributed_backend=gloo"]
    two = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    kinds = ("fixed", "moving")
    one = [plain_brain.train(str(source), kind, {}) for kind in kinds]
    log = two.communicate(timeout=300)[0].decode()
    assert two.returncode == 0, log
    found = torch.load(tmp_path / "two.pt")
    names = ("running_mean", "running_var", "num_batches_tracked")
    start = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    for kind, expected, learned in zip(kinds, one, found, strict=True):
        torch.testing.assert_close(learned, expected, rtol=1e-4, atol=1e-5)
        changed = {n for n in expected if not torch.equal(expected[n], start[n])}
        moved = {name for name in changed if name.endswith(names)}
        assert len(changed - moved) > 40 and bool(moved) == (kind == "moving")
