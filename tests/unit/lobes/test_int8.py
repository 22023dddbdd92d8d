"""8-bit inference: near float32, clip by clip, and nothing but inference."""

import copy

import pytest
import torch

from muq_plugins.errors import UserError
from muq_plugins.inference.export import export_onnx
from muq_plugins.lobes import MuQEncoder
from muq_plugins.lobes.int8 import _Int8Linear, _levels, to_int8
from muq_plugins.lobes.linear import Linear, Pointwise
from tests.unit.processor import needs_int8

pytestmark = needs_int8


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = MuQEncoder(32, 2, num_heads=4, ffn_width=64, conv_channels=8)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return encoder.eval()


@pytest.fixture(scope="module")
def rounded(encoder):
    return to_int8(copy.deepcopy(encoder))


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_products_are_those_of_rounded_numbers():
    """Exactly: what is lost is lost by rounding, and nothing overflows."""
    torch.manual_seed(0)
    for layer in (Linear(67, 45), Pointwise(67, 45, 1, bias=False)):
        vectors = torch.randn(2, 9, 67) * torch.logspace(-3, 3, 9)[:, None]
        weights, scales = _levels(layer.weight.flatten(1))
        rows, sizes = _levels(vectors.flatten(0, 1))
        expected = (rows.double() * sizes[:, None]) @ (
            weights.double() * scales[:, None]
        ).T
        if layer.bias is not None:
            expected += layer.bias
        found = _Int8Linear(layer)(vectors).flatten(0, 1)
        assert relative(found, expected) < 1e-6
        # Each frame has its own scale: quiet ones are as exact as loud ones.
        for row, exact in zip(found, layer(vectors).flatten(0, 1), strict=True):
            assert 0 < relative(row, exact) < 0.03


@torch.no_grad()
@pytest.mark.parametrize("samples", [1025, 24077, 24000 * 25])
def test_hidden_states_are_near(encoder, rounded, samples):
    """Also beyond the length that goes through the convolutions at once."""
    wavs = torch.randn(2, samples) * 0.1
    expected, found = encoder(wavs).hidden_states, rounded(wavs).hidden_states
    for one, other in zip(found, expected, strict=True):
        assert 1e-4 < relative(one, other) < 0.04


@torch.no_grad()
def test_no_clip_depends_on_its_company(rounded):
    wavs, lens = torch.randn(3, 30011), torch.tensor([1.0, 0.71, 0.3])
    wavs *= torch.tensor([1.0, 0.1, 0.01])[:, None]
    out = rounded(wavs, lens).last_hidden_state
    for wav, length, row in zip(wavs, lens, out, strict=True):
        alone = rounded(wav[None, : round(float(length) * 30011)]).last_hidden_state[0]
        assert relative(row[: len(alone)], alone) < 1e-5


@torch.no_grad()
def test_what_is_not_finite_stays_so(encoder):
    convolution, linear = copy.deepcopy(encoder), copy.deepcopy(encoder)
    convolution.conv.conv[1].conv2.bias[0] = torch.nan
    linear.conformer.layers[0].ffn1.output_dense.weight[0, 0] = torch.inf
    for damaged in (convolution, linear):
        out = to_int8(damaged)(torch.randn(1, 24000))
        assert not out.last_hidden_state.isfinite().any()


def test_silence(rounded):
    with torch.no_grad():
        assert rounded(torch.zeros(1, 24000)).last_hidden_state.isfinite().all()


def test_nothing_but_inference(encoder, rounded):
    message = "computes in int8 on a CPU, and nothing else: load the model again"
    assert rounded.to("cpu").eval() is rounded
    for forbidden in ("train", "state_dict", "half"):
        with pytest.raises(ValueError, match=message):
            getattr(to_int8(copy.deepcopy(encoder)), forbidden)()
    with pytest.raises(ValueError, match=message):
        to_int8(copy.deepcopy(encoder)).to("meta")
    with pytest.raises(UserError, match=message):
        export_onnx(rounded, "muq.onnx")
    assert not any(p.requires_grad for p in rounded.parameters())
    for other, message in (
        (rounded.conformer, "Only a MuQEncoder computes in int8, not a Conformer"),
        (copy.deepcopy(encoder).bfloat16(), "float32 on the CPU, .* torch.bfloat16"),
        (copy.deepcopy(encoder).to("meta"), "on meta: load it on the CPU"),
    ):
        with pytest.raises(ValueError, match=message):
            to_int8(other)


def test_processors_that_overflow_are_refused(encoder, monkeypatch):
    product = torch._int_mm
    saturated = lambda one, other: product(one, other).clamp(max=2**15)  # noqa: E731
    monkeypatch.setattr(torch, "_int_mm", saturated)
    with pytest.raises(ValueError, match="x86 processor with VNNI .* in float32"):
        to_int8(encoder)
    assert isinstance(encoder.conv.linear, Linear)
