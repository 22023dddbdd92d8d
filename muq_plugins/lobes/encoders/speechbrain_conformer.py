"""SpeechBrain's conformer behind MuQ's front end.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from muq_plugins.lobes.encoder import EncoderOutput
from muq_plugins.lobes.encoders.common import encoder_output
from muq_plugins.lobes.features import LogMel
from muq_plugins.lobes.front_end import ResidualFrontEnd
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.parts import part


@part
class SpeechBrainConformer(nn.Module):
    """Log-mel, residual 2-D convolutions and the conformer of SpeechBrain.

    It follows the Encoder contract like `muq_plugins.lobes.MuQEncoder`, from which it
    differs in the conformer alone: positions are relative (Transformer-XL) instead of
    rotary, and the convolution modules normalise each frame instead of the batch.
    Padded frames never influence the others, and are zero in the output.

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
        Kernel of the depthwise convolutions, in frames; odd.
    dropout : float
        Dropout everywhere.
    sample_rate : int
        Rate of the waveforms, in Hz.
    n_fft : int
        Window of the spectrogram, in samples.
    hop_length : int
        Hop of the spectrogram, in samples.
    n_mels : int
        Mel bands.

    Raises
    ------
    ValueError
        If the heads do not divide the width, or a size that must be odd or even is not.

    Example
    -------
    >>> import torch
    >>> encoder = SpeechBrainConformer(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                                conv_channels=4).eval()
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
        sample_rate: int = 24000,
        n_fft: int = 2048,
        hop_length: int = 240,
        n_mels: int = 128,
    ):
        super().__init__()
        if width % num_heads or width % 2:
            raise ValueError(
                f"The width {width} must be even and a multiple of the number of heads "
                f"({num_heads})."
            )
        if conv_kernel_size % 2 == 0:
            raise ValueError(
                f"conv_kernel_size must be odd to keep the frames aligned, "
                f"got {conv_kernel_size}."
            )
        # Only who uses it needs the seconds in which SpeechBrain is imported.
        from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
        from speechbrain.nnet.attention import RelPosEncXL

        # Everything needed to build the same encoder again, as plain numbers.
        self.config: dict[str, Any] = {
            "width": width,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "ffn_width": ffn_width,
            "conv_channels": conv_channels,
            "conv_kernel_size": conv_kernel_size,
            "dropout": dropout,
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "hop_length": hop_length,
            "n_mels": n_mels,
        }
        self.features = LogMel(sample_rate, n_fft, hop_length, n_mels)
        self.conv = ResidualFrontEnd(n_mels, conv_channels, width)
        self.dropout = nn.Dropout(dropout)
        self.positions = RelPosEncXL(width)
        self.conformer = ConformerEncoder(
            num_layers,
            width,
            ffn_width,
            num_heads,
            kernel_size=conv_kernel_size,
            dropout=dropout,
            attention_type="RelPosMHAXL",
            output_hidden_states=True,
        )
        self.sample_rate = sample_rate
        self.frame_rate = self.features.frame_rate / self.conv.subsampling
        self.width = width
        self.num_layers = num_layers
        self.min_samples = n_fft // 2 + 1

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
        mel, lens = self.features(wavs, wav_lens)
        return self.encode(mel, None if wav_lens is None else lens)

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
        >>> import torch
        >>> encoder = SpeechBrainConformer(32, 1, 4, 64, conv_channels=4)
        >>> encoder.encode(torch.zeros(1, 100, 128)).last_hidden_state.shape
        torch.Size([1, 25, 32])
        """
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        hidden, lengths = self.conv(feats, lengths)
        mask = length_mask(lengths, hidden.shape[1])
        with _masked_convolutions(self.conformer, mask):
            last, _, states = self.conformer(
                self.dropout(hidden),
                src_key_padding_mask=None if mask is None else ~mask,
                pos_embs=self.positions(hidden),
            )
        # SpeechBrain lists what comes before the final normalisation.
        return encoder_output([*states[:-1], last], lengths)


@contextmanager
def _masked_convolutions(conformer: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Gives the depthwise convolutions zeros beyond the end of a clip.

    SpeechBrain masks only what comes out of a convolution module, so the last frames
    of a clip would hear half a kernel of the padding's biases.
    """
    hooks = []
    if mask is not None:
        for layer in conformer.layers:
            gate = layer.convolution_module.bottleneck
            hooks.append(
                gate.register_forward_hook(lambda _, __, out: out * mask[:, None])
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
