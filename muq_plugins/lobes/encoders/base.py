"""The Encoder contract, frames that are aligned with it, and another frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, length_mask, relative_lengths
from muq_plugins.lobes.parts import attribute, part


@dataclass
class EncoderOutput:
    """What an encoder says about a batch.

    Arguments
    ---------
    last_hidden_state : Tensor
        (batch, frames, width), after the final normalisation.
    hidden_states : tuple of Tensor
        num_layers + 1 tensors (batch, frames, width): index 0 is the front end,
        index i the output of layer i, the last one equals `last_hidden_state`.
    lens : Tensor
        Relative lengths (batch,) in frames.

    Example
    -------
    >>> state = torch.zeros(2, 25, 32)
    >>> EncoderOutput(state, (state, state), torch.ones(2))
    EncoderOutput(2 hidden states of (2, 25, 32))
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    lens: Tensor

    def __getitem__(self, key: int | str) -> Any:
        """By name or place, as the outputs of transformers are read."""
        if isinstance(key, str):
            return vars(self)[key]
        return (self.last_hidden_state, self.hidden_states)[key]

    def __repr__(self) -> str:
        """Shapes: a screen full of numbers says nothing."""
        shape = tuple(self.last_hidden_state.shape)
        return f"EncoderOutput({len(self.hidden_states)} hidden states of {shape})"


class Encoder(nn.Module):
    """The Encoder contract; what follows it need not be of this class.

    ``out = encoder(wavs, wav_lens)``. The attributes ``sample_rate``, ``frame_rate``,
    ``width``, ``num_layers`` and ``min_samples`` (the shortest clip) say what goes in
    and out; ``config`` holds the arguments that build the same encoder again, and
    ``features`` the log-mel spectrogram in it, or None. Padded frames never influence
    the others.
    """

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        """Encodes waveforms.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        EncoderOutput
            Hidden states at `frame_rate`; frames beyond a clip are zero.
        """
        raise NotImplementedError


class SpectrogramEncoder(Encoder):
    """An encoder in two steps, for whoever changes the spectrogram in between.

    ``feats, lens = encoder.features(wavs, wav_lens)`` and then
    ``out = encoder.encode(feats, lens)``; `SpanMasking` does so.
    """

    def encode(self, feats: Tensor, lens: Tensor | None = None) -> EncoderOutput:
        """Encodes spectrograms: what `forward` does after ``features``.

        Arguments
        ---------
        feats : Tensor
            Normalised log-mel (batch, mel frames, n_mels).
        lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        EncoderOutput
            Hidden states at `frame_rate`; frames beyond a clip are zero.

        Example
        -------
        >>> from muq_plugins.lobes import MuQEncoder
        >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
        >>> encoder.encode(torch.zeros(1, 100, 128)).last_hidden_state.shape
        torch.Size([1, 25, 32])
        """
        raise NotImplementedError

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        feats, lens = self.features(wavs, wav_lens)
        return self.encode(feats, None if wav_lens is None else lens)


@part
class ResampledEncoder(Encoder):
    """Brings the hidden states of an encoder to the frame rate of a target.

    If the old rate is a multiple of the new one, each new frame is the average of a
    whole group of old ones, and what is left over at the end is dropped; otherwise the
    old frames are interpolated linearly at the centres of the new ones. Follows the
    Encoder contract; its ``frame_rate`` is the new one.

    Arguments
    ---------
    encoder : nn.Module
        Any module that follows the Encoder contract.
    frame_rate : float
        The wanted rate, in Hz.

    Raises
    ------
    ValueError
        If the rate is not positive.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> resampled = ResampledEncoder(encoder, frame_rate=12.5)
    >>> resampled(torch.randn(1, 24000)).last_hidden_state.shape, resampled.frame_rate
    (torch.Size([1, 12, 32]), 12.5)
    """

    def __init__(self, encoder: nn.Module, frame_rate: float):
        super().__init__()
        if frame_rate <= 0:
            raise ValueError(f"frame_rate must be a rate in Hz, got {frame_rate}.")
        self.encoder = encoder
        # Everything needed to build the same encoder again, the one inside by its name.
        self.config: dict[str, Any] = {
            "encoder": {
                "class": type(encoder).__name__,
                "arguments": attribute(encoder, "config"),
            },
            "frame_rate": float(frame_rate),
        }
        # New frames for each old one. Both rates are fractions of small numbers, which
        # floating point numbers only resemble.
        self.ratio = Fraction(frame_rate / encoder.frame_rate).limit_denominator(1000)
        self.sample_rate = encoder.sample_rate
        self.frame_rate = float(frame_rate)
        self.width = encoder.width
        self.num_layers = encoder.num_layers
        # One new frame's worth of old ones.
        shortest = ceil(1 / self.ratio) * encoder.sample_rate / encoder.frame_rate
        self.min_samples = max(encoder.min_samples, ceil(shortest))

    def requires_grad_(self, requires_grad: bool = True) -> ResampledEncoder:
        """Leaves to the encoder inside what of it learns: it has all parameters."""
        self.encoder.requires_grad_(requires_grad)
        return self

    @property
    def features(self) -> nn.Module | None:
        """The spectrogram of the encoder inside, if it has one."""
        return self.encoder.features

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        out = self.encoder(wavs, wav_lens)
        batch, frames, _ = out.last_hidden_state.shape
        lengths = absolute_lengths(out.lens, frames, batch)
        if lengths is None:
            lengths = torch.full((batch,), frames, device=out.lens.device)
        states = [self._resample(state, lengths) for state in out.hidden_states]
        lengths = lengths * self.ratio.numerator // self.ratio.denominator
        return encoder_output(states, lengths, out.lens)

    def _resample(self, state: Tensor, lengths: Tensor) -> Tensor:
        """New frames of (batch, frames, width), right up to the end of each clip."""
        new_frames = int(state.shape[1] * self.ratio)
        if self.ratio.numerator == 1:
            group = self.ratio.denominator
            return state[:, : new_frames * group].unflatten(1, (-1, group)).mean(2)
        # Centres of the new frames, counted in centres of the old ones.
        place = torch.arange(new_frames, device=state.device) + 0.5
        place = (place / float(self.ratio) - 0.5)[None]
        # Nothing beyond a clip's last frame is between two of its own.
        last = lengths.to(state.device, non_blocking=True)[:, None] - 1
        last = last.clamp(min=0)
        place = torch.minimum(place.clamp(min=0), last)
        before = place.floor().long()
        after = torch.minimum(before + 1, last)
        share = (place - before)[..., None].to(state.dtype)
        rows = torch.arange(len(state), device=state.device)[:, None]
        return torch.lerp(state[rows, before], state[rows, after], share)


def encoder_output(
    states: Sequence[Tensor], lengths: Tensor | None, given: Tensor | None
) -> EncoderOutput:
    """Clears the frames beyond each clip; see `relative_lengths`."""
    frames = states[0].shape[1]
    mask = length_mask(lengths, frames, states[0].device)
    if mask is not None:
        states = [torch.where(mask[..., None], state, 0) for state in states]
    return EncoderOutput(
        last_hidden_state=states[-1],
        hidden_states=tuple(states),
        lens=relative_lengths(lengths, frames, states[0], given),
    )


def receptive_field(kernel_sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one output of a stack of convolutions sees."""
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
    """
    size, hop = receptive_field(kernel_sizes, strides), prod(strides)
    samples = wavs.shape[1]
    frames = -(-samples // hop)
    left = (size - hop) // 2
    return F.pad(wavs, (left, (frames - 1) * hop + size - samples - left))
