"""Residual VQ against SpeechBrain's DAC, stale codes, random projection."""

import pytest
import torch
import torch.nn.functional as F
from speechbrain.lobes.models.discrete.dac import ResidualVectorQuantize

from muq_plugins.lobes import RandomProjection, ResidualVQ
from muq_plugins.lobes.quantizers.base import SEARCH_CHUNK, nearest_entries
from muq_plugins.lobes.quantizers.residual_vq import StaleCodes


def dac_with_the_same_weights(quantizer):
    levels, size = quantizer.num_codebooks, quantizer.codebook_size
    dac = ResidualVectorQuantize(quantizer.input_size, levels, size, 16)
    state = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in quantizer.state_dict().items()
        if "stale_counter" not in name
    }
    dac.load_state_dict(state)
    return dac.eval()


def test_codes_and_reconstruction_equal_dac():
    torch.manual_seed(0)
    quantizer = ResidualVQ(512, 8, 1024).eval()
    feats = torch.randn(4, 200, 512)
    dac = dac_with_the_same_weights(quantizer)
    with torch.no_grad():
        quantized, codes, *_, commitment, codebook = dac(feats.transpose(1, 2))
        out = quantizer(feats)
    assert torch.equal(out.codes, codes.transpose(1, 2))
    assert torch.equal(quantizer.encode(feats), out.codes)
    torch.testing.assert_close(out.quantized, quantized.transpose(1, 2))
    torch.testing.assert_close(out.terms["commitment_loss"], commitment)
    torch.testing.assert_close(out.terms["codebook_loss"], codebook)
    torch.testing.assert_close(out.loss, 0.25 * commitment + codebook)
    torch.testing.assert_close(quantizer.decode(out.codes), out.quantized)


def test_parameter_names_are_the_official_ones():
    names = set(ResidualVQ(512, 1, 16).state_dict())
    assert names == {
        f"quantizers.0.{name}"
        for name in (
            "in_proj.weight_g",
            "in_proj.weight_v",
            "in_proj.bias",
            "out_proj.weight_g",
            "out_proj.weight_v",
            "out_proj.bias",
            "codebook.weight",
            "stale_counter",
        )
    }
    deep = set(ResidualVQ(512, 1, 16, projection_depth=3).state_dict())
    assert {f"quantizers.0.in_proj.{i}.bias" for i in ("0", "1.1", "3")} <= deep
    assert {f"quantizers.0.out_proj.{i}.bias" for i in ("0", "2.0", "3")} <= deep


def test_residuals_are_not_detached():
    quantizer = ResidualVQ(32, 2, 8)
    out = quantizer(torch.randn(10, 32))
    level = quantizer.quantizers[1]
    (gradient,) = torch.autograd.grad(
        torch.nn.functional.mse_loss(
            level.in_proj(
                torch.ones(1, 32) - quantizer.quantizers[0](torch.ones(1, 32))[0]
            ),
            torch.zeros(1, 16),
        ),
        quantizer.quantizers[0].out_proj.bias,
    )
    assert gradient.abs().sum() > 0
    assert out.loss.requires_grad


def test_training_reconstructs_better_and_uses_the_codes():
    torch.manual_seed(0)
    centres = torch.randn(20, 32)
    quantizer = ResidualVQ(32, 2, 16, stale_tolerance=5)
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.01)
    first = None
    for _ in range(150):
        feats = centres[torch.randint(20, (256,))] + 0.05 * torch.randn(256, 32)
        out = quantizer(feats)
        error = (feats - out.quantized).abs().mean()
        first = first or error.item()
        optimizer.zero_grad()
        (error + out.loss).backward()
        optimizer.step()
        quantizer.after_update()
    assert error < 0.4 * first
    assert len(out.codes[:, 0].unique()) >= 12


def test_half_precision_input_gives_the_codes_of_full_precision():
    torch.manual_seed(0)
    quantizer = ResidualVQ(512, 8, 256).eval()
    feats = torch.randn(1000, 512).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        lowered = quantizer.encode(feats.bfloat16())
    assert torch.equal(lowered, quantizer.encode(feats))


