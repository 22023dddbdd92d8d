"""What every quantizer promises: the same checks for all of them."""

import functools

import numpy as np
import pytest
import torch

from muq_plugins.lobes import (
    EncodecQuantizer,
    FiniteScalarQuantization,
    KMeans,
    LogMel,
    Quantizer,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
    TokenizerTraining,
    VirtualCodes,
)
from muq_plugins.lobes.codes import count_codes
from muq_plugins.lobes.quantizers import base

SIZE = 128


def kmeans(seed=0, levels=1):
    quantizer = KMeans(SIZE, codebook_size=40, num_codebooks=levels)
    generator = torch.Generator().manual_seed(seed)
    quantizer.set_centres(torch.randn(40 * levels, SIZE, generator=generator))
    return quantizer


QUANTIZERS = {
    "residual_vq": lambda: ResidualVQ(SIZE, 3, 32),
    "random_projection": lambda: RandomProjection(SIZE, 3, 32),
    "fsq": lambda: FiniteScalarQuantization(SIZE, 3, [5, 4, 3, 2]),
    "kmeans": kmeans,
    "residual_kmeans": lambda: kmeans(levels=3),
    "virtual": lambda: VirtualCodes(RandomProjection(SIZE, 3, 32), 48),
    "encodec": lambda: EncodecQuantizer(source=None, num_codebooks=3),
}


def all_quantizers(kind: type = Quantizer) -> set[type]:
    """All quantizers of ours, without what others derive from."""
    below = {part for part in kind.__subclasses__() if part.__module__[:3] == "muq"}
    above = {base.DecodableQuantizer, base.ResidualCentres}
    return below.union(*map(all_quantizers, below)) - above


# A new one needs no line here if it takes these three arguments.
for kind in all_quantizers() - {type(make()) for make in QUANTIZERS.values()}:
    QUANTIZERS[kind.__name__] = functools.partial(kind, SIZE, 4, 32)


@pytest.mark.parametrize("sizes", [(0, 1, 8), (4, 0, 8), (4, 1, 1)])
def test_codes_that_say_nothing_are_refused(sizes):
    with pytest.raises(ValueError, match="must be at least [12], got [01]"):
        Quantizer(*sizes)


def test_no_quantizer_is_left_out():
    assert {type(make()) for make in QUANTIZERS.values()} == all_quantizers()


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
    too_many = quantizer.num_codebooks + 1
    with pytest.raises(ValueError, match=f"{too_many} codes per frame"):
        quantizer.decode(torch.zeros(5, too_many, dtype=torch.int64))


def test_usage_is_that_of_a_plain_count(quantizer, feats):
    codes = quantizer.encode(feats)
    counts = count_codes(codes, quantizer.codebook_size)
    expected = np.zeros((quantizer.num_codebooks, quantizer.codebook_size), int)
    for row in codes.flatten(0, 1).tolist():
        for level, code in enumerate(row):
            expected[level, code] += 1
    assert counts.tolist() == expected.tolist()
    stage = TokenizerTraining(torch.nn.Identity(), quantizer)
    assert torch.equal(
        stage.quantize(feats.flatten(0, 1)).totals["code_counts"], counts
    )


def test_chunks_give_the_codes_of_the_whole(quantizer, feats, monkeypatch):
    whole = quantizer.encode(feats)
    parts = [quantizer.encode(part) for part in feats.split(70, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    monkeypatch.setattr(base, "SEARCH_CHUNK", 64)
    assert torch.equal(quantizer.encode(feats), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_codes_of_full_precision(quantizer, feats, dtype):
    rounded = feats.to(dtype)
    expected = quantizer.encode(rounded.float())
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            same = quantizer.encode(rounded) == expected
        assert same.all(dim=-1).float().mean() >= 0.999


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_are_a_matter_of_the_saved_state(name, feats):
    torch.manual_seed(0)
    first = QUANTIZERS[name]().eval()
    torch.manual_seed(1)
    second = QUANTIZERS[name]().eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.encode(feats), second.encode(feats))


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
