"""Low-rank adapters: what is trained, what they compute, what is refused."""

import sys

import pytest
import torch

from muq_plugins import MuQEncoder
from muq_plugins.errors import UserError
from muq_plugins.inference.lora import add_lora, lora_modules, merge_lora
from muq_plugins.inference.muq import save_muq

TARGETS = [
    "linear_q",
    "linear_k",
    "linear_v",
    "linear_out",
    "intermediate_dense",
    "output_dense",
]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    return encoder.eval()


def trainable(module):
    return {name for name, p in module.named_parameters() if p.requires_grad}


def randomize(encoder):
    """Gives the adapters an effect, as training would."""
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)


def test_only_adapters_are_trained_and_change_nothing_at_first(encoder):
    wavs = torch.randn(1, 12000)
    before = encoder(wavs).last_hidden_state
    add_lora(encoder, {"r": 4, "lora_dropout": 0.1})
    names = trainable(encoder)
    assert all("lora_" in name for name in names)
    # Two layers, queries and values, each a 32 x 4 and a 4 x 32 matrix.
    assert len(names) == 8
    assert sum(encoder.get_parameter(n).numel() for n in names) == 8 * 32 * 4
    assert torch.equal(encoder.eval()(wavs).last_hidden_state, before)


@pytest.mark.parametrize("target", TARGETS)
def test_an_adapter_of_every_linear_layer_is_used_and_can_be_merged(
    encoder, target, tmp_path
):
    """Code that reads the weights past the layer would leave the adapter out."""
    wavs = torch.randn(1, 12000)
    before = encoder(wavs).last_hidden_state
    names = set(encoder.state_dict())
    add_lora(encoder, {"r": 4, "target_modules": [target]})
    randomize(encoder)
    adapted = encoder.eval()(wavs).last_hidden_state
    assert (adapted - before).abs().max() > 1e-3
    adapted.square().mean().backward()
    assert all(encoder.get_parameter(n).grad.any() for n in trainable(encoder))
    with pytest.raises(UserError, match="lora.merge_lora"):
        save_muq(tmp_path / "model", encoder)
    assert not (tmp_path / "model").exists()
    merge_lora(encoder)
    assert set(encoder.state_dict()) == names
    merged = encoder(wavs).last_hidden_state
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)


def test_some_layers_only(encoder):
    add_lora(encoder, {"r": 2, "layers_to_transform": [1]})
    assert all(".layers.1." in name for name in trainable(encoder))
    assert len(lora_modules(encoder)) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (8, "arguments of peft.LoraConfig by name.* is 8"),
        ({"rank": 8}, "does not fit.*'rank'.*such as r and lora_alpha"),
        ({"r": 0}, "does not fit.* 0"),
        ({"target_modules": ["query"]}, "query.* among linear_q, linear_k"),
        ({"layers_to_transform": [9]}, "layers_to_transform from 0 to 1"),
        (
            {"r": 2, "target_modules": ["linear_q", "pointwise_conv1"]},
            "also names conformer.*pointwise_conv1",
        ),
    ],
)
def test_bad_arguments_are_named(encoder, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        add_lora(encoder, arguments)


def test_a_missing_library_is_explained(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'muq-plugins\[lora\]'"):
        add_lora(encoder, {"r": 2})
