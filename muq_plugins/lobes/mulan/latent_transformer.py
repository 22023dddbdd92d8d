"""The transformer between a pre-trained model and the common space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.linear import Linear

# What the logits of the attention are multiplied by. Queries and keys have the length
# of their learned scales, so the usual division by a root of their size has no place.
LOGIT_SCALE = 8.0


class CosineAttention(nn.Module):
    """Self-attention by the angles between queries and keys.

    Both are brought to length 1 and multiplied by a learned scale per dimension.
    Nothing tells positions apart: the model below has put them into the vectors.
    """

    def __init__(self, width: int, num_heads: int, head_width: int):
        super().__init__()
        self.heads = (num_heads, head_width)
        inner = num_heads * head_width
        self.norm = nn.LayerNorm(width, bias=False)
        self.query = Linear(width, inner, bias=False)
        self.key_value = Linear(width, 2 * inner, bias=False)
        self.query_scale = nn.Parameter(self.norm.weight.new_ones(head_width))
        self.key_scale = nn.Parameter(self.norm.weight.new_ones(head_width))
        self.out = Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends."""
        hidden = self.norm(hidden)
        query, key, value = (
            part.unflatten(-1, self.heads).transpose(1, 2)
            for part in (self.query(hidden), *self.key_value(hidden).chunk(2, dim=-1))
        )
        query = F.normalize(query, dim=-1) * self.query_scale
        key = F.normalize(key, dim=-1) * self.key_scale
        attended = F.scaled_dot_product_attention(
            query.to(value.dtype),
            key.to(value.dtype),
            value,
            attn_mask=None if mask is None else mask[:, None, None],
            scale=LOGIT_SCALE,
        )
        return self.out(attended.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """A feed-forward module with a gate (GEGLU, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.expand = Linear(width, 2 * inner, bias=False)
        self.contract = Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Applies the layers."""
        values, gates = self.expand(self.norm(hidden)).chunk(2, dim=-1)
        return self.contract(values * F.gelu(gates))


class LatentLayer(nn.Module):
    """Attention and feed-forward, each added to what goes into it."""

    def __init__(self, width: int, num_heads: int, head_width: int, inner: int):
        super().__init__()
        self.attention = CosineAttention(width, num_heads, head_width)
        self.feed_forward = GatedFeedForward(width, inner)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Applies the layer."""
        hidden = hidden + self.attention(hidden, mask)
        return hidden + self.feed_forward(hidden)


class LatentTransformer(nn.Module):
    """Transformer layers as MuQ-MuLan has them on its text tower.

    Normalisation comes before each module, with a gain only; nothing has a bias;
    there is no dropout, no position and no normalisation at the end.

    Arguments
    ---------
    width : int
        Size of the vectors.
    num_layers : int
        Number of layers; with 0, vectors stay what they are.
    num_heads : int
        Attention heads of each layer.
    head_width : int
        Size of each head.

    Example
    -------
    >>> import torch
    >>> transformer = LatentTransformer(32, num_layers=2, num_heads=2, head_width=8)
    >>> transformer(torch.randn(2, 5, 32), torch.ones(2, 5).bool()).shape
    torch.Size([2, 5, 32])
    """

    def __init__(
        self, width: int, num_layers: int, num_heads: int = 8, head_width: int = 64
    ):
        super().__init__()
        # A gate is a third matrix: with it a layer has as many weights as a plain one
        # that is four times as wide inside.
        inner = int(width * 4 * 2 / 3)
        self.layers = nn.ModuleList(
            LatentLayer(width, num_heads, head_width, inner) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Applies all layers.

        Arguments
        ---------
        x : Tensor
            (batch, positions, width).
        mask : Tensor or None
            Boolean (batch, positions), True on own positions, of which each row has
            at least one; None when nothing is padded. What comes out at the others
            is of no use, and does not influence them.

        Returns
        -------
        Tensor
            (batch, positions, width).
        """
        for layer in self.layers:
            x = layer(x, mask)
        return x
