"""A teacher is frozen, and not a part of what is trained and saved."""

import copy
import re

import pytest
import torch

from muq_plugins.lobes import MuQEncoder, ResidualVQ, Target, TeacherFeatures


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return MuQEncoder(
        32, num_layers=3, num_heads=4, ffn_width=64, conv_channels=4, dropout=0.5
    )


def test_it_is_the_output_of_the_block_counted_from_one(encoder):
    wavs, lens = torch.randn(2, 24000), torch.tensor([1.0, 0.5])
    for layer in (1, 2, 3):
        feats, own = TeacherFeatures(encoder, layer, "x")(wavs, lens)
        with torch.no_grad():
            out = encoder(wavs, lens)
        assert torch.equal(feats, out.hidden_states[layer])
        assert torch.equal(own, out.lens)
    assert not torch.equal(out.hidden_states[2], out.hidden_states[3])


@pytest.mark.parametrize("layer", [0, -1, 4, "last", "[1]", True, 1.0, None])
def test_a_block_that_does_not_exist(encoder, layer):
    words = re.escape(f"no layer {layer!r}: ")
    with pytest.raises(ValueError, match=f"{words}.* blocks 1 to 3"):
        TeacherFeatures(encoder, layer, "x")


def test_nothing_reaches_the_teacher(encoder):
    encoder.train()
    target = Target(TeacherFeatures(encoder, 2, "x"), ResidualVQ(32, 2, 16))
    target.features.train()
    wavs, state = torch.randn(1, 24000), torch.get_rng_state()
    assert torch.equal(target(wavs), target(wavs))  # no dropout
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not list(target.features.parameters())
    assert all(name.startswith("quantizer.") for name in target.state_dict())
    assert encoder.features not in list(target.modules())


def test_precision_around_it_does_not_matter(encoder):
    features, wavs = TeacherFeatures(encoder, 2, "x"), torch.randn(1, 24000)
    expected, _ = features(wavs)
    with torch.autocast("cpu", torch.bfloat16):
        feats, _ = features(wavs)
    assert feats.dtype == torch.float32 and torch.equal(feats, expected)


def test_the_teacher_follows_to_another_device_and_into_a_copy(encoder):
    features = TeacherFeatures(encoder, 2, "x")
    other = copy.deepcopy(features).to("meta")
    assert all(tensor.is_meta for tensor in other._teacher[0].state_dict().values())
    assert next(encoder.parameters()).device.type == "cpu"
