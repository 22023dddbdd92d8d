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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_marked_is_not_heard(dtype, device):
    """A batch of which a part is padding is the batch of the other part."""
    torch.manual_seed(0)
    norms = BatchNorm(4).to(device), BatchNorm(4).to(device)
    inputs = (3 * torch.randn(3, 4, 5, 7, device=device) + 1).to(dtype)
    mask = (torch.arange(7) < torch.tensor([7, 3, 1])[:, None]).to(device)
    inputs.movedim(3, 1)[~mask] = 1000.0
    own = inputs.movedim(3, 1)[mask]  # (own frames, channels, 5)
    leaves = [inputs.requires_grad_(), own.detach().clone().requires_grad_()]
    outputs = [norms[0](leaves[0], mask).movedim(3, 1)[mask], norms[1](leaves[1])]
    weights = torch.randn(own.shape, device=device)
    for out in outputs:
        (out.float() * weights).sum().backward()
    assert not leaves[0].grad.movedim(3, 1)[~mask].any()
    close = {"rtol": 1e-4, "atol": 1e-4 if dtype == torch.float32 else 0.05}
    torch.testing.assert_close(*outputs, **close)
    grads = [leaves[0].grad.movedim(3, 1)[mask], leaves[1].grad]
    torch.testing.assert_close(*grads, **close)
    for found, expected in zip(*(norm.parameters() for norm in norms), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=0.01, atol=0.1)
    for found, expected in zip(*(norm.buffers() for norm in norms), strict=True):
        torch.testing.assert_close(found, expected, **close)


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