def test_search_in_chunks_equals_search_in_one():
    vectors, codebook = torch.randn(SEARCH_CHUNK + 100, 4), torch.randn(16, 4)
    similarity = torch.nn.functional.cosine_similarity(
        vectors[:, None], codebook[None], dim=-1
    )
    assert torch.equal(nearest_entries(vectors, codebook), similarity.argmax(-1))


@pytest.mark.parametrize(
    ("argument", "least"),
    [("num_codebooks", 1), ("codebook_size", 2), ("projection_depth", 1)],
)
def test_sizes_that_say_nothing_are_refused(argument, least):
    with pytest.raises(ValueError, match=f"{argument} must be at least {least}"):
        ResidualVQ(32, **{argument: least - 1})


def test_stale_codes_are_counted_per_update_and_replaced():
    codebook, counter = torch.zeros(4, 2), torch.zeros(4)
    stale = StaleCodes(tolerance=2)
    for update in range(2):
        # Two micro-batches of one update: entry 1 is used by the second only.
        stale.observe(torch.tensor([0]), torch.tensor([[3.0, 4.0]]).repeat(4, 1), 4)
        stale.observe(torch.tensor([1]), torch.tensor([[5.0, 0.0]]), 4)
        stale.replace(codebook, counter)
        assert counter.tolist() == ([0, 0, 1, 1] if update == 0 else [0, 0, 0, 0])
    expected = torch.tensor([0.6, 0.8])  # from the first micro-batch, normalised
    assert torch.equal(codebook[2:], expected.expand(2, 2))
    assert codebook[:2].abs().sum() == 0


def test_a_vector_revives_one_entry():
    codebook, counter = torch.zeros(4, 2), torch.zeros(4)
    stale, own = StaleCodes(tolerance=1), torch.eye(2)
    for left in ([0, 0, 0, 1], [0, 0, 0, 0]):  # entry 0 is used
        stale.observe(torch.tensor([0, 0]), own, 4)
        stale.replace(codebook, counter)
        assert counter.tolist() == left
        assert torch.equal(codebook[1:3], own)
        counter[1:3] = -1  # as if they had been used since
    assert torch.equal(codebook[3], own[0])


def test_of_enough_vectors_each_entry_has_its_own():
    """As published tokenizers were trained."""
    vectors, used = torch.randn(400, 16), torch.arange(0, 64, 3)
    codebook = torch.zeros(64, 16)
    stale = StaleCodes(tolerance=1)
    stale.observe(used, vectors, 64)
    stale.replace(codebook, torch.zeros(64))
    expected = F.normalize(vectors[torch.arange(64) * 400 // 64], dim=-1)
    expected[used] = 0
    assert torch.equal(codebook, expected)


def test_codes_are_not_replaced_in_evaluation():
    quantizer = ResidualVQ(32, 1, 8, stale_tolerance=1).eval()
    before = quantizer.quantizers[0].codebook.weight.clone()
    quantizer(torch.randn(10, 32))
    quantizer.after_update()
    assert torch.equal(before, quantizer.quantizers[0].codebook.weight)
    assert quantizer.quantizers[0].stale_counter.sum() == 0


def test_random_projection_has_different_codebooks_and_private_randomness():
    state = torch.get_rng_state()
    quantizer = RandomProjection(512, 8, 64, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    for first in range(8):
        for second in range(first):
            assert not torch.equal(
                quantizer.codebooks[first], quantizer.codebooks[second]
            )
    fewer = RandomProjection(512, 2, 64, seed=3)
    assert torch.equal(fewer.codebooks, quantizer.codebooks[:2])
    assert not torch.equal(
        RandomProjection(512, 2, 64, seed=4).codebooks, fewer.codebooks
    )


def test_random_projection_codes_are_the_nearest_entries():
    quantizer = RandomProjection(32, 3, 16)
    feats = torch.randn(40, 32)
    for level in range(3):
        projected = feats @ quantizer.projections[level].t()
        normalise = torch.nn.functional.normalize
        distances = torch.cdist(
            normalise(projected, dim=-1), normalise(quantizer.codebooks[level], dim=-1)
        )
        assert torch.equal(quantizer.encode(feats)[:, level], distances.argmin(-1))


def test_random_projection_has_nothing_to_train():
    quantizer = RandomProjection(512, 2, 64)
    assert list(quantizer.parameters()) == []
    assert quantizer(torch.randn(3, 512)).loss == 0
