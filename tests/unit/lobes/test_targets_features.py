"""Cepstral coefficients against torchaudio, EnCodec against transformers."""

import logging

import pytest
import torch
import torchaudio
from transformers import EncodecConfig, EncodecModel

from muq_plugins.lobes import (
    BlockMasking,
    EncodecFeatures,
    EncodecQuantizer,
    KeptFrames,
    KMeans,
    LogMel,
    MaskedPrediction,
    Mfcc,
    MultiCodebookHead,
    MuQEncoder,
    Target,
)

TINY = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_dim": 16,
    "codebook_size": 1024,
    "num_lstm_layers": 1,
}


@pytest.fixture(scope="module")
def encodec(tmp_path_factory):
    """A small EnCodec with codebooks that are not zero, and its folder."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(**TINY)).eval()
    with torch.no_grad():
        spread = model.encoder(torch.randn(1, 1, 24000)).std()
        for index, level in enumerate(model.quantizer.layers):
            level.codebook.embed.normal_().mul_(spread * 0.7**index)
    folder = tmp_path_factory.mktemp("encodec")
    model.save_pretrained(folder)
    return model, folder


def encodec_target(folder, num_codebooks=8):
    return Target(
        KeptFrames(EncodecFeatures(str(folder)), every=3),
        EncodecQuantizer(str(folder), num_codebooks),
    )


# Cepstral coefficients ------------------------------------------------------


def test_coefficients_equal_the_torchaudio_chain():
    wavs = 0.3 * torch.randn(2, 24240)
    mel = torchaudio.transforms.MelSpectrogram(
        24000, n_fft=600, hop_length=240, n_mels=40
    )
    # torchaudio's MFCC cuts off what is 80 dB below the maximum of a batch; noise
    # has nothing there.
    chain = torchaudio.transforms.MFCC(
        24000, 13, melkwargs={"n_fft": 600, "hop_length": 240, "n_mels": 40}
    )
    assert mel(wavs).min() > 1e-8 * mel(wavs).max()
    expected = chain(wavs)[..., :-1]
    deltas = torchaudio.functional.compute_deltas(expected)
    expected = torch.cat(
        [expected, deltas, torchaudio.functional.compute_deltas(deltas)], dim=1
    )
    feats, lens = Mfcc()(wavs)
    assert feats.shape == (2, 101, 39) and lens.tolist() == [1.0, 1.0]
    torch.testing.assert_close(feats, expected.transpose(1, 2), rtol=1e-4, atol=1e-3)


def test_more_coefficients_than_bands_are_refused():
    with pytest.raises(ValueError, match="num_coefficients .* 40 mel bands, got 41"):
        Mfcc(num_coefficients=41)


# Kept frames ----------------------------------------------------------------


def test_the_first_of_every_few_frames_is_kept():
    wavs, lens = torch.randn(2, 24000 + 500), torch.tensor([1.0, 0.5])
    inner, _ = LogMel()(wavs, lens)
    features = KeptFrames(LogMel(), every=4)
    feats, kept_lens = features(wavs, lens)
    assert features.frame_rate == 25.0
    assert torch.equal(feats, inner[:, [4 * i for i in range(25)]])
    assert torch.round(kept_lens * 25).tolist() == [25, 12]


def test_keeping_less_than_every_frame_is_refused():
    with pytest.raises(ValueError, match="every must be at least 1"):
        KeptFrames(LogMel(), every=0)


def test_a_target_at_another_frame_rate_is_refused(encodec):
    _, folder = encodec
    target = Target(EncodecFeatures(str(folder)), EncodecQuantizer(str(folder)))
    encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4)
    head = MultiCodebookHead(32, 8, 1024)
    with pytest.raises(
        ValueError, match="frame_rate differs: Target has 75 Hz, MuQEncoder has 25"
    ):
        MaskedPrediction(BlockMasking(), target, encoder, head)


# EnCodec --------------------------------------------------------------------


@pytest.mark.parametrize("samples", [48000, 48100, 960 * 7])
def test_codes_equal_those_of_transformers(encodec, samples):
    model, folder = encodec
    wavs = 0.3 * torch.randn(2, samples)
    with torch.no_grad():
        expected = model.encode(wavs[:, None], bandwidth=6.0).audio_codes[0]
    codes = encodec_target(folder)(wavs)
    assert codes.shape == (2, samples // 960, 8)
    assert len(codes.unique()) > 20
    expected = expected.transpose(1, 2)[:, ::3][:, : codes.shape[1]]
    assert torch.equal(codes, expected)


def test_what_comes_after_a_clip_does_not_change_its_codes(encodec):
    target = encodec_target(encodec[1])
    clip, batch = torch.randn(30010), torch.randn(2, 48000)
    batch[0, :30010] = clip
    codes = target(batch, torch.tensor([30010 / 48000, 1.0]))
    assert target.frame_rate == 25.0
    assert torch.equal(codes[0, :31], target(clip[None])[0])
    assert (codes[0, 31:] == -1).all()


def test_random_weights_are_asked_for_and_announced(caplog):
    with caplog.at_level(logging.WARNING):
        target = Target(EncodecFeatures(None), EncodecQuantizer(None, 2))
    assert "random weights" in caplog.text
    assert target.frame_rate == 75.0 and target.codebook_size == 1024
    codes = target(torch.randn(1, 24000))
    assert all(len(level.unique()) > 20 for level in codes[0].t())


def test_a_source_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="EnCodec cannot be loaded from .*nowhere"):
        EncodecFeatures(str(tmp_path / "nowhere"))


def test_more_codebooks_than_the_codec_has_are_refused(encodec):
    with pytest.raises(ValueError, match="num_codebooks is 33, .* only 32"):
        EncodecQuantizer(str(encodec[1]), 33)


def test_the_codec_for_two_channels_is_refused(tmp_path):
    config = EncodecConfig(**TINY, audio_channels=2, normalize=True)
    EncodecModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="works on 2 channels"):
        EncodecFeatures(str(tmp_path))


def test_kmeans_of_coefficients_is_a_target_at_the_rate_of_the_student():
    quantizer = KMeans(39, codebook_size=5)
    quantizer.set_centres(100 * torch.randn(5, 39))
    target = Target(KeptFrames(Mfcc(), every=4), quantizer)
    assert target.frame_rate == 25.0
    assert target(torch.randn(1, 24000)).shape == (1, 25, 1)
