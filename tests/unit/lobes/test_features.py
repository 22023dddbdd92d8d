"""Log-mel features against the torchaudio chain; padding and precision of MFCCs too."""

import pytest
import torch
import torchaudio

from muq_plugins.lobes import LogMel, Mfcc, StackedFrames
from muq_plugins.lobes.mel import MSD_MEAN, MSD_STD


@pytest.mark.parametrize("floor", [None, -20.0, 10.0])
@pytest.mark.parametrize("samples", [24000, 24011, 31337])
def test_log_mel_equals_the_torchaudio_chain(samples, floor):
    wavs = 0.3 * torch.randn(2, samples)
    chain = torch.nn.Sequential(
        torchaudio.transforms.MelSpectrogram(
            24000, n_fft=2048, hop_length=240, n_mels=128
        ),
        torchaudio.transforms.AmplitudeToDB(),
    )
    decibels = chain(wavs)[..., :-1].transpose(1, 2)
    if floor is not None:
        assert (decibels < floor).any() == (floor == 10.0)
        decibels = decibels.clamp(min=floor)
    expected = (decibels - MSD_MEAN) / MSD_STD
    feats, lens = LogMel(floor=floor)(wavs)
    assert feats.shape == (2, samples // 240, 128)
    torch.testing.assert_close(feats, expected, rtol=1e-5, atol=1e-5)
    assert lens.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("features", "tolerance"), [(LogMel, 1e-5), (Mfcc, 1e-4)])
def test_padding_does_not_change_the_frames_of_a_clip(features, tolerance):
    short, long = torch.randn(30000), torch.randn(48000)
    batch = torch.randn(2, 48000)
    batch[0, :30000], batch[1] = short, long
    feats, lens = features()(batch, torch.tensor([30000 / 48000, 1.0]))
    alone, _ = features()(short[None])
    assert lens.tolist() == [125 / 200, 1.0]
    torch.testing.assert_close(feats[0, :125], alone[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("features", [LogMel, Mfcc])
def test_autocast_does_not_lower_the_precision(features):
    wavs = torch.randn(1, 24000)
    with torch.autocast("cpu", torch.bfloat16):
        feats, _ = features()(wavs)
    assert feats.dtype == torch.float32
    assert torch.equal(feats, features()(wavs)[0])


def test_stacking_order_is_frame_major():
    features = StackedFrames(LogMel(), 4)
    wavs = torch.randn(1, 24000)
    mel, _ = LogMel()(wavs)
    feats, _ = features(wavs)
    assert feats.shape == (1, 25, 512)
    assert torch.equal(feats[0, 3, 2 * 128 + 5], mel[0, 3 * 4 + 2, 5])
    assert torch.equal(features.unstack(feats), mel)


def test_stacking_drops_what_is_left_over():
    feats, lens = StackedFrames(LogMel(), 4)(
        torch.randn(2, 24000 + 500), torch.tensor([1.0, 0.5])
    )
    assert feats.shape[1] == 25
    assert torch.round(lens * 25).tolist() == [25, 12]


def test_statistics_are_in_the_state_dict_and_constants_are_not():
    assert set(LogMel().state_dict()) == {"mean", "std"}


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_useless_statistics_are_refused(std):
    with pytest.raises(ValueError, match="positive deviation"):
        LogMel().set_statistics(0.0, std)


def test_too_short_a_clip_is_refused():
    with pytest.raises(ValueError, match="240 samples is too short"):
        LogMel()(torch.randn(1, 240))


def test_stereo_is_refused():
    with pytest.raises(ValueError, match="mix down to mono"):
        LogMel()(torch.randn(1, 2, 24000))


def test_lengths_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        LogMel()(torch.randn(2, 24000), torch.tensor([24000.0, 12000.0]))
