"""Spans of the spectrogram: how they are drawn, and what the stage learns of them."""

import copy

import pytest
import torch

from muq_plugins.lobes import (
    BlockMasking,
    EncoderOutput,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MuQEncoder,
    RandomProjection,
    ResampledEncoder,
    SpanMasking,
    SpeechBrainConformer,
    StackedFrames,
    Target,
)


def small_stage(masking, **encoder):
    torch.manual_seed(0)
    return MaskedPrediction(
        masking,
        Target(StackedFrames(LogMel()), RandomProjection(512, 2, 16)),
        MuQEncoder(32, 1, 4, 64, conv_channels=4, dropout=0.0, **encoder),
        MultiCodebookHead(32, 2, 16),
    )


def feats_and_keys(batch=64, frames=400):
    return torch.randn(batch, frames, 128), torch.arange(batch)


@pytest.mark.parametrize(("probability", "seconds"), [(0.3, 0.4), (0.57, 0.2)])
def test_the_share_of_masked_frames_is_the_one_declared(probability, seconds):
    masking = SpanMasking(probability, seconds, size=1)
    mask = masking(torch.zeros(4000, 80, 1), torch.arange(4000))[1].float()
    assert abs(mask.mean() - probability) < 0.01
    # The first and the last frames as often as the others.
    assert (mask.mean(0) - probability).abs().max() < 0.04


def test_masked_frames_come_in_spans_of_at_least_their_length():
    mask = SpanMasking(0.5, 0.2, size=1)(torch.zeros(50, 400, 1), torch.arange(50))[1]
    overlapping = 0
    for row in mask.tolist():
        runs = "".join("x" if masked else "." for masked in row).strip("x").split(".")
        lengths = [len(run) for run in runs if run]
        assert min(lengths) >= 5
        overlapping += sum(length > 5 for length in lengths)
    assert overlapping > 0


def test_whole_frames_are_replaced_and_the_others_are_untouched():
    masking = SpanMasking()
    torch.nn.init.constant_(masking.vector, 7.0)
    feats, keys = feats_and_keys(frames=402)
    masked, mask = masking(feats, keys)
    assert mask.shape == (64, 100) and 0.5 < mask.float().mean() < 0.64
    parts = masked[:, :400].unflatten(1, (100, 4))
    assert (parts[mask] == 7).all()
    assert torch.equal(parts[~mask], feats[:, :400].unflatten(1, (100, 4))[~mask])
    assert (masked[:, 400:] == 7).any() and (masked[:, 400:] != 7).any()


def test_masking_depends_on_the_key_alone():
    masking = SpanMasking()
    feats, keys = feats_and_keys(batch=3)
    mask = masking(feats, keys + 5)[1]
    alone = masking(torch.randn(1, 400, 128), torch.tensor([6]))[1]
    longer = masking(torch.zeros(1, 520, 128), torch.tensor([6]))[1]
    assert not torch.equal(mask[0], mask[1])
    assert torch.equal(mask[1], alone[0]) and torch.equal(mask[1], longer[0, :100])
    assert torch.equal(mask, masking(feats, keys + 5)[1])


def test_making_and_using_it_leaves_the_global_random_state_alone():
    feats, keys = feats_and_keys(batch=2)
    state = torch.get_rng_state()
    SpanMasking()(feats, keys)
    assert torch.equal(state, torch.get_rng_state())


def test_the_loss_is_that_of_the_masked_frames():
    stage = small_stage(SpanMasking()).eval()
    asked = stage.objectives["codes"]
    wavs, keys = torch.randn(2, 48000), torch.tensor([3, 4])
    out = stage(wavs, None, keys)
    mel = stage.encoder.features(wavs)[0]
    masked, mask = stage.masking(mel, keys)
    hidden = stage.encoder.encode(masked).last_hidden_state
    logits, codes = asked.head(hidden), asked.target(wavs)
    losses = -logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(out.loss, losses[mask].mean())
    assert out.weights["loss"] == mask.sum() > 0
    # Frames that are not masked have no part in it.
    codes = torch.where(mask[..., None], codes, (codes + 1) % 16)
    asked.target.forward = lambda wavs, wav_lens, crops: codes
    torch.testing.assert_close(stage(wavs, None, keys).loss, out.loss)


