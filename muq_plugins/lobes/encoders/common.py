"""What encoders have in common: how they end, and how waveforms become frames.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from muq_plugins.lobes.encoder import EncoderOutput
from muq_plugins.lobes.lengths import length_mask, relative_lengths


def encoder_output(states: Sequence[Tensor], lengths: Tensor | None) -> EncoderOutput:
    """Clears the frames beyond each clip.

    Arguments
    ---------
    states : sequence of Tensor
        Hidden states (batch, frames, width) of all layers.
    lengths : Tensor or None
        Own frames (batch,) of each clip; None when nothing is padded.

    Returns
    -------
    EncoderOutput
        The same with zeros where a clip has ended.

    Example
    -------
    >>> out = encoder_output([torch.ones(2, 4, 1)], torch.tensor([4, 1]))
    >>> out.last_hidden_state[1].flatten(), out.lens
    (tensor([1., 0., 0., 0.]), tensor([1.0000, 0.2500]))
    """
    frames = states[0].shape[1]
    mask = length_mask(lengths, frames)
    if mask is not None:
        states = [torch.where(mask[..., None], state, 0) for state in states]
    return EncoderOutput(
        last_hidden_state=states[-1],
        hidden_states=tuple(states),
        lens=relative_lengths(lengths, frames, states[0]),
    )


def receptive_field(kernel_sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one output of a stack of convolutions sees.

    Arguments
    ---------
    kernel_sizes : sequence of int
        Kernel of each convolution.
    strides : sequence of int
        Stride of each convolution.

    Returns
    -------
    int
        Number of samples.

    Raises
    ------
    ValueError
        If there are not as many kernels as strides, or a kernel is shorter than its
        stride, so that samples between two outputs would not be heard.

    Example
    -------
    >>> receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    if not kernel_sizes or len(kernel_sizes) != len(strides):
        raise ValueError(
            f"kernel_sizes and strides must be lists of one number per convolution, "
            f"got {list(kernel_sizes)} and {list(strides)}."
        )
    size, jump = 1, 1
    for kernel_size, stride in zip(kernel_sizes, strides, strict=True):
        if not 1 <= stride <= kernel_size:
            raise ValueError(
                f"A kernel of {kernel_size} with a stride of {stride} leaves samples "
                f"unheard: each stride must be between 1 and the kernel size."
            )
        size += (kernel_size - 1) * jump
        jump *= stride
    return size


def centre_frames(
    wavs: Tensor, kernel_sizes: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """Pads waveforms with silence so that unpadded convolutions give aligned frames.

    Frame t is then centred on the samples from ``t * stride`` to ``(t + 1) * stride``
    (`stride` being that of the whole stack), and there are
    ``ceil(samples / stride)`` frames: without it, the end of each clip is lost.

    Arguments
    ---------
    wavs : Tensor
        (batch, samples).
    kernel_sizes : sequence of int
        Kernel of each convolution.
    strides : sequence of int
        Stride of each convolution.

    Returns
    -------
    Tensor
        (batch, more samples).

    Example
    -------
    >>> centre_frames(torch.ones(1, 6), [4], [2])
    tensor([[0., 1., 1., 1., 1., 1., 1., 0.]])
    """
    size, hop = receptive_field(kernel_sizes, strides), prod(strides)
    samples = wavs.shape[1]
    frames = -(-samples // hop)
    left = (size - hop) // 2
    return F.pad(wavs, (left, (frames - 1) * hop + size - samples - left))
