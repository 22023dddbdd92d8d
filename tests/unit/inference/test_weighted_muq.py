"""A learned sum of hidden states, in the place of SpeechBrain's WeightedSSLModel."""

import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml

from muq_plugins import MuQEncoder, PretrainedMuQ, WeightedMuQ
from muq_plugins.inference.muq import save_muq


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a small model."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    return save_muq(tmp_path_factory.mktemp("muq") / "inference", encoder)


@pytest.mark.parametrize("layernorm", [False, True])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_equal_weights_give_the_mean_of_the_hidden_states(
    source, device, layernorm, rate
):
    yaml = f"""
    weighted_ssl_model: !new:muq_plugins.WeightedMuQ
        hub: {source}
        save_path: ""
        layernorm: {layernorm}
        freeze: True
        input_sample_rate: {rate}
    """
    lobe = load_hyperpyyaml(yaml)["weighted_ssl_model"].to(device)
    options = {"output_all_hiddens": True, "freeze": True, "input_sample_rate": rate}
    plain = PretrainedMuQ(source, **options).to(device)
    wavs = torch.randn(2, 16000, device=device)
    lens = torch.tensor([1.0, 0.5], device=device)
    states = plain(wavs, lens)
    if layernorm:
        states = F.layer_norm(states, states.shape[-1:])
    torch.testing.assert_close(lobe(wavs, lens), states.mean(0))
    assert lobe.num_layers == len(states) == len(lobe.weights)
    # One state has all the weight.
    lobe.weights.data[1] = 100
    torch.testing.assert_close(lobe(wavs, lens), states[1])


def test_checkpoints_are_those_of_the_lobe_with_a_weighted_sum(source):
    lobe = WeightedMuQ(source)
    lobe.weights.data += torch.arange(3)
    other = PretrainedMuQ(source, output_weighted_sum=True)
    other.load_state_dict(lobe.state_dict())
    assert torch.equal(other.layer_weights, lobe.weights)
