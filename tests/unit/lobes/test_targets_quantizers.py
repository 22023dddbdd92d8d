"""What is special about each quantizer; targets of several views or other rates."""

import numpy as np
import pytest
import torch

from muq_plugins.brains.stages import fit_centres
from muq_plugins.lobes import (
    BlockMasking,
    FiniteScalarQuantization,
    KMeans,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MultiViewTarget,
    MuQEncoder,
    RandomProjection,
    ResampledTarget,
    StackedFrames,
    Target,
    TeacherFeatures,
    VirtualCodes,
)
from muq_plugins.lobes.codes import count_codes
from muq_plugins.lobes.target import untrained_parts

SIZE = 128


def kmeans(seed=0):
    quantizer = KMeans(SIZE, codebook_size=40)
    generator = torch.Generator().manual_seed(seed)
    quantizer.set_centres(torch.randn(40, SIZE, generator=generator))
    return quantizer


# Random projection ----------------------------------------------------------


def test_neighbouring_seeds_share_no_random_codebook():
    first, second = (RandomProjection(SIZE, 4, 16, seed=seed) for seed in (3, 4))
    for one in first.codebooks:
        assert not any(torch.equal(one, other) for other in second.codebooks)


# Finite scalar quantization -------------------------------------------------


@pytest.mark.parametrize("levels", [[2], [3], [8, 8], [8, 5, 5, 5], [4, 3, 2]])
def test_every_combination_of_levels_is_in_reach_and_its_own_code(levels):
    quantizer = FiniteScalarQuantization(len(levels), 1, levels)
    with torch.no_grad():
        quantizer.in_proj.weight.copy_(torch.eye(len(levels)))
        quantizer.in_proj.bias.zero_()
        quantizer.out_proj.weight.copy_(torch.eye(len(levels)))
        quantizer.out_proj.bias.zero_()
    feats = torch.randn(100000, len(levels)) * 2
    codes = quantizer.encode(feats)
    assert len(codes.unique()) == quantizer.codebook_size == np.prod(levels)
    every = torch.arange(quantizer.codebook_size)[:, None]
    values = quantizer.decode(every)
    assert len(values.unique(dim=0)) == quantizer.codebook_size
    assert values.abs().max() <= 1
    # Zero stands for itself, and so its code is one of a decoded zero.
    zero = quantizer.encode(torch.zeros(1, len(levels)))
    assert quantizer.decode(zero).abs().max() == 0


def test_finite_scalar_gradients_pass_the_rounding():
    quantizer = FiniteScalarQuantization(16, 2, [8, 8])
    out = quantizer(torch.randn(20, 16))
    assert out.loss == 0 and not out.loss.requires_grad
    out.quantized.sum().backward()
    assert quantizer.in_proj.weight.grad.abs().sum() > 0


def test_finite_scalar_learns_to_reconstruct():
    torch.manual_seed(0)
    centres = torch.randn(12, 32)
    quantizer = FiniteScalarQuantization(32, 4, [5, 5])
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.02)
    errors = []
    for _ in range(150):
        feats = centres[torch.randint(12, (256,))] + 0.05 * torch.randn(256, 32)
        errors.append((feats - quantizer(feats).quantized).abs().mean())
        optimizer.zero_grad()
        errors[-1].backward()
        optimizer.step()
    assert errors[-1] < 0.4 * errors[0]


@pytest.mark.parametrize("levels", [[], [8, 1], [0]])
def test_too_few_levels_are_refused(levels):
    with pytest.raises(ValueError, match="levels must be .* at least 2"):
        FiniteScalarQuantization(SIZE, 1, levels)


# K-means --------------------------------------------------------------------


def test_kmeans_codes_are_the_closest_centres_far_from_the_origin():
    quantizer = kmeans()
    quantizer.centres += 300
    feats = torch.randn(500, SIZE) + 300
    distances = torch.cdist(feats.double(), quantizer.centres.double())
    assert torch.equal(quantizer.encode(feats)[:, 0], distances.argmin(-1))


def test_a_level_of_kmeans_has_the_centres_closest_to_what_is_left():
    quantizer = KMeans(SIZE, codebook_size=10, num_codebooks=2)
    quantizer.set_centres(torch.randn(20, SIZE))
    feats = torch.randn(500, SIZE)
    first, second = quantizer.centres[:10], quantizer.centres[10:]
    codes = quantizer.encode(feats)
    assert torch.equal(codes[:, 0], torch.cdist(feats, first).argmin(-1))
    left = feats - first[codes[:, 0]]
    assert torch.equal(codes[:, 1], torch.cdist(left, second).argmin(-1))
    assert torch.equal(quantizer.decode(codes[:, :1]), first[codes[:, 0]])
    both = first[codes[:, 0]] + second[codes[:, 1]]
    assert torch.equal(quantizer.decode(codes), both)


def test_centres_that_were_not_fitted_are_refused():
    with pytest.raises(ValueError, match="have not been fitted"):
        KMeans(SIZE, 4).encode(torch.randn(3, SIZE))


def test_centres_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\), expected \(4, 128\)"):
        KMeans(SIZE, 4).set_centres(torch.zeros(4, 3))


def test_a_quantizer_for_other_features_is_refused():
    with pytest.raises(ValueError, match="set input_size to 512"):
        Target(StackedFrames(LogMel()), kmeans())


