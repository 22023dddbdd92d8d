"""Probing works on every encoder, beside references that make sense for it."""

import numpy as np
import pytest
import torch

from muq_plugins.evaluation.probing import run
from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.features import (
    FeatureSettings,
    HiddenStates,
    LogMelFrames,
    log_mel_beside,
    mean_and_deviation,
    moment_sums,
    untrained_like,
)
from muq_plugins.evaluation.probing.results import load_final_probe
from muq_plugins.evaluation.probing.run import probe_run
from muq_plugins.lobes import LogMel, WaveformTransformer
from muq_plugins.lobes.batch_norm import batch_norms
from tests.unit.evaluation.probed import write_tones
from tests.unit.tiny_encoders import TINY, tiny_encoder


@pytest.fixture(scope="module", params=TINY)
def encoder(request):
    encoder = tiny_encoder(request.param)
    if encoder.features is not None:
        encoder.features.set_statistics(1.0, 12.0)
    return encoder.eval()


def test_averages_are_those_of_each_clip_alone(encoder):
    wavs = torch.randn(2, 24000)
    states = HiddenStates(encoder).states(wavs, torch.tensor([1.0, 0.6]))
    sums, frames = moment_sums(*states)
    assert sums.shape == (2, 3, 2, 32)
    with torch.no_grad():
        states = encoder(wavs[1:, :14400]).hidden_states
    assert frames[1] == states[0].shape[1]
    found = mean_and_deviation((sums[1] / frames[1]).numpy())
    mean = torch.stack([state[0].mean(0) for state in states])
    deviation = torch.stack([state[0].std(0, correction=0) for state in states])
    expected = torch.cat([mean, deviation], dim=-1).numpy()
    assert np.abs(found - expected).max() < 1e-4


def test_log_mel_statistics(encoder):
    wavs = torch.randn(1, 24000)
    sums, frames = moment_sums(*LogMelFrames(encoder).states(wavs, torch.ones(1)))
    found = mean_and_deviation((sums[0] / frames).numpy())[0]
    expected = log_mel_beside(encoder)(wavs)[0][0]
    assert np.abs(found[:128] - expected.mean(0).numpy()).max() < 1e-4
    deviation = expected.std(0, correction=0).numpy()
    assert np.abs(found[128:] - deviation).max() < 1e-3


def test_a_small_deviation_beside_a_large_mean_is_kept():
    values = 1000 + 0.01 * torch.randn(1, 200, 3)
    sums, frames = moment_sums([values], None)
    (found,) = mean_and_deviation((sums[0] / frames).numpy())
    np.testing.assert_allclose(found[3:], values[0].double().std(0, False), rtol=1e-3)


def test_untrained_encoders(encoder, tmp_path):
    clips = [
        Clip(name, entry["wav"], 1.0, part)
        for part, pieces in (("train", 2), ("test", 1))
        for name, entry in write_tones(tmp_path, pieces).items()
    ]
    settings = FeatureSettings(None, 1.0, batch_size=2)
    state = torch.get_rng_state()
    first, other = untrained_like(encoder, [1, 2], clips, settings)
    (again,) = untrained_like(
        encoder, [1], clips[:2], settings
    )  # the test is not heard
    assert torch.equal(state, torch.get_rng_state())
    assert not first.training
    assert type(first) is type(encoder) and first.config == encoder.config
    for norm in batch_norms(first):
        assert norm.num_batches_tracked and norm.running_mean.abs().max() > 0
    keys = [HiddenStates(e).fingerprint for e in (encoder, first, again, other)]
    assert keys[1] == keys[2] and len(set(keys)) == 3
    if encoder.features is not None:
        for name, value in encoder.features.state_dict().items():
            assert torch.equal(first.features.state_dict()[name], value)


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_untrained_seeds_are_different_numbers(seeds):
    with pytest.raises(ProbeError, match="different whole numbers"):
        untrained_like(tiny_encoder("MuQEncoder"), seeds, [], FeatureSettings(None))


def test_an_encoder_of_waveforms_stands_beside_the_spectrogram_of_muq():
    wavs = torch.randn(1, 24000)
    found = log_mel_beside(tiny_encoder("WaveformTransformer"))
    assert torch.equal(found(wavs)[0], LogMel()(wavs)[0])
    slower = WaveformTransformer(
        32, 1, 4, 64, 8, [8, 8, 10], [8, 8, 10], position_groups=4, sample_rate=16000
    )
    assert log_mel_beside(slower).frame_rate == 100.0
    encoder = tiny_encoder("MuQEncoder")
    assert log_mel_beside(encoder) is encoder.features


def test_the_probe_that_ends_a_run(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "UNTRAINED_SEEDS", [1])
    manifest = write_tones(tmp_path, 12)
    assert probe_run(tmp_path, encoder, manifest, manifest)
    mel, *encoders = load_final_probe(tmp_path).chosen()
    assert (
        mel.value == 1.0 and [row.layer in (0, 1, 2) for row in encoders] == [True] * 2
    )
