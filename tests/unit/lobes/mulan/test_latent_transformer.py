"""The latent transformer: its computation, and what a mask keeps out."""

import torch

from muq_plugins.lobes import LatentTransformer


def scaled(transformer, seed=0):
    """Gains and scales that are not 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in transformer.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return transformer


def norm(x, gain):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def plain_layer(layer, x, heads, size):
    """A layer in plain products, head by head."""
    a, f = layer.attention, layer.feed_forward
    normed = norm(x, a.norm.weight)
    query = normed @ a.query.weight.T
    key, value = (normed @ a.key_value.weight.T).chunk(2, -1)
    outs = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        q, k = (
            part[..., own] / part[..., own].norm(dim=-1, keepdim=True) * scale
            for part, scale in ((query, a.query_scale), (key, a.key_scale))
        )
        weights = (8 * q @ k.transpose(-1, -2)).softmax(-1)
        outs.append(weights @ value[..., own])
    x = x + torch.cat(outs, -1) @ a.out.weight.T
    values, gates = (norm(x, f.norm.weight) @ f.expand.weight.T).chunk(2, -1)
    gates = gates * 0.5 * (1 + torch.erf(gates / 2**0.5))
    return x + (values * gates) @ f.contract.weight.T


def test_layers_compute_what_the_paper_model_computes():
    torch.manual_seed(0)
    transformer = scaled(LatentTransformer(24, 2, num_heads=2, head_width=8)).double()
    x = torch.randn(3, 7, 24, dtype=torch.double)
    expected = x
    for layer in transformer.layers:
        expected = plain_layer(layer, expected, heads=2, size=8)
    torch.testing.assert_close(transformer(x), expected, rtol=1e-9, atol=1e-9)
    single = transformer.float()(x.float()).double()
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)


def test_the_size_is_that_of_the_released_model():
    with torch.device("meta"):
        transformer = LatentTransformer(768, 8)
    assert transformer.layers[0].feed_forward.contract.in_features == 2048
    assert sum(p.numel() for p in transformer.parameters()) == 50_344_960


def test_a_mask_keeps_padding_out():
    torch.manual_seed(0)
    transformer = scaled(LatentTransformer(32, 2, num_heads=2, head_width=8))
    x = torch.randn(2, 9, 32)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    alone = transformer(x[1:, :5])
    torch.testing.assert_close(transformer(x, mask)[1, :5], alone[0], rtol=0, atol=1e-6)
    assert (transformer(x)[1, :5] - alone[0]).abs().max() > 1e-3


def test_no_layers_change_nothing():
    x = torch.randn(2, 5, 32)
    assert torch.equal(LatentTransformer(32, 0)(x), x)


def test_autocast_stays_close():
    torch.manual_seed(0)
    transformer = LatentTransformer(32, 2, num_heads=2, head_width=8)
    x, mask = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = transformer(x, mask)
    torch.testing.assert_close(found.float(), transformer(x), rtol=0, atol=0.05)
