"""Padded batches: lengths, masks, and operations that treat each clip as if alone.

SpeechBrain describes the true length of every clip of a padded batch as a
share of the longest one. The lobes turn that share into whole samples or
frames here, and nowhere else, so that all of them round in the same way.

Lengths stay where those of the caller are. On the CPU they cost an accelerator nothing:
only masks are made beside the data. On a device each look at them waits for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio import functional as AF


def absolute_lengths(lens: Tensor | None, size: int, batch: int) -> Tensor | None:
    """Turns relative lengths into whole numbers of samples or frames."""
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


def relative_lengths(
    lengths: Tensor | None, size: int, data: Tensor, given: Tensor | None
) -> Tensor:
    """The inverse of `absolute_lengths`: where the given ones are, else the data."""
    if lengths is None:
        return torch.ones(len(data), device=(data if given is None else given).device)
    return (lengths.cpu().double() / max(size, 1)).float().to(lengths.device)


def check_shape(wavs: Tensor) -> None:
    """Refuses waveforms that are not (batch, samples)."""
    if wavs.dim() != 2:
        raise ValueError(
            f"Waveforms must have the shape (batch, samples), got "
            f"{tuple(wavs.shape)}: mix down to mono and add a batch axis."
        )


def most_precise(device: torch.device) -> torch.dtype:
    """What sums and lengths are kept in: an Apple GPU has no double precision."""
    return torch.float32 if device.type == "mps" else torch.float64


def lengths_on(lens: Tensor | None, device: torch.device | str) -> Tensor | None:
    """Moves relative lengths to a device, as precise as it can hold them."""
    if lens is None:
        return None
    lens = torch.as_tensor(lens)
    if lens.dtype is torch.float64:
        lens = lens.to(most_precise(torch.device(device)))
    return lens.to(device)


def length_mask(
    lengths: Tensor | None, size: int, device: torch.device
) -> Tensor | None:
    """Marks the positions that belong to a clip, on the device of the data."""
    if lengths is None:
        return None
    lengths = lengths.to(device, non_blocking=True)
    return torch.arange(size, device=device) < lengths[:, None]


def frames_inside(states: Tensor, lens: Tensor | None) -> Tensor | None:
    """Marks the frames (batch, frames) that belong to a clip; None if all do."""
    batch, frames = states.shape[:2]
    return length_mask(absolute_lengths(lens, frames, batch), frames, states.device)


def normalize_clips(hidden: Tensor, lens: Tensor) -> Tensor:
    """Gives each clip mean 0 and variance 1 over its frames and dimensions.

    Without padding it equals ``layer_norm`` over the last two axes.
    """
    batch, frames, width = hidden.shape[-3:]
    lengths = absolute_lengths(lens, frames, batch)
    mask = length_mask(lengths, frames, hidden.device)
    if mask is None:
        return F.layer_norm(hidden, (frames, width))
    count = lengths.to(hidden.device, non_blocking=True)[:, None, None] * width
    mask = mask[..., None]
    centred = hidden.float()
    centred = centred - centred.sum((-2, -1), keepdim=True) / count
    centred = torch.where(mask, centred, 0)
    variance = centred.square().sum((-2, -1), keepdim=True) / count
    return (centred / (variance + 1e-5).sqrt()).to(hidden.dtype)


def wav2vec2_frames(samples: int, rate: int, frame_rate: float) -> int:
    """Frames of a clip by windows of 1.25 frames: wav2vec2's at 50 Hz and 16 kHz."""
    # The floor of frame_rate * samples / rate - 1 / 4, exact, as torch.compile can too.
    times, parts = frame_rate.as_integer_ratio()
    return max(1, (4 * times * samples - parts * rate) // (4 * parts * rate))


def pad_clips(
    wavs: Tensor, wav_lens: Tensor | None, samples: int
) -> tuple[Tensor, Tensor | None]:
    """Lengthens the clips of (batch, samples) that are shorter with silence."""
    lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
    mask = length_mask(lengths, wavs.shape[1], wavs.device)
    if mask is not None:
        wavs = torch.where(mask, wavs, 0)
    wavs = F.pad(wavs, (0, max(0, samples - wavs.shape[1])))
    if lengths is None:
        return wavs, None
    lengths = lengths.clamp(min=samples)
    return wavs, relative_lengths(lengths, wavs.shape[1], wavs, wav_lens)


def without_padding(wavs: Tensor, wav_lens: Tensor, least: int) -> Tensor:
    """Cuts a batch to its shortest clip, but to no fewer samples than ``least``."""
    shortest = int((wav_lens.min() * wavs.shape[1]).round())
    return wavs[:, : max(least, shortest)]


def resample_clips(
    wavs: Tensor, wav_lens: Tensor | None, rate: int, new_rate: int
) -> tuple[Tensor, Tensor | None]:
    """Resamples a padded batch; every clip becomes what it would become alone."""
    check_shape(wavs)
    lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
    mask = length_mask(lengths, wavs.shape[1], wavs.device)
    wavs = wavs.float()
    if mask is not None:
        # The filter looks beyond the end, where a clip that is alone has silence.
        wavs = torch.where(mask, wavs, 0)
    with torch.autocast(wavs.device.type, enabled=False):
        wavs = AF.resample(wavs.contiguous(), rate, new_rate)
    if lengths is None:
        return wavs, None
    lengths = (-(-lengths * new_rate // rate)).clamp(max=wavs.shape[1])
    return wavs, relative_lengths(lengths, wavs.shape[1], wavs, wav_lens)
