"""Padded batches: every clip as if it were alone."""

import pytest
import torch
import torch.nn.functional as F
from torchaudio.transforms import Resample

from muq_plugins.lobes.lengths import (
    lengths_on,
    normalize_clips,
    resample_clips,
    without_padding,
)


def test_resampling_is_that_of_torchaudio():
    wavs = torch.randn(2, 16001)
    ours, lens = resample_clips(wavs, None, 16000, 24000)
    theirs = Resample(16000, 24000)(wavs)
    assert lens is None
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_each_clip_is_resampled_as_if_alone(rate):
    samples = torch.tensor([rate, rate // 3 + 1, rate // 2])
    wavs = torch.randn(3, rate)  # noise beyond the ends as well
    ours, lens = resample_clips(wavs, samples / rate, rate, 24000)
    assert ours.shape == (3, 24000)
    for wav, own, result, share in zip(wavs, samples, ours, lens, strict=True):
        alone, _ = resample_clips(wav[None, :own], None, rate, 24000)
        length = round(share.item() * 24000)
        assert length == alone.shape[1] == -(-int(own) * 24000 // rate)
        torch.testing.assert_close(result[:length], alone[0], atol=1e-5, rtol=0)


def test_resampling_stays_in_float32_under_autocast():
    wavs = torch.randn(1, 4000)
    expected, _ = resample_clips(wavs, None, 16000, 24000)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resample_clips(wavs, None, 16000, 24000)[0], expected)


def test_waveforms_of_another_shape_are_an_error():
    with pytest.raises(
        ValueError, match=r"shape \(batch, samples\), got \(2, 1, 400\)"
    ):
        resample_clips(torch.zeros(2, 1, 400), torch.ones(2), 16000, 24000)


def test_padding_is_cut_off():
    wavs, lens = torch.ones(2, 100), torch.tensor([0.29, 1.0])
    assert without_padding(wavs, lens, 10).shape == (2, 29)
    assert without_padding(wavs, lens, 40).shape == (2, 40)


@pytest.mark.parametrize("shape", [(2, 10, 4), (3, 2, 10, 4)])
def test_normalisation_ignores_the_padding(shape):
    hidden = torch.randn(shape) * 3 + 5
    assert torch.equal(
        normalize_clips(hidden, torch.ones(2)), F.layer_norm(hidden, shape[-2:])
    )
    hidden[..., 1, 6:, :] = 0
    out = normalize_clips(hidden, torch.tensor([1.0, 0.6]))
    alone = F.layer_norm(hidden[..., 1, :6, :], (6, 4))
    torch.testing.assert_close(out[..., 1, :6, :], alone)
    assert not out[..., 1, 6:, :].any()


def test_an_apple_gpu_gets_no_double_precision(monkeypatch):
    """There is none at hand: what would be moved is looked at."""
    moved, real = [], torch.Tensor.to

    def to(self, target, *args):
        if isinstance(target, torch.dtype):
            return real(self, target, *args)
        moved.append((torch.device(target).type, self.dtype))
        return self

    monkeypatch.setattr(torch.Tensor, "to", to)
    lens = torch.tensor([0.5, 1.0], dtype=torch.float64)
    for device in ("mps", torch.device("cuda", 0)):
        lengths_on(lens, device)
    assert moved == [("mps", torch.float32), ("cuda", torch.float64)]
    assert lengths_on(None, "mps") is None
