"""Linear maps: the same numbers and gradients as torch's, whichever product runs."""

import pytest
import torch
import torch.nn.functional as F

from muq_plugins.lobes import MuQEncoder
from muq_plugins.lobes.linear import Linear, linear, round_weights


@pytest.mark.parametrize("shape", [(7,), (3, 5, 7), (2, 7), (0, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_those_of_torch(shape, bias):
    vectors = torch.randn(shape, requires_grad=True)
    weight = torch.randn(4, 7, requires_grad=True)
    offset = torch.randn(4, requires_grad=True) if bias else None
    inputs = [vectors, weight] + ([offset] if bias else [])
    expected, found = F.linear(vectors, weight, offset), linear(vectors, weight, offset)
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn_like(expected)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(linear(vectors, weight, offset), expected, atol=1e-5)


def test_strided_inputs():
    vectors, weight = torch.randn(7, 6).t(), torch.randn(7, 4).t()
    assert torch.allclose(linear(vectors, weight), vectors @ weight.t(), atol=1e-5)


def test_frozen_weights_get_no_gradient():
    layer = Linear(7, 4).requires_grad_(False)
    vectors = torch.randn(3, 7, requires_grad=True)
    layer(vectors).sum().backward()
    assert layer.weight.grad is None
    assert torch.allclose(vectors.grad, layer.weight.sum(0).expand(3, 7), atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_have_gradients(bias):
    """As penalties of gradients and second-order meta-learning ask for."""
    inputs = [torch.randn(3, 5, 7), torch.randn(4, 7)] + [torch.randn(4)] * bias
    for part in inputs:
        part.requires_grad_()
    seconds = []
    for product in (linear, F.linear):
        firsts = torch.autograd.grad(
            product(*inputs).sin().sum(), inputs, create_graph=True
        )
        penalty = sum(first.square().sum() for first in firsts)
        seconds.append(torch.autograd.grad(penalty, inputs))
    for one, other in zip(*seconds, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_transforms_of_torch_func():
    torch.manual_seed(0)
    encoder = MuQEncoder(32, 1, 4, 64, conv_channels=4).eval()
    wavs, weights = torch.randn(1, 12000) / 10, dict(encoder.named_parameters())

    def loss(weights):
        out = torch.func.functional_call(encoder, weights, (wavs,))
        return out.last_hidden_state.square().mean()

    expected = torch.autograd.grad(loss(weights), [*weights.values()])
    found = torch.func.grad(loss)(weights)
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    vectors, weight = torch.randn(3, 7), torch.randn(4, 7)
    jacobian = torch.func.jacrev(linear)(vectors[0], weight)
    torch.testing.assert_close(jacobian, weight)
    rows = torch.func.vmap(linear, (0, None))(vectors, weight)
    torch.testing.assert_close(rows, vectors @ weight.t())


def test_other_precisions_take_the_ordinary_way():
    layer = Linear(7, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 7)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(3, 7).double()).dtype == torch.float64


def test_exported_graphs_hold_common_operators_only():
    program = torch.export.export(Linear(7, 4), (torch.randn(3, 7),))
    assert "mkldnn" not in str(program.graph)
    traced = torch.jit.trace(Linear(7, 4), torch.randn(3, 7))
    assert "mkldnn" not in str(traced.inlined_graph)


@torch.no_grad()
def test_weights_that_are_rounded_once_give_what_autocast_gives():
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    encoder.eval()
    wavs = torch.randn(2, 24000) / 10
    with torch.autocast("cpu", torch.bfloat16):
        expected = encoder(wavs, torch.tensor([1.0, 0.6])).hidden_states
    round_weights(encoder.conformer, torch.bfloat16)
    dtypes = [p.dtype for p in encoder.conformer.parameters() if p.dim() == 2]
    assert set(dtypes) == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(wavs, torch.tensor([1.0, 0.6])).hidden_states
    assert all(map(torch.equal, found, expected))
