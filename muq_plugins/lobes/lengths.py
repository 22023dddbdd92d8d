"""Conversions between relative lengths, absolute lengths and masks.

SpeechBrain describes the true length of every clip of a padded batch as a
share of the longest one. The lobes turn that share into whole samples or
frames here, and nowhere else, so that all of them round in the same way.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor


def absolute_lengths(lens: Tensor | None, size: int, batch: int) -> Tensor | None:
    """Turns relative lengths into whole numbers of samples or frames.

    Arguments
    ---------
    lens : Tensor or None
        Relative lengths (batch,), each in 0..1. None means that every clip
        fills the batch.
    size : int
        Number of samples or frames that the relative length 1 stands for.
    batch : int
        Number of clips, to check the shape of ``lens``.

    Returns
    -------
    Tensor or None
        Lengths (batch,) int64, or None when no clip is padded.

    Raises
    ------
    ValueError
        If ``lens`` has another shape or leaves the range 0..1.

    Example
    -------
    >>> absolute_lengths(torch.tensor([1.0, 0.5]), 960, batch=2)
    tensor([960, 480])
    >>> absolute_lengths(torch.tensor([1.0, 1.0]), 960, batch=2) is None
    True
    """
    if lens is None:
        return None
    if lens.shape != (batch,):
        raise ValueError(
            f"Relative lengths have the shape {tuple(lens.shape)}, but the batch "
            f"holds {batch} clips: give one length per clip, shape ({batch},)."
        )
    # Double precision: a relative float32 length of an hour of audio is exact
    # to a few samples only, and the product must not lose more than that. On the
    # CPU: not every device has double precision, and the checks need the values.
    lengths = torch.round(lens.cpu().double() * size).long()
    if bool((lengths < 0).any()) or bool((lengths > size).any()):
        raise ValueError(
            "Relative lengths must lie between 0 and 1, but range from "
            f"{lens.min().item():g} to {lens.max().item():g}: divide the lengths "
            "in samples by the longest one."
        )
    return None if bool((lengths == size).all()) else lengths.to(lens.device)


def relative_lengths(lengths: Tensor | None, size: int, like: Tensor) -> Tensor:
    """The inverse of `absolute_lengths`.

    Arguments
    ---------
    lengths : Tensor or None
        Lengths (batch,) int64, or None when every clip has ``size`` frames.
    size : int
        Number of frames that the relative length 1 stands for.
    like : Tensor
        Any tensor (batch, ...) that tells the batch size and the device.

    Returns
    -------
    Tensor
        Relative lengths (batch,) float32.

    Example
    -------
    >>> relative_lengths(torch.tensor([4, 2]), 4, torch.zeros(2, 4))
    tensor([1.0000, 0.5000])
    """
    if lengths is None:
        return torch.ones(like.shape[0], device=like.device)
    return (lengths.cpu().double() / max(size, 1)).float().to(lengths.device)


def length_mask(lengths: Tensor | None, size: int) -> Tensor | None:
    """Marks the positions that belong to a clip.

    Arguments
    ---------
    lengths : Tensor or None
        Lengths (batch,) int64, or None when no clip is padded.
    size : int
        Number of positions in the padded batch.

    Returns
    -------
    Tensor or None
        Boolean mask (batch, size), True on the clip's own positions; None when
        no clip is padded, which lets callers skip the masking altogether.

    Example
    -------
    >>> length_mask(torch.tensor([3, 1]), 3)
    tensor([[ True,  True,  True],
            [ True, False, False]])
    """
    if lengths is None:
        return None
    return torch.arange(size, device=lengths.device) < lengths[:, None]
