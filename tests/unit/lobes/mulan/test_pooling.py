"""From sequences to unit vectors: means over own positions, in full precision."""

import torch

from muq_plugins.lobes.mulan.towers import LatentProjection, mean_of_own


def test_means_leave_padding_out_whatever_it_holds():
    hidden = torch.randn(3, 5, 4)
    mask = torch.arange(5) < torch.tensor([5, 2, 0])[:, None]
    hidden[~mask] = torch.nan
    found = mean_of_own(hidden, mask)
    torch.testing.assert_close(found[0], hidden[0].mean(0))
    torch.testing.assert_close(found[1], hidden[1, :2].mean(0))
    assert found[2].abs().max() == 0
    assert torch.equal(mean_of_own(hidden[:1], None), hidden[:1].mean(1))


def test_autocast_does_not_reach_the_latents():
    projection = LatentProjection(32, 8)
    hidden = torch.randn(2, 5, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = projection(hidden)
        rounded = projection(hidden.bfloat16())
    assert torch.equal(found, projection(hidden))
    assert rounded.dtype == torch.float32


def test_a_tower_in_another_precision_still_gives_unit_vectors():
    hidden = torch.randn(2, 5, 32)
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ):
        latents = LatentProjection(32, 8).to(dtype)(hidden.to(dtype))
        assert latents.dtype == expected
        torch.testing.assert_close(latents.norm(dim=1), torch.ones(2, dtype=expected))
