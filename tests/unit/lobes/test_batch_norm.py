"""Our batch normalisation is torch's, but for what other people convert."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from muq_plugins.lobes import MuQEncoder
from muq_plugins.lobes.batch_norm import (
    BatchNorm,
    batch_norms,
    measure_batch_statistics,
)

KINDS = [(nn.BatchNorm1d, (6, 4)), (nn.BatchNorm1d, (3, 4, 9))]
KINDS += [(nn.BatchNorm2d, (3, 4, 5, 7))]


@pytest.mark.parametrize("kind, shape", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_what_torch_does(kind, shape, dtype, device):
    theirs, ours = kind(4).to(device, dtype), BatchNorm(4).to(device, dtype)
    with torch.no_grad():
        theirs.weight.uniform_(0.5, 2)
        theirs.bias.normal_()
    ours.load_state_dict(theirs.state_dict())
    for mode in (True, True, False):  # trained twice, then used
        inputs = torch.randn(shape, device=device, dtype=dtype) * 3 + 1
        outputs = []
        for norm in (theirs.train(mode), ours.train(mode)):
            out = norm(leaf := inputs.clone().requires_grad_())
            out.float().square().sum().backward()
            outputs.append((out, leaf.grad, norm.weight.grad, norm.bias.grad))
        assert all(map(torch.equal, *outputs))
    expected, found = theirs.state_dict(), ours.state_dict()
    assert list(found) == list(expected)  # in this order
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found["num_batches_tracked"] == 2


def test_nothing_in_our_encoders_is_converted():
    encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4)
    others = nn.Sequential(encoder, nn.BatchNorm1d(4))
    assert len(batch_norms(encoder)) == 7 and len(batch_norms(others)) == 8
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(others))
    assert type(converted[1]) is nn.SyncBatchNorm
    kinds = [[type(part) for part in net.modules()] for net in (encoder, converted[0])]
    assert kinds[0] == kinds[1]


def test_statistics_are_measured_as_torch_does():
    theirs, ours = (
        nn.Sequential(norm(4), nn.ReLU(), norm(4)).eval()
        for norm in (nn.BatchNorm1d, BatchNorm)
    )
    batches = [3 * torch.randn(6, 4) + 1 for _ in range(3)]
    update_bn(batches, theirs)
    measure_batch_statistics(ours, batches)
    expected, found = theirs.state_dict(), ours.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert ours[0].momentum == 0.1 and not ours.training
