"""Masking, target, and the modules of the stages."""

import math

import pytest
import torch

from muq_plugins.lobes import (
    BlockMasking,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MuQEncoder,
    RandomProjection,
    ResidualVQ,
    SpanMasking,
    StackedFrames,
    Target,
    TokenizerTraining,
    VirtualCodes,
)
from muq_plugins.lobes.codes import count_codes
from muq_plugins.lobes.target import mark_trained
from tests.unit.lobes.tones import learn_tones


def small_parts(width=32, codebooks=2, entries=16, hop_length=240, classes=None):
    return {
        "masking": BlockMasking(),
        "target": Target(
            StackedFrames(LogMel()), RandomProjection(512, codebooks, entries)
        ),
        "encoder": MuQEncoder(
            32, 1, 4, 64, conv_channels=4, dropout=0.0, hop_length=hop_length
        ),
        "head": MultiCodebookHead(width, codebooks, classes or entries),
    }


def test_masking_depends_on_the_key_alone():
    masking = BlockMasking()
    wavs = torch.randn(3, 96000)
    masked, mask = masking(wavs, torch.tensor([5, 6, 7]))
    state = torch.get_rng_state()
    alone, mask_alone = masking(wavs[1:2], torch.tensor([6]))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(masked[1], alone[0]) and torch.equal(mask[1], mask_alone[0])
    assert not torch.equal(mask[0], mask[1])
    # Also when the clip is padded to another length.
    longer, mask_longer = masking(torch.randn(1, 120000), torch.tensor([6]))
    assert torch.equal(mask_longer[0, :100], mask[1])


def test_masked_samples_are_noise_and_the_others_are_untouched():
    wavs = torch.ones(64, 96000)
    masked, mask = BlockMasking(0.6, noise_std=0.1)(wavs, torch.arange(64))
    by_frame = masked.unflatten(1, (100, 960))
    assert (by_frame[~mask] == 1).all()
    noise = by_frame[mask]
    assert abs(noise.std() - 0.1) < 0.002 and abs(noise.mean()) < 0.002
    assert abs(mask.float().mean() - 0.6) < 0.05
    blocks = mask.unflatten(1, (10, 10))
    assert (blocks.all(-1) | ~blocks.any(-1)).all()


def test_the_tail_of_a_clip_is_masked_like_the_rest():
    masks = BlockMasking()(torch.zeros(200, 9600 + 1920), torch.arange(200))[1]
    assert masks.shape == (200, 12)
    assert 0.45 < masks[:, 10:].float().mean() < 0.75


def test_bad_masking_settings_are_refused():
    with pytest.raises(ValueError, match="probability"):
        BlockMasking(probability=0.0)
    with pytest.raises(ValueError, match="whole number of frames of 40 ms"):
        BlockMasking(block_seconds=0.5 + 0.01)
    with pytest.raises(ValueError, match="2 clips need 2 keys"):
        BlockMasking()(torch.zeros(2, 9600), torch.tensor([1]))


def test_the_target_is_frozen_whatever_is_asked():
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    assert not any(p.requires_grad for p in target.parameters())
    target.train()
    assert not any(module.training for module in target.modules())
    assert torch.nn.ModuleList([target]).train()[0].quantizer.training is False


def test_a_target_whose_parts_do_not_fit_is_refused():
    with pytest.raises(
        ValueError, match="LogMel gives vectors of 128.*RandomProj.*512"
    ):
        Target(LogMel(), RandomProjection(512, 1, 4))


def test_loss_is_the_mean_over_masked_frames_and_codebooks():
    torch.manual_seed(0)
    parts = small_parts()
    stage = MaskedPrediction(**parts).eval()
    wavs, keys = torch.randn(2, 48000), torch.tensor([3, 4])
    out = stage(wavs, None, keys)
    codes = parts["target"](wavs)
    masked, mask = parts["masking"](wavs, keys)
    logits = parts["head"](parts["encoder"](masked).last_hidden_state)
    losses = -logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0][mask]
    torch.testing.assert_close(out.loss, losses.mean())
    weight = out.weights["cross_entropy"]
    assert weight == mask.sum()
    torch.testing.assert_close(
        out.sums["cross_entropy_per_codebook"] / weight, losses.mean(0)
    )
    hits = (logits.argmax(-1) == codes)[mask].float().mean(0)
    torch.testing.assert_close(out.sums["accuracy_per_codebook"] / weight, hits)
    assert torch.equal(out.totals["code_counts"], count_codes(codes[mask], 16))


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_visible_frames_count_what_is_asked(weight):
    torch.manual_seed(0)
    parts = small_parts()
    stage = MaskedPrediction(**parts, visible_weight=weight).eval()
    wavs, keys = torch.randn(2, 48000), torch.tensor([3, 4])
    out = stage(wavs, None, keys)
    codes = parts["target"](wavs)
    masked, mask = parts["masking"](wavs, keys)
    logits = parts["head"](parts["encoder"](masked).last_hidden_state)
    total = number = 0.0
    for clip, frame in mask.nonzero().tolist() + (~mask).nonzero().tolist():
        counts = 1.0 if mask[clip, frame] else weight
        asked = codes[clip, frame]
        losses = torch.nn.functional.cross_entropy(logits[clip, frame], asked)
        total, number = total + counts * losses, number + counts
    torch.testing.assert_close(out.loss, total / number)
    torch.testing.assert_close(out.sums["loss"] / out.weights["loss"], total / number)
    assert torch.equal(out.totals["code_counts"], count_codes(codes[mask], 16))
    assert out.weights["cross_entropy"] == mask.sum()
    # Each kind of frames is reported by itself, and only what is part of the loss.
    assert ("visible_cross_entropy" in out.sums) == (weight > 0)
    if weight:
        assert out.weights["visible_accuracy"] == (~mask).sum()
        sums = [out.sums[name] for name in ("cross_entropy", "visible_cross_entropy")]
        torch.testing.assert_close(sums[0] + weight * sums[1], total)


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match=f"visible_weight is {weight}"):
        MaskedPrediction(**small_parts(), visible_weight=weight)