def test_a_teacher_of_another_width_is_refused():
    encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4)
    message = "TeacherFeatures gives vectors of 32 values, .* quantizes vectors of 128"
    with pytest.raises(ValueError, match=message):
        Target(TeacherFeatures(encoder, 1, "teacher"), kmeans())


# Virtual codes --------------------------------------------------------------


def test_virtual_codes_are_never_hit():
    feats = torch.randn(4, 250, SIZE)
    inner = RandomProjection(SIZE, 3, 32)
    quantizer = VirtualCodes(inner, 48)
    codes = quantizer.encode(feats)
    assert torch.equal(codes, inner.encode(feats))
    assert count_codes(codes, 48)[:, 32:].sum() == 0
    with pytest.raises(ValueError, match="is 31, less than the 32 entries"):
        VirtualCodes(inner, 31)


def test_under_virtual_codes_a_quantizer_can_what_it_could():
    frames = torch.tensor([[0.0], [0.0], [8.0], [8.0]])
    quantizer = VirtualCodes(KMeans(1, codebook_size=2), 5)
    fit_centres(quantizer, frames, seed=1)
    assert torch.equal(quantizer.decode(quantizer.encode(frames)).round(), frames)
    assert not hasattr(VirtualCodes(RandomProjection(SIZE, 3, 32), 48), "decode")


# Several views --------------------------------------------------------------


def view(n_fft=SIZE * 4, codebook_size=32, seed=1, num_frames=4):
    features = StackedFrames(LogMel(n_fft=n_fft, n_mels=32), num_frames)
    projection = RandomProjection(32 * num_frames, 2, codebook_size, seed=seed)
    return Target(features, projection)


def test_several_views_are_one_target():
    views = [view(), view(n_fft=1024, seed=2)]
    target = MultiViewTarget(views)
    wavs, lens = torch.randn(2, 48000), torch.tensor([30000 / 48000, 1.0])
    codes = target(wavs, lens)
    assert torch.equal(codes, torch.cat([v(wavs, lens) for v in views], dim=-1))
    assert (codes[0, 31:] == -1).all() and (codes[0, :31] >= 0).all()
    assert (target.num_codebooks, target.frame_rate) == (4, 25.0)
    stage = MaskedPrediction(
        BlockMasking(),
        target,
        MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4),
        MultiCodebookHead(32, 4, 32),
    )
    out = stage(wavs, lens, torch.tensor([1, 2]))
    assert out.sums["accuracy_per_codebook"].shape == (4,)
    out.loss.backward()


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([], "at least one view"),
        ([view(), view(codebook_size=16)], "codebook_size differs: .* 1 has 16"),
        ([view(), view(num_frames=2)], "frame_rate differs: view 0 has 25, .* 50"),
    ],
)
def test_views_that_do_not_fit_are_refused(views, message):
    with pytest.raises(ValueError, match=message):
        MultiViewTarget(views)


# Another frame rate ---------------------------------------------------------


def test_frames_of_a_faster_target_stand_side_by_side():
    fast = view(num_frames=1)  # 100 Hz
    target = ResampledTarget(fast, 25.0)
    assert (target.frame_rate, target.num_codebooks, target.codebook_size) == (
        25,
        8,
        32,
    )
    wavs, lens = torch.randn(2, 48500), torch.tensor([30000 / 48500, 1.0])
    codes, found = fast(wavs, lens), target(wavs, lens)
    assert codes.shape == (2, 202, 2) and found.shape == (2, 50, 8)
    for frame in (0, 30, 49):
        expected = codes[1, 4 * frame : 4 * frame + 4]
        assert torch.equal(found[1, frame].view(4, 2), expected)
    # 125 frames of the first clip: the last one does not fill a frame of four.
    assert (codes[0, 124] >= 0).all() and (codes[0, 125:] == -1).all()
    assert (found[0, :31] >= 0).all() and (found[0, 31:] == -1).all()
    assert untrained_parts(target) == ["RandomProjection"]


def test_codes_of_a_slower_target_are_repeated():
    slow = view(num_frames=12)  # 8.33 Hz
    target = ResampledTarget(slow, 25.0)
    assert (target.frame_rate, target.num_codebooks) == (25, 2)
    wavs, lens = torch.randn(2, 48000), torch.tensor([0.5, 1.0])
    codes, found = slow(wavs, lens), target(wavs, lens)
    assert found.shape == (2, 48, 2)
    assert torch.equal(found.unflatten(1, (16, 3))[:, :, 1], codes)
    assert (found[0, 24:] == -1).all() and (found[0, :24] >= 0).all()


def test_a_resampled_target_trains_and_is_told_which_crops():
    class Told(torch.nn.Module):
        sample_rate, frame_rate, num_codebooks, codebook_size = 24000, 75.0, 2, 16

        def forward(self, wavs, wav_lens, crops):
            assert crops == [("a", 1.0)]
            return torch.zeros(1, wavs.shape[1] // 320, 2, dtype=torch.int64)

    stage = MaskedPrediction(
        BlockMasking(),
        ResampledTarget(Told(), 25.0),
        MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4),
        MultiCodebookHead(32, 6, 16),
    )
    out = stage(torch.randn(1, 24000), None, torch.tensor([6]), [("a", 1.0)])
    assert out.sums["accuracy_per_codebook"].shape == (6,)


@pytest.mark.parametrize("rate, words", [(40.0, "100 frames.*of which 40"), (0, "Hz")])
def test_rates_that_are_no_multiple_are_refused(rate, words):
    with pytest.raises(ValueError, match=words):
        ResampledTarget(view(num_frames=1), rate)
