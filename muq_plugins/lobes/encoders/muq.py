"""The MuQ encoder: waveforms in, hidden states out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from muq_plugins.lobes.conformer import Conformer
from muq_plugins.lobes.encoders.base import (
    EncoderOutput,
    SpectrogramEncoder,
    encoder_output,
)
from muq_plugins.lobes.front_end import ResidualFrontEnd
from muq_plugins.lobes.lengths import absolute_lengths
from muq_plugins.lobes.mel import LogMel
from muq_plugins.lobes.parts import check_sizes, part


@part
class MuQEncoder(SpectrogramEncoder):
    """Log-mel, residual 2-D convolutions and a conformer (arXiv 2501.01108).

    Follows the Encoder contract: ``out = encoder(wavs, wav_lens)`` with the
    attributes ``sample_rate``, ``frame_rate`` and ``width``. It also offers its two
    steps, ``feats, lens = encoder.features(wavs, wav_lens)`` and
    ``out = encoder.encode(feats, lens)``; other encoders need not. Padded frames never
    influence the others, and are zero in the output. The defaults are the paper's
    model of 316 million parameters.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    num_layers : int
        Conformer layers.
    num_heads : int
        Attention heads of each layer.
    ffn_width : int
        Size inside the feed-forward modules.
    conv_channels : int
        Channels of the 2-D front end.
    conv_kernel_size : int
        Kernel of the depthwise convolutions, in frames.
    dropout : float
        Dropout everywhere.
    gradient_checkpointing : bool
        Recompute the blocks of the front end and the layers in the backward pass: less
        memory for about a third more computation.
    sample_rate : int
        Rate of the waveforms, in Hz.
    n_fft : int
        Window of the spectrogram, in samples.
    hop_length : int
        Hop of the spectrogram, in samples.
    n_mels : int
        Mel bands.
    mel_floor : float or None
        Floor of the spectrogram, in dB; None for none (see `LogMel`).

    Example
    -------
    >>> import torch
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4).eval()
    >>> out = encoder(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    >>> out.last_hidden_state.shape, len(out.hidden_states), encoder.frame_rate
    (torch.Size([2, 25, 32]), 3, 25.0)
    """

    def __init__(
        self,
        width: int = 1024,
        num_layers: int = 12,
        num_heads: int = 16,
        ffn_width: int = 4096,
        conv_channels: int = 512,
        conv_kernel_size: int = 31,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
        sample_rate: int = 24000,
        n_fft: int = 2048,
        hop_length: int = 240,
        n_mels: int = 128,
        mel_floor: float | None = None,
    ):
        super().__init__()
        check_sizes(width=width, num_layers=num_layers, num_heads=num_heads)
        check_sizes(ffn_width=ffn_width, conv_channels=conv_channels)
        # Everything needed to build the same encoder again, as plain numbers.
        self.config: dict[str, Any] = {
            "width": width,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "ffn_width": ffn_width,
            "conv_channels": conv_channels,
            "conv_kernel_size": conv_kernel_size,
            "dropout": dropout,
            "gradient_checkpointing": gradient_checkpointing,
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "hop_length": hop_length,
            "n_mels": n_mels,
        }
        if mel_floor is not None:  # configs from before there was one stay equal
            self.config["mel_floor"] = mel_floor
        self.features = LogMel(sample_rate, n_fft, hop_length, n_mels, floor=mel_floor)
        self.conv = ResidualFrontEnd(
            n_mels, conv_channels, width, gradient_checkpointing
        )
        self.conformer = Conformer(
            width,
            num_layers,
            num_heads,
            ffn_width,
            conv_kernel_size,
            dropout,
            gradient_checkpointing,
        )
        self.sample_rate = sample_rate
        self.frame_rate = self.features.frame_rate / self.conv.subsampling
        self.width = width
        self.num_layers = num_layers
        self.min_samples = self.features.min_samples

    def compile(self, **options: Any) -> None:
        """Compiles front end and conformer, one graph each.

        The first length that is heard is compiled for; with the second, graphs become
        those of any length. Compilers leave the spectrogram as it is.

        Arguments
        ---------
        **options : Any
            As for ``torch.compile``.

        Raises
        ------
        ValueError
            With ``gradient_checkpointing``: a graph is computed as a whole.
        """
        if self.config["gradient_checkpointing"]:
            raise ValueError(
                "gradient_checkpointing computes layers again one by one, and compile "
                "makes one graph of all of them: switch one of the two off."
            )
        self.conv.compile(**options)
        self.conformer.compile(**options)

    def encode(self, feats: Tensor, lens: Tensor | None = None) -> EncoderOutput:
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        hidden, lengths = self.conv(feats, lengths)
        states = self.conformer(hidden, lengths)
        return encoder_output(states, lengths, lens)
