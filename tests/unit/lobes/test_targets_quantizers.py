"""What every quantizer promises, and what is special about each."""

import numpy as np
import pytest
import torch

from muq_plugins.lobes import (
    BlockMasking,
    EncodecQuantizer,
    FiniteScalarQuantization,
    KMeans,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MultiViewTarget,
    MuQEncoder,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
    TokenizerTraining,
    VirtualCodes,
)
from muq_plugins.lobes.quantizers import base
from muq_plugins.lobes.stages import count_codes

SIZE = 128


def kmeans(seed=0):
    quantizer = KMeans(SIZE, codebook_size=40)
    generator = torch.Generator().manual_seed(seed)
    quantizer.set_centres(torch.randn(40, SIZE, generator=generator))
    return quantizer


QUANTIZERS = {
    "residual_vq": lambda: ResidualVQ(SIZE, 3, 32),
    "random_projection": lambda: RandomProjection(SIZE, 3, 32),
    "fsq": lambda: FiniteScalarQuantization(SIZE, 3, [5, 4, 3, 2]),
    "kmeans": kmeans,
    "virtual": lambda: VirtualCodes(RandomProjection(SIZE, 3, 32), 48),
    "encodec": lambda: EncodecQuantizer(source=None, num_codebooks=3),
}


@pytest.fixture(params=QUANTIZERS)
def quantizer(request):
    torch.manual_seed(0)
    return QUANTIZERS[request.param]().eval()


@pytest.fixture
def feats():
    return torch.randn(4, 250, SIZE, generator=torch.Generator().manual_seed(1))


def test_shapes_ranges_and_determinism(quantizer, feats):
    codes = quantizer.encode(feats)
    assert codes.shape == (4, 250, quantizer.num_codebooks)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < quantizer.codebook_size
    assert torch.equal(codes, quantizer.encode(feats))
    assert len(codes[..., 0].unique()) > 10
    out = quantizer(feats)
    assert torch.equal(out.codes, codes)
    assert out.quantized.shape == feats.shape
    assert out.level_errors.shape == (quantizer.num_codebooks + 1,)


def test_decoding_gives_the_quantized_vectors(quantizer, feats):
    if not hasattr(quantizer, "decode"):
        pytest.skip("cannot be decoded")
    out = quantizer(feats)
    torch.testing.assert_close(quantizer.decode(out.codes), out.quantized)
    errors = [feats.abs().mean()] + [
        (feats - quantizer.decode(out.codes[..., : n + 1])).abs().mean()
        for n in range(quantizer.num_codebooks)
    ]
    torch.testing.assert_close(out.level_errors, torch.stack(errors))
    too_many = torch.zeros(5, quantizer.num_codebooks + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="codes per frame"):
        quantizer.decode(too_many)


def test_usage_is_that_of_a_plain_count(quantizer, feats):
    codes = quantizer.encode(feats)
    counts = count_codes(codes, quantizer.codebook_size)
    expected = np.zeros((quantizer.num_codebooks, quantizer.codebook_size), int)
    for row in codes.flatten(0, 1).tolist():
        for level, code in enumerate(row):
            expected[level, code] += 1
    assert counts.tolist() == expected.tolist()
    stage = TokenizerTraining(torch.nn.Identity(), quantizer)
    assert torch.equal(stage.quantize(feats.flatten(0, 1)).code_counts, counts)


def test_chunks_give_the_codes_of_the_whole(quantizer, feats, monkeypatch):
    whole = quantizer.encode(feats)
    parts = [quantizer.encode(part) for part in feats.split(70, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    monkeypatch.setattr(base, "SEARCH_CHUNK", 64)
    assert torch.equal(quantizer.encode(feats), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_codes_of_full_precision(quantizer, feats, dtype):
    rounded = feats.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = quantizer.encode(rounded)
    same = lowered == quantizer.encode(rounded.float())
    assert same.all(dim=-1).float().mean() >= 0.999


@pytest.mark.parametrize("name", QUANTIZERS)
def test_making_one_leaves_the_global_random_state_alone(name):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    QUANTIZERS[name]()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["residual_vq", "fsq", "encodec"])
def test_initial_weights_follow_the_seed_of_the_run(name):
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(torch.cat([t.flatten() for t in QUANTIZERS[name]().buffers()]))
        made[-1] = [
            *(p.detach() for p in QUANTIZERS[name]().parameters()),
            made[-1],
        ]
    first, again, other = made
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_padding_is_isolated(quantizer):
    if quantizer.input_size != SIZE:
        pytest.skip("needs the features of this test")
    features = StackedFrames(LogMel(n_mels=SIZE // 4), num_frames=4)
    target = Target(features, quantizer)
    clip, batch = torch.randn(30000), torch.randn(2, 48000)
    batch[0, :30000] = clip
    codes = target(batch, torch.tensor([30000 / 48000, 1.0]))
    assert torch.equal(codes[0, :31], target(clip[None])[0])
    assert (codes[0, 31:] == -1).all()


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


def test_centres_that_were_not_fitted_are_refused():
    with pytest.raises(ValueError, match="have not been fitted"):
        KMeans(SIZE, 4).encode(torch.randn(3, SIZE))


def test_centres_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\), expected \(4, 128\)"):
        KMeans(SIZE, 4).set_centres(torch.zeros(4, 3))


def test_a_quantizer_for_other_features_is_refused():
    with pytest.raises(ValueError, match="set input_size to 512"):
        Target(StackedFrames(LogMel()), kmeans())


# Virtual codes --------------------------------------------------------------


def test_virtual_codes_are_never_hit(feats):
    inner = RandomProjection(SIZE, 3, 32)
    quantizer = VirtualCodes(inner, 48)
    codes = quantizer.encode(feats)
    assert torch.equal(codes, inner.encode(feats))
    assert count_codes(codes, 48)[:, 32:].sum() == 0
    with pytest.raises(ValueError, match="is 31, less than the 32 entries"):
        VirtualCodes(inner, 31)


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
