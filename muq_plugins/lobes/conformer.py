"""Conformer with rotary positions, as MuQ uses it.

The computation and the parameter names are those of ``Wav2Vec2ConformerEncoder``
of the transformers library with ``position_embeddings_type="rotary"``. Its
positions are unusual and must be kept for the released weights: the *input* of
the attention is rotated, before the projections of queries and keys.
Attention goes through ``scaled_dot_product_attention``, so its scores are never
stored, and a mask keeps padded frames from influencing the others, in the
convolution modules as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.batch_norm import BatchNorm
from muq_plugins.lobes.lengths import length_mask
from muq_plugins.lobes.linear import Linear, Pointwise
from muq_plugins.lobes.recomputation import recompute_later

ROTARY_BASE = 10000


class FeedForward(nn.Module):
    """Two linear layers with a swish between them."""

    def __init__(self, width: int, ffn_width: int, dropout: float):
        super().__init__()
        self.intermediate_dense = Linear(width, ffn_width)
        self.output_dense = Linear(ffn_width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Applies the layers."""
        hidden = self.dropout(_swish(self.intermediate_dense(hidden)))
        return self.dropout(self.output_dense(hidden))


class RotarySelfAttention(nn.Module):
    """Self-attention whose input is rotated before Q and K are projected."""

    def __init__(self, width: int, num_heads: int, dropout: float):
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(
                f"The width {width} must be a multiple of twice the number of heads "
                f"({num_heads}): rotary positions turn pairs of dimensions."
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.linear_q = Linear(width, width)
        self.linear_k = Linear(width, width)
        self.linear_v = Linear(width, width)
        self.linear_out = Linear(width, width)

    def forward(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attends."""
        batch, frames, width = hidden.shape
        heads = (batch, frames, self.num_heads, width // self.num_heads)
        cosine, sine = (part[:, None].to(hidden.dtype) for part in rotation)
        first, second = hidden.view(heads).chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        rotated = (hidden.view(heads) * cosine + turned * sine).flatten(2)

        query, key, value = (
            linear(source).view(heads).transpose(1, 2)
            for linear, source in (
                (self.linear_q, rotated),
                (self.linear_k, rotated),
                (self.linear_v, hidden),
            )
        )
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.linear_out(attended.transpose(1, 2).flatten(2))


def rotary_rotation(
    frames: int, head_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (RoFormer, arXiv 2104.09864)."""
    exponents = torch.arange(0, head_size, 2, device=device).float() / head_size
    positions = torch.arange(frames, device=device).float()
    angles = torch.outer(positions, 1.0 / ROTARY_BASE**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


class ConvolutionModule(nn.Module):
    """Gated pointwise, then depthwise convolution with batch normalisation."""

    def __init__(self, width: int, kernel_size: int, dropout: float):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"conv_kernel_size must be odd to keep the frames aligned, "
                f"got {kernel_size}."
            )
        self.layer_norm = nn.LayerNorm(width)
        self.pointwise_conv1 = Pointwise(width, 2 * width, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(
            width,
            width,
            kernel_size,
            padding=kernel_size // 2,
            groups=width,
            bias=False,
        )
        self.batch_norm = BatchNorm(width)
        self.pointwise_conv2 = Pointwise(width, width, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Applies the module."""
        hidden = F.glu(self.pointwise_conv1(self.layer_norm(hidden)), dim=-1)
        if mask is not None:
            hidden = hidden * mask[..., None]
        hidden = self.depthwise_conv(hidden.transpose(1, 2))
        hidden = _swish(self.batch_norm(hidden, mask)).transpose(1, 2)
        return self.dropout(self.pointwise_conv2(hidden))


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        ffn_width: int,
        conv_kernel_size: int,
        dropout: float,
    ):
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(width)
        self.ffn1 = FeedForward(width, ffn_width, dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = RotarySelfAttention(width, num_heads, dropout)
        self.self_attn_dropout = nn.Dropout(dropout)
        self.conv_module = ConvolutionModule(width, conv_kernel_size, dropout)
        self.ffn2_layer_norm = nn.LayerNorm(width)
        self.ffn2 = FeedForward(width, ffn_width, dropout)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Applies the layer."""
        hidden = hidden + 0.5 * self.ffn1(self.ffn1_layer_norm(hidden))
        attended = self.self_attn(self.self_attn_layer_norm(hidden), rotation, mask)
        hidden = hidden + self.self_attn_dropout(attended)
        hidden = hidden + self.conv_module(hidden, mask)
        hidden = hidden + 0.5 * self.ffn2(self.ffn2_layer_norm(hidden))
        return self.final_layer_norm(hidden)


def _swish(fresh: Tensor) -> Tensor:
    """Swish of a tensor that nobody else uses: in place where no gradient needs it."""
    return F.silu(fresh, inplace=not torch.is_grad_enabled())


class Conformer(nn.Module):
    """A stack of conformer layers with a final normalisation.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    num_layers : int
        Number of layers.
    num_heads : int
        Attention heads of each layer.
    ffn_width : int
        Size inside the feed-forward modules.
    conv_kernel_size : int
        Kernel of the depthwise convolutions, in frames.
    dropout : float
        Dropout at the input and everywhere inside.
    gradient_checkpointing : bool
        Recompute each layer in the backward pass instead of storing its
        activations: less memory for about a third more computation.

    Example
    -------
    >>> conformer = Conformer(32, 2, 4, 128, 31)
    >>> len(conformer(torch.randn(2, 25, 32)))
    3
    """

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        ffn_width: int,
        conv_kernel_size: int = 31,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.head_size = width // num_heads
        self.gradient_checkpointing = gradient_checkpointing
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            ConformerLayer(width, num_heads, ffn_width, conv_kernel_size, dropout)
            for _ in range(num_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Applies all layers.

        Arguments
        ---------
        hidden : Tensor
            (batch, frames, width).
        lengths : Tensor or None
            Own frames (batch,) of each clip; None when nothing is padded.

        Returns
        -------
        list of Tensor
            num_layers + 1 hidden states (batch, frames, width): the input, and
            the output of each layer, the last one normalised.
        """
        hidden = self.dropout(hidden)
        mask = length_mask(lengths, hidden.shape[1], hidden.device)
        rotation = rotary_rotation(hidden.shape[1], self.head_size, hidden.device)
        states = [hidden]
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden = recompute_later(layer, hidden, rotation, mask)
            else:
                hidden = layer(hidden, rotation, mask)
            states.append(hidden)
        states[-1] = self.layer_norm(hidden)
        return states
