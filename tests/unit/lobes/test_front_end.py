"""The front end: inference in pieces with folded norms equals the plain blocks."""

import pytest
import torch

from muq_plugins.lobes import ResidualFrontEnd, front_end
from muq_plugins.lobes.batch_norm import batch_norms


@pytest.fixture
def conv():
    """A front end whose batch norms do something, the same in every run."""
    torch.manual_seed(0)
    module = ResidualFrontEnd(n_mels=16, channels=4, width=8).eval()
    for norm in batch_norms(module):
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return module


@pytest.mark.parametrize("frames", [1, 3, 31, 32, 33, 64, 101])
@pytest.mark.parametrize("lens", [None, (1.0, 0.63, 0.0)])
def test_pieces_equal_the_whole(conv, frames, lens, monkeypatch):
    monkeypatch.setattr(front_end, "CPU_FRAMES", 32)
    mel = torch.randn(3, frames, 16)
    lengths = None if lens is None else (torch.tensor(lens) * frames).round().long()
    expected, expected_lengths = conv(mel, lengths)
    assert expected.requires_grad
    with torch.no_grad():
        found, found_lengths = conv(mel, lengths)
    assert found.shape == expected.shape == (3, -(-frames // 4), 8)
    assert torch.allclose(found, expected, atol=1e-5)
    if lens is not None:
        assert torch.equal(found_lengths, expected_lengths)


def test_pieces_need_their_context(conv, monkeypatch):
    monkeypatch.setattr(front_end, "CPU_FRAMES", 32)
    mel = torch.randn(1, 101, 16)
    expected = conv(mel)[0]
    monkeypatch.setattr(front_end, "CONTEXT", 4)
    with torch.no_grad():
        assert not torch.allclose(conv(mel)[0], expected, atol=1e-3)


def test_training_statistics_move_without_gradients_too(conv):
    conv.train()
    before = conv.conv[0].bn1.running_mean.clone()
    with torch.no_grad():
        conv(torch.randn(2, 40, 16))
    assert not torch.equal(conv.conv[0].bn1.running_mean, before)


def test_half_precision_folds_in_full_precision(conv):
    mel = torch.randn(1, 64, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = conv(mel)[0].float()
    assert torch.allclose(half, conv(mel)[0], atol=0.1)
