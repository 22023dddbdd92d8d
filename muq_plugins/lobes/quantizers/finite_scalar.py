"""Finite scalar quantization: codes without codebooks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import (
    DecodableQuantizer,
    QuantizerOutput,
    decoding_errors,
    private_randomness,
)

# By what share tanh reaches beyond the outermost levels. It never gets to 1; and with
# two levels the shift that keeps zero in its place would be infinite without it.
MARGIN = 1e-3


@part
class FiniteScalarQuantization(DecodableQuantizer):
    """Rounds each value of a small projection (FSQ, arXiv 2309.15505).

    A trained projection brings a vector down to a few values; each is bounded by
    tanh and rounded to one of its ``levels``. A code numbers the combinations of
    one group of values, so its codebook is implied and every entry is in reach.
    With several codebooks there are as many groups side by side, and a vector is
    the sum of what they stand for. There is no auxiliary loss: gradients pass the
    rounding straight through. Where only the codes of the first groups are decoded, the
    others count as zero.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    num_codebooks : int
        Number of groups N.
    levels : list of int
        Levels of each value of a group; a codebook has their product of entries.

    Raises
    ------
    ValueError
        If there are no levels, or a value has fewer than two.

    Example
    -------
    >>> quantizer = FiniteScalarQuantization(512, num_codebooks=8, levels=[8, 8])
    >>> quantizer.encode(torch.randn(2, 25, 512)).shape, quantizer.codebook_size
    (torch.Size([2, 25, 8]), 64)
    """

    def __init__(
        self,
        input_size: int,
        num_codebooks: int = 1,
        levels: tuple[int, ...] = (8, 5, 5, 5),
    ):
        levels = list(levels)
        if not levels or min(levels) < 2:
            raise ValueError(
                f"levels must be one or more whole numbers of at least 2, got "
                f"{levels}: a value with fewer than two levels says nothing."
            )
        super().__init__(input_size, num_codebooks, math.prod(levels))
        self.config = {"levels": levels}
        with private_randomness():
            self.in_proj = Linear(input_size, num_codebooks * len(levels))
            self.out_proj = Linear(num_codebooks * len(levels), input_size)
        # Constants are not weights: they stay out of the state dict.
        sizes = torch.tensor(levels)
        place = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("place", place, persistent=False)

    def _bounded(self, feats: Tensor) -> Tensor:
        """Values (..., N, d) that round to -(L // 2) .. (L - 1) // 2."""
        values = self.in_proj(feats).unflatten(-1, (self.num_codebooks, -1))
        reach = (self.sizes - 1) * (1 + MARGIN) / 2
        # An even number of levels has no middle: half a step aside there is one.
        offset = (self.sizes % 2 == 0) * 0.5
        shift = torch.atanh(offset / reach)
        return torch.tanh(values + shift) * reach - offset

    def _index(self, rounded: Tensor) -> Tensor:
        """Codes (..., N) of rounded values (..., N, d)."""
        return ((rounded.long() + self.sizes // 2) * self.place).sum(-1)

    def _scaled(self, codes: Tensor) -> Tensor:
        """Values (..., n, d) in -1..1 that codes (..., n) stand for."""
        digits = codes[..., None] // self.place % self.sizes
        half = self.sizes // 2
        return (digits - half).float() / half

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the codes, in float32 whatever the precision around it."""
        with torch.autocast(feats.device.type, enabled=False):
            return self._index(self._bounded(feats.float()).round())

    def _decode(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            values = self._scaled(codes).flatten(-2)
            missing = self.out_proj.in_features - values.shape[-1]
            return self.out_proj(F.pad(values, (0, missing)))

    def forward(self, feats: Tensor) -> QuantizerOutput:
        with torch.autocast(feats.device.type, enabled=False):
            feats = feats.float()
            bounded = self._bounded(feats)
            codes = self._index(bounded.detach().round())
            scaled = bounded / (self.sizes // 2)
            rounded = scaled + (self._scaled(codes) - scaled).detach()
            return QuantizerOutput(
                codes=codes,
                quantized=self.out_proj(rounded.flatten(-2)),
                loss=feats.new_zeros(()),
                terms={},
                level_errors=decoding_errors(self, feats, codes),
            )
