"""The constant-Q transform against its definition, sines, and padding."""

import numpy as np
import pytest
import torch

from muq_plugins.lobes import ConstantQ
from muq_plugins.lobes.parts import build, describe


def by_definition(wav, frequency, per_octave, frames, hop=960, rate=24000):
    """A band of one clip: the windows themselves, one product a frame."""
    length = rate / frequency / (2 ** (1 / per_octave) - 1)
    place = np.arange(-int(length / 2), int(length / 2) + 1)
    window = 0.5 + 0.5 * np.cos(2 * np.pi * place / length)
    kernel = window * np.exp(-2j * np.pi * frequency / rate * place)
    padded = np.pad(wav, len(place))
    starts = np.arange(frames) * hop + hop // 2 + len(place) - int(length / 2)
    heard = np.stack([padded[s : s + len(place)] for s in starts])
    return np.abs(heard @ kernel) / window.sum() * np.sqrt(length)


@pytest.mark.parametrize("seconds, settings", [(1.5, {}), (6.0, {"num_bins": 40})])
def test_it_is_what_the_windows_give(seconds, settings):
    """Also where a clip is transformed in pieces, and at its ends."""
    features = ConstantQ(**settings)
    wav = np.random.default_rng(0).normal(0, 0.1, int(24000 * seconds))
    feats, _ = features(torch.tensor(wav[None], dtype=torch.float32))
    frames = feats.shape[1]
    assert frames == 25 * seconds // 1
    for band in (0, features.output_size // 2, features.output_size - 1):
        expected = by_definition(wav, 32.703 * 2 ** (band / 48), 48, frames)
        error = np.linalg.norm(feats[0, :, band].numpy() - expected)
        assert error < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("band", [0, 20, 47])
def test_a_sine_is_half_the_root_of_its_window(band):
    features = ConstantQ(num_bins=48, bins_per_octave=12, f_min=110.0)
    frequency = 110 * 2 ** (band / 12)
    time = torch.arange(96000, dtype=torch.float64) / 24000
    wav = 0.5 * torch.sin(2 * torch.pi * frequency * time).float()
    frame = features(wav[None])[0][0, 50]
    length = 24000 / frequency / (2 ** (1 / 12) - 1)
    assert frame.argmax() == band
    assert frame[band] == pytest.approx(0.25 * length**0.5, rel=2e-3)


def test_padding_does_not_change_the_frames_of_a_clip():
    features = ConstantQ(num_bins=84, bins_per_octave=12)
    batch = torch.randn(2, 48000)
    feats, lens = features(batch, torch.tensor([30000 / 48000, 1.0]))
    alone, _ = features(batch[:1, :30000])
    assert torch.round(lens * 50).tolist() == [31, 50]
    torch.testing.assert_close(feats[0, :31], alone[0], rtol=1e-4, atol=1e-6)


def test_autocast_does_not_lower_the_precision():
    features = ConstantQ(num_bins=24, bins_per_octave=12)
    wavs = torch.randn(1, 24000)
    with torch.autocast("cpu", torch.bfloat16):
        feats, _ = features(wavs)
    assert torch.equal(feats, features(wavs)[0])


def test_it_is_built_again_and_standardised():
    features = ConstantQ(hop_length=320, num_bins=24, bins_per_octave=12)
    wavs = torch.randn(1, 24000)
    plain, _ = features(wavs)
    features.set_statistics(0.5, 2.0)
    torch.testing.assert_close(features(wavs)[0], (plain - 0.5) / 2)
    again = build(describe(features))
    again.load_state_dict(features.state_dict())
    assert again.config == features.config and again.frame_rate == 75.0
    assert torch.equal(again(wavs)[0], features(wavs)[0])


def test_shorter_than_a_frame_has_none():
    assert ConstantQ(num_bins=12)(torch.zeros(2, 500))[0].shape == (2, 0, 12)


def test_bands_above_the_audio_are_refused():
    with pytest.raises(ValueError, match="400 bands ends at 10.* Hz, but audio of 16"):
        ConstantQ(sample_rate=16000, num_bins=400)
