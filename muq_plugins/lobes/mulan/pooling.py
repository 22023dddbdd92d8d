"""From a sequence to one unit vector.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LatentProjection(nn.Module):
    """Averages a sequence, projects it, and brings it to length 1.

    Computed in single precision, also under autocast: similarities are multiplied by
    a temperature of up to a hundred, which bfloat16 would not survive.

    Arguments
    ---------
    width : int
        Size of the vectors of the sequence.
    latent_width : int
        Size of the latents.

    Example
    -------
    >>> latents = LatentProjection(32, 8)(torch.randn(2, 5, 32))
    >>> torch.allclose(latents.norm(dim=1), torch.ones(2))
    True
    """

    def __init__(self, width: int, latent_width: int):
        super().__init__()
        self.linear = nn.Linear(width, latent_width)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pools.

        Arguments
        ---------
        hidden : Tensor
            (batch, positions, width).
        mask : Tensor or None
            Boolean (batch, positions), True on own positions; None when nothing is
            padded, or when padding is to be averaged as well.

        Returns
        -------
        Tensor
            Unit vectors (batch, latent_width), float32 or better.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            mean = mean_of_own(precise(hidden), mask)
            latents = self.linear(mean.to(self.linear.weight.dtype))
            return F.normalize(precise(latents), dim=-1)


def mean_of_own(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Averages the positions that are not padding.

    Arguments
    ---------
    hidden : Tensor
        (batch, positions, width).
    mask : Tensor or None
        Boolean (batch, positions), True on own positions; None for all.

    Returns
    -------
    Tensor
        (batch, width); zero for a row without own positions.

    Example
    -------
    >>> mean_of_own(torch.tensor([[[1.0], [3.0], [9.0]]]),
    ...             torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    if mask is None:
        return hidden.mean(dim=1)
    total = torch.where(mask[..., None], hidden, 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def precise(tensor: Tensor) -> Tensor:
    """Brings numbers to single precision, unless they are better already.

    Arguments
    ---------
    tensor : Tensor
        Any shape, floating point.

    Returns
    -------
    Tensor
        The same numbers, float32 or float64.

    Example
    -------
    >>> precise(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()