def test_what_is_masked_is_not_heard():
    stage = small_stage(SpanMasking(probability=1.0)).eval()
    keys = torch.tensor([3, 4])
    one, other = (
        stage.masking.encode(stage.encoder, torch.randn(2, 24000), None, keys)[0]
        for _ in range(2)
    )
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)


def test_the_vector_is_trained():
    stage = small_stage(SpanMasking())
    names = [name for name, p in stage.named_parameters() if p.requires_grad]
    assert "masking.vector" in names
    optimizer = torch.optim.AdamW(stage.parameters(), 1e-3)
    stage(torch.randn(2, 24000), None, torch.tensor([1, 2])).loss.backward()
    assert stage.masking.vector.grad.abs().min() > 0
    optimizer.step()
    assert stage.masking.vector.abs().min() > 0
    assert torch.equal(
        copy.deepcopy(stage).state_dict()["masking.vector"], stage.masking.vector
    )


def test_the_vector_is_trained_within_ddp(tmp_path):
    """DDP refuses a second batch if a parameter got no gradient in the first."""
    method = f"file://{tmp_path / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", method, world_size=1, rank=0)
    try:
        stage = small_stage(SpanMasking())
        wrapped = torch.nn.parallel.DistributedDataParallel(stage)
        for key in (1, 2):
            wrapped(torch.randn(1, 24000), None, torch.tensor([key])).loss.backward()
        assert stage.masking.vector.grad.abs().min() > 0
    finally:
        torch.distributed.destroy_process_group()


def test_other_encoders_of_a_spectrogram_can_be_masked():
    encoder = SpeechBrainConformer(32, 1, 4, 64, conv_channels=4).eval()
    masking = SpanMasking()
    masking.check(encoder)
    wavs, keys = torch.randn(2, 24000), torch.tensor([1, 2])
    out, mask = masking.encode(encoder, wavs, None, keys)
    clean = encoder(wavs).last_hidden_state
    assert mask.any() and out.last_hidden_state.shape == clean.shape
    assert not torch.equal(out.last_hidden_state, clean)


class HearsWaveforms(torch.nn.Module):
    """An encoder without a spectrogram."""

    sample_rate, frame_rate, width = 24000, 25.0, 32

    def forward(self, wavs, wav_lens=None):
        hidden = torch.zeros(len(wavs), wavs.shape[1] // 960, 32)
        return EncoderOutput(hidden, (hidden,), torch.ones(len(wavs)))


def test_an_encoder_that_does_not_fit_is_refused_when_wired():
    def wired(masking, encoder):
        target = Target(StackedFrames(LogMel()), RandomProjection(512, 2, 16))
        return MaskedPrediction(masking, target, encoder, MultiCodebookHead(32, 2, 16))

    message = "HearsWaveforms offers none.*BlockMasking, or another encoder"
    with pytest.raises(ValueError, match=message):
        wired(SpanMasking(), HearsWaveforms())
    out = wired(BlockMasking(), HearsWaveforms())(
        torch.randn(2, 24000), None, torch.tensor([1, 2])
    )
    assert torch.isfinite(out.loss)
    resampled = ResampledEncoder(MuQEncoder(32, 1, 4, 64, conv_channels=4), 25.0)
    with pytest.raises(ValueError, match="ResampledEncoder offers none"):
        wired(SpanMasking(), resampled)
    fewer = MuQEncoder(32, 1, 4, 64, conv_channels=4, n_mels=64)
    with pytest.raises(ValueError, match="of 128 values, .* MuQEncoder have 64: set"):
        wired(SpanMasking(), fewer)
    with pytest.raises(ValueError, match="at 200 Hz, .* MuQEncoder come at 100 Hz"):
        small_stage(SpanMasking(hop_length=120))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\], got 1.1"):
        SpanMasking(probability=1.1)
    with pytest.raises(ValueError, match="span of 0.05 s is not a whole number of fr"):
        SpanMasking(span_seconds=0.05)
    with pytest.raises(ValueError, match="at 80 Hz cannot be masked at 25 Hz"):
        SpanMasking(hop_length=300)
    with pytest.raises(ValueError, match="2 clips need 2 keys"):
        SpanMasking()(torch.zeros(2, 100, 128), torch.tensor([1]))
    assert SpanMasking(span_seconds=0.28).span_frames == 7  # 0.28 * 25 > 7
