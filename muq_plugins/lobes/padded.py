"""Operations on padded batches that treat every clip as if it were alone.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio import functional as AF

from muq_plugins.lobes.lengths import absolute_lengths, length_mask, relative_lengths


def normalize_clips(hidden: Tensor, lens: Tensor) -> Tensor:
    """Gives each clip mean 0 and variance 1 over its frames and dimensions.

    Without padding it equals ``layer_norm`` over the last two axes.

    Arguments
    ---------
    hidden : Tensor
        (..., batch, frames, width), zero beyond the end of a clip.
    lens : Tensor
        Relative lengths (batch,) in frames.

    Returns
    -------
    Tensor
        Same shape, zero beyond the end of a clip.

    Example
    -------
    >>> out = normalize_clips(torch.randn(2, 25, 32), torch.ones(2))
    >>> bool(out.mean((1, 2)).abs().max() < 1e-4)
    True
    """
    batch, frames, width = hidden.shape[-3:]
    lengths = absolute_lengths(lens, frames, batch)
    mask = length_mask(lengths, frames)
    if mask is None:
        return F.layer_norm(hidden, (frames, width))
    mask, count = mask[..., None], lengths[:, None, None] * width
    centred = hidden.float()
    centred = centred - centred.sum((-2, -1), keepdim=True) / count
    centred = torch.where(mask, centred, 0)
    variance = centred.square().sum((-2, -1), keepdim=True) / count
    return (centred / (variance + 1e-5).sqrt()).to(hidden.dtype)


def resample_clips(
    wavs: Tensor, wav_lens: Tensor | None, rate: int, new_rate: int
) -> tuple[Tensor, Tensor | None]:
    """Resamples a padded batch; every clip becomes what it would become alone.

    Arguments
    ---------
    wavs : Tensor
        (batch, samples) at ``rate``.
    wav_lens : Tensor or None
        Relative lengths (batch,); None when nothing is padded.
    rate : int
        Rate of the waveforms, in Hz.
    new_rate : int
        The wanted rate, in Hz.

    Returns
    -------
    wavs : Tensor
        (batch, ceil(samples * new_rate / rate)), float32.
    wav_lens : Tensor or None
        Relative lengths (batch,) of the result.

    Raises
    ------
    ValueError
        If the waveforms are not (batch, samples).

    Example
    -------
    >>> wavs, lens = resample_clips(
    ...     torch.randn(2, 1000), torch.tensor([1.0, 0.5]), 16000, 24000)
    >>> wavs.shape, lens
    (torch.Size([2, 1500]), tensor([1.0000, 0.5000]))
    """
    if wavs.dim() != 2:
        raise ValueError(
            f"Waveforms must have the shape (batch, samples), got "
            f"{tuple(wavs.shape)}: mix down to mono and add a batch axis."
        )
    lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
    mask = length_mask(lengths, wavs.shape[1])
    wavs = wavs.float()
    if mask is not None:
        # The filter looks beyond the end, where a clip that is alone has silence.
        wavs = torch.where(mask, wavs, 0)
    with torch.autocast(wavs.device.type, enabled=False):
        wavs = AF.resample(wavs.contiguous(), rate, new_rate)
    if lengths is None:
        return wavs, None
    lengths = (-(-lengths * new_rate // rate)).clamp(max=wavs.shape[1])
    return wavs, relative_lengths(lengths, wavs.shape[1], wavs)