def masked_stage(masking, **options):
    return MaskedPrediction(**small_parts() | {"masking": masking()}, **options)


@pytest.mark.parametrize("masking", [BlockMasking, SpanMasking])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_padding_is_neither_heard_nor_masked_nor_predicted(masking, weight):
    stage = masked_stage(masking, visible_weight=weight).eval()
    for vector in stage.masking.parameters():
        torch.nn.init.normal_(vector)
    wavs = torch.zeros(2, 96000)
    wavs[:, :24000] = torch.randn(2, 24000)
    keys = torch.tensor([1, 2])
    padded = stage(wavs, torch.tensor([0.25, 0.25]), keys)
    alone = stage(wavs[:, :24000], None, keys)
    assert padded.weights["loss"] == alone.weights["loss"] > 0
    torch.testing.assert_close(padded.loss, alone.loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masking", [BlockMasking, SpanMasking])
def test_a_batch_without_scored_frames_keeps_the_graph_whole(masking):
    # DDP waits for the gradient of each parameter on each process.
    stage = masked_stage(masking)
    stage.masking.probability = 0.0
    out = stage(torch.randn(1, 24000), None, torch.tensor([1]))
    out.loss.backward()
    assert out.loss == 0 and out.weights["loss"] == 0
    assert all(p.grad is not None for p in stage.parameters() if p.requires_grad)


def test_masked_prediction_learns():
    torch.manual_seed(0)
    stage = MaskedPrediction(**small_parts(codebooks=1, entries=4))
    losses = [out.loss.item() for out in learn_tones(stage)]
    assert sum(losses[-5:]) / 5 < 0.3 * losses[0]


def test_parts_with_different_rates_are_refused():
    with pytest.raises(
        ValueError, match="frame_rate.*Target has 25 Hz, MuQEncoder has 12.5"
    ):
        MaskedPrediction(**small_parts(hop_length=480))
    with pytest.raises(ValueError, match="width.*MuQEncoder has 32.*Head has 48"):
        MaskedPrediction(**small_parts(width=48))
    with pytest.raises(ValueError, match="codebook_size.*16 entries.*8 entries"):
        MaskedPrediction(**small_parts(classes=8))


def test_tokenizer_training_ignores_padding():
    torch.manual_seed(0)
    stage = TokenizerTraining(StackedFrames(LogMel()), ResidualVQ(512, 2, 16)).eval()
    clip = torch.randn(24000)
    batch = torch.zeros(1, 96000)
    batch[0, :24000] = clip
    keys = torch.tensor([1])
    padded, alone = (
        stage(batch, torch.tensor([0.25]), keys),
        stage(clip[None], None, keys),
    )
    torch.testing.assert_close(padded.loss, alone.loss)
    assert torch.equal(padded.totals["code_counts"], alone.totals["code_counts"])


def test_a_target_that_nobody_has_trained_is_named():
    parts = small_parts()
    totals = {"code_counts": torch.ones(2, 16)}
    assert MaskedPrediction(**parts).summary({}, totals)["random_target"] == (
        "RandomProjection"
    )
    virtual = Target(
        StackedFrames(LogMel()), VirtualCodes(ResidualVQ(512, 2, 8), codebook_size=16)
    )
    stage = MaskedPrediction(**{**parts, "target": virtual})
    assert stage.summary({}, totals)["random_target"] == "ResidualVQ"
    mark_trained(virtual.quantizer)
    assert "random_target" not in stage.summary({}, totals)


def test_waveforms_alone_will_do_and_are_masked_by_the_global_random_state():
    stage = MaskedPrediction(**small_parts()).eval()
    wavs = torch.randn(2, 48000)
    counts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        counts.append(stage(wavs).totals["code_counts"])
    assert torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[0], counts[2])  # by another mask
    again = stage(wavs).totals["code_counts"]
    assert not torch.equal(again, counts[2])  # and by another in each call
    torch.manual_seed(2)
    keys = torch.randint(2**62, (2,))
    assert torch.equal(stage(wavs, None, keys).totals["code_counts"], counts[2])
    tokenizer = TokenizerTraining(StackedFrames(LogMel()), ResidualVQ(512, 2, 16))
    assert torch.isfinite(tokenizer(wavs).loss)


def test_a_stage_is_a_module_in_anybodys_loop():
    torch.manual_seed(0)
    stage = MaskedPrediction(**small_parts(codebooks=2, entries=4))
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.01)
    wavs, losses = torch.randn(4, 24000), []
    for _ in range(40):
        losses.append(stage(wavs).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
