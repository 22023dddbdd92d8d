"""MuQ behind s3prl's interface for upstreams, called as s3prl calls it."""

import types

import pytest
import torch

from muq_plugins import MuQ
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.s3prl import UpstreamExpert, muq_local
from muq_plugins.lobes import MuQEncoder
from muq_plugins.lobes.lengths import resample_clips


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a small model."""
    torch.manual_seed(0)
    encoder = MuQEncoder(16, num_layers=2, num_heads=2, ffn_width=16, conv_channels=2)
    return save_muq(tmp_path_factory.mktemp("s3prl") / "muq", encoder)


def test_what_the_hub_collects(source):
    """``from .hubconf import *``, then public callables by the name of option -u."""
    hub = types.ModuleType("hub")
    exec("from muq_plugins.inference.s3prl import *", hub.__dict__)
    public = {n for n, v in vars(hub).items() if n[0] != "_" and callable(v)}
    assert public == {"muq", "muq_local"}
    for name in public:
        upstream = getattr(hub, name)(ckpt=source, model_config=None, refresh=False)
        assert isinstance(upstream, torch.nn.Module)


def test_hidden_states_are_those_of_the_model(source):
    wavs = [torch.randn(16000), torch.randn(9600)]
    upstream = muq_local(source).eval()
    with torch.no_grad():
        out = upstream(wavs)
        alone = upstream(wavs[1:])["hidden_states"]
    model = MuQ.from_pretrained(source)
    resampled, _ = resample_clips(wavs[0][None], None, 16000, 24000)
    expected = model(resampled).hidden_states
    assert len(out["hidden_states"]) == 3
    for state, wanted, short in zip(out["hidden_states"], expected, alone, strict=True):
        assert state.shape == (2, 25, 16)
        torch.testing.assert_close(state[:1], wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(state[1:, :15], short, rtol=1e-4, atol=1e-4)
    assert torch.equal(out["last_hidden_state"], out["hidden_states"][-1])


@pytest.mark.parametrize(
    "samples", [[100], [800], [16000, 300], [15999, 16001], [40320]]
)
def test_frames_match_the_rate_that_is_declared(source, samples):
    """A frame of difference is cut or repeated, a factor refused; short wavs work."""
    upstream = UpstreamExpert(source)
    rate = upstream.get_downsample_rates("hidden_states")
    assert rate == 640 and isinstance(rate, int)
    frames = upstream([torch.randn(n) for n in samples])["hidden_states"][0].shape[1]
    assert abs(frames - len(range(0, max(samples), rate))) <= 1


def test_it_is_trained_if_s3prl_trains_it_and_takes_options(source):
    """Options that S3PRLUpstream gets as ``extra_conf`` reach the lobe."""
    upstream = UpstreamExpert(source, frozen_layers=1).train()
    out = upstream([torch.randn(16000), torch.randn(8000)])
    torch.stack(out["hidden_states"]).sum(0).square().mean().backward()
    layers = upstream.model.encoder.conformer.layers
    trained = [any(p.grad is not None for p in layer.parameters()) for layer in layers]
    assert trained == [False, True]
    with pytest.raises(ValueError, match="layerdrop"):
        UpstreamExpert(source, layerdrop=0.1)
