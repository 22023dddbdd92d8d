"""An encoder over the waveform itself: convolutions, then SpeechBrain's transformer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from muq_plugins.lobes.encoders.base import (
    Encoder,
    EncoderOutput,
    centre_frames,
    encoder_output,
    receptive_field,
)
from muq_plugins.lobes.finite import check_wavs
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.parts import check_sizes, part


@part
class WaveformTransformer(Encoder):
    """Convolutions over the waveform, then a transformer (HuBERT, arXiv 2106.07447).

    The convolutions are SpeechBrain's ``W2VLatentExtractor``, the transformer its
    ``TransformerEncoder`` with the normalisation before each block. Follows the Encoder
    contract; padded frames never influence the others, and are zero in the output.
    The convolutions set the frame rate: the sample rate over the product of the
    strides, by default 24000 / 960 = 25 Hz. A clip has ``ceil(samples / hop_length)``
    frames.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    num_layers : int
        Transformer layers.
    num_heads : int
        Attention heads of each layer.
    ffn_width : int
        Size inside the feed-forward modules.
    conv_channels : int
        Channels of the convolutions over the waveform.
    kernel_sizes : sequence of int
        Kernel of each of them, the first in samples.
    strides : sequence of int
        Stride of each of them.
    position_kernel_size : int
        Frames that the positional convolution sees; odd.
    position_groups : int
        Groups of that convolution.
    dropout : float
        Dropout everywhere but in the convolutions.
    sample_rate : int
        Rate of the waveforms, in Hz.

    Raises
    ------
    ValueError
        If the heads do not divide the width, or the convolutions make no sense.

    Example
    -------
    >>> encoder = WaveformTransformer(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                               conv_channels=8, position_groups=4).eval()
    >>> out = encoder(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    >>> out.last_hidden_state.shape, len(out.hidden_states), encoder.frame_rate
    (torch.Size([2, 25, 32]), 3, 25.0)
    """

    # There is no spectrogram in it.
    features = None

    def __init__(
        self,
        width: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        ffn_width: int = 3072,
        conv_channels: int = 512,
        kernel_sizes: Sequence[int] = (16, 10, 8, 6, 4),
        strides: Sequence[int] = (8, 5, 4, 3, 2),
        position_kernel_size: int = 65,
        position_groups: int = 16,
        dropout: float = 0.1,
        sample_rate: int = 24000,
    ):
        super().__init__()
        check_sizes(width=width, num_layers=num_layers, num_heads=num_heads)
        check_sizes(ffn_width=ffn_width, conv_channels=conv_channels)
        if width % num_heads:
            raise ValueError(
                f"The width {width} must be a multiple of the number of heads "
                f"({num_heads})."
            )
        receptive_field(kernel_sizes, strides)  # refuses what makes no sense
        # Only who uses it needs the seconds in which SpeechBrain is imported.
        from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
        from speechbrain.lobes.models.wav2vec import W2VLatentExtractor

        # Everything needed to build the same encoder again, as plain numbers.
        self.config: dict[str, Any] = {
            "width": width,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "ffn_width": ffn_width,
            "conv_channels": conv_channels,
            "kernel_sizes": list(kernel_sizes),
            "strides": list(strides),
            "position_kernel_size": position_kernel_size,
            "position_groups": position_groups,
            "dropout": dropout,
            "sample_rate": sample_rate,
        }
        self.conv = W2VLatentExtractor(
            [conv_channels] * len(strides), list(kernel_sizes), list(strides)
        )
        self.projection = nn.Linear(conv_channels, width)
        self.positions = ConvolutionalPositions(
            width, position_kernel_size, position_groups
        )
        self.dropout = nn.Dropout(dropout)
        self.transformer = TransformerEncoder(
            num_layers,
            num_heads,
            ffn_width,
            d_model=width,
            dropout=dropout,
            activation=nn.GELU,
            normalize_before=True,
            output_hidden_states=True,
        )
        self.hop_length = prod(strides)
        self.sample_rate = sample_rate
        self.frame_rate = sample_rate / self.hop_length
        self.width = width
        self.num_layers = num_layers
        self.min_samples = self.hop_length

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        check_wavs(wavs, wav_lens)
        lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
        heard = length_mask(lengths, wavs.shape[1], wavs.device)
        if heard is not None:
            wavs = torch.where(heard, wavs, 0)
            lengths = -(-lengths // self.hop_length)
        wavs = wavs.to(self.projection.weight.dtype)
        wavs = centre_frames(wavs, self.config["kernel_sizes"], self.config["strides"])
        # SpeechBrain would normalise a waveform over its padding too. The first
        # convolution normalises each frame anyway.
        hidden = self.projection(self.conv(wavs, normalize_signal=False))
        mask = length_mask(lengths, hidden.shape[1], hidden.device)
        if mask is not None:
            hidden = torch.where(mask[..., None], hidden, 0)
        last, _, states = self.transformer(
            self.dropout(self.positions(hidden)),
            src_key_padding_mask=None if mask is None else ~mask,
        )
        # SpeechBrain lists what comes before the final normalisation.
        return encoder_output([*states[:-1], last], lengths, wav_lens)


class ConvolutionalPositions(nn.Module):
    """Adds what a wide grouped convolution makes of the surroundings of each frame.

    It tells where a frame stands among its neighbours (wav2vec 2.0, arXiv 2006.11477).
    """

    def __init__(self, width: int, kernel_size: int, groups: int):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"position_kernel_size must be odd to keep the frames aligned, "
                f"got {kernel_size}."
            )
        if width % groups:
            raise ValueError(
                f"position_groups must divide the width {width}, got {groups}."
            )
        conv = nn.Conv1d(
            width, width, kernel_size, padding=kernel_size // 2, groups=groups
        )
        nn.init.normal_(conv.weight, std=sqrt(4 / (kernel_size * width)))
        nn.init.zeros_(conv.bias)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, hidden: Tensor) -> Tensor:
        """Adds the positions."""
        return hidden + F.gelu(self.conv(hidden.transpose(1, 2))).transpose(1, 2)
