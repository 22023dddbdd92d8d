"""Encoders of MuQ's front end and blocks of SpeechBrain: conformer, branchformer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.lobes.encoders.base import (
    EncoderOutput,
    SpectrogramEncoder,
    encoder_output,
)
from muq_plugins.lobes.front_end import ResidualFrontEnd
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.mel import LogMel
from muq_plugins.lobes.parts import check_sizes, part

# What SpeechBrain calls each way to mix frames. The attention that it makes where there
# is to be none is replaced.
MIXINGS = {"attention": "RelPosMHAXL", "summary": "regularMHA"}


class _SpeechBrainEncoder(SpectrogramEncoder):
    """Log-mel, residual 2-D convolutions and blocks of SpeechBrain."""

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        ffn_width: int,
        conv_channels: int,
        conv_kernel_size: int,
        dropout: float,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        mel_floor: float | None,
        mixing: str,
    ):
        super().__init__()
        check_sizes(width=width, num_layers=num_layers, num_heads=num_heads)
        check_sizes(ffn_width=ffn_width, conv_channels=conv_channels)
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
        if mixing not in MIXINGS:
            raise ValueError(f"mixing is {mixing!r}: give {' or '.join(MIXINGS)}.")
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
        # Configs from before there were these stay equal.
        if mel_floor is not None:
            self.config["mel_floor"] = mel_floor
        if mixing != "attention":
            self.config["mixing"] = mixing
        self.features = LogMel(sample_rate, n_fft, hop_length, n_mels, floor=mel_floor)
        self.conv = ResidualFrontEnd(n_mels, conv_channels, width)
        self.dropout = nn.Dropout(dropout)
        self.sample_rate = sample_rate
        self.frame_rate = self.features.frame_rate / self.conv.subsampling
        self.width = width
        self.num_layers = num_layers
        self.min_samples = self.features.min_samples
        self.positions = None
        if mixing == "attention":
            # Only who uses it needs the seconds in which SpeechBrain is imported.
            from speechbrain.nnet.attention import RelPosEncXL

            self.positions = RelPosEncXL(width)

    def _mix(self, blocks: nn.Module) -> nn.Module:
        """Puts SummaryMixing in the place of attention, where that is wanted."""
        if self.positions is None:
            for layer in blocks.layers:
                layer.mha_layer = SummaryMixing(self.width, self.config["dropout"])
        return blocks

    def _blocks(
        self, mask: Tensor | None
    ) -> tuple[nn.Module, list[nn.Module], Tensor | None]:
        """What follows the front end, what feeds its convolutions, a mask for that."""
        raise NotImplementedError

    def encode(self, feats: Tensor, lens: Tensor | None = None) -> EncoderOutput:
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        hidden, lengths = self.conv(feats, lengths)
        mask = length_mask(lengths, hidden.shape[1], hidden.device)
        blocks, gates, silent = self._blocks(mask)
        with _silenced(gates, silent), _mixed(self.conv.linear):
            last, _, states = blocks(
                self.dropout(hidden),
                src_key_padding_mask=None if mask is None else ~mask,
                pos_embs=None if self.positions is None else self.positions(hidden),
            )
        # SpeechBrain lists what comes before the final normalisation.
        states = [*states[:-1], last]
        if hidden.dtype == self.conv.linear.weight.dtype:  # no autocast around it
            states = [state.to(hidden.dtype) for state in states]
        return encoder_output(states, lengths, lens)


@part
class SpeechBrainConformer(_SpeechBrainEncoder):
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
    mel_floor : float or None
        Floor of the spectrogram, in dB; None for none (see `LogMel`).
    mixing : str
        How frames hear each other: ``attention``, or ``summary``, the `SummaryMixing`
        of arXiv 2307.07421 in its place.

    Raises
    ------
    ValueError
        If the heads do not divide the width, a size that must be odd or even is not, or
        there is no such mixing.

    Example
    -------
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
        mel_floor: float | None = None,
        mixing: str = "attention",
    ):
        sound = sample_rate, n_fft, hop_length, n_mels, mel_floor
        sizes = width, num_layers, num_heads, ffn_width
        convolutions = conv_channels, conv_kernel_size, dropout
        super().__init__(*sizes, *convolutions, *sound, mixing)
        from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder

        conformer = ConformerEncoder(
            num_layers,
            width,
            ffn_width,
            num_heads,
            kernel_size=conv_kernel_size,
            dropout=dropout,
            attention_type=MIXINGS[mixing],
            output_hidden_states=True,
        )
        self.conformer = self._mix(conformer)

    def _blocks(
        self, mask: Tensor | None
    ) -> tuple[nn.Module, list[nn.Module], Tensor | None]:
        """The conformer."""
        layers = self.conformer.layers
        gates = [layer.convolution_module.bottleneck for layer in layers]
        return self.conformer, gates, None if mask is None else mask[:, None]


@part
class SpeechBrainBranchformer(_SpeechBrainEncoder):
    """Log-mel, residual 2-D convolutions and the branchformer of SpeechBrain.

    A layer has two branches side by side, attention and a convolutional gating MLP,
    which one linear layer merges (arXiv 2207.02971). Follows the Encoder contract;
    padded frames never influence the others, and are zero in the output. Beyond the
    ends of a clip its convolutions hear zeros, as the authors' do; SpeechBrain would
    reflect the frames at the end of the batch.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    num_layers : int
        Branchformer layers.
    num_heads : int
        Attention heads of each layer.
    ffn_width : int
        Size inside the convolutional gating MLP, of which half is gated by the other;
        even, as published six times the width.
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
    mel_floor : float or None
        Floor of the spectrogram, in dB; None for none (see `LogMel`).
    mixing : str
        How frames hear each other: ``attention``, or ``summary``, the `SummaryMixing`
        of arXiv 2307.07421 in its place.

    Raises
    ------
    ValueError
        If the heads do not divide the width, a size that must be odd or even is not, or
        there is no such mixing.

    Example
    -------
    >>> encoder = SpeechBrainBranchformer(32, num_layers=2, num_heads=4, ffn_width=192,
    ...                                   conv_channels=4, mixing="summary").eval()
    >>> out = encoder(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    >>> out.last_hidden_state.shape, len(out.hidden_states), encoder.frame_rate
    (torch.Size([2, 25, 32]), 3, 25.0)
    """

    def __init__(
        self,
        width: int = 1024,
        num_layers: int = 12,
        num_heads: int = 16,
        ffn_width: int = 6144,
        conv_channels: int = 512,
        conv_kernel_size: int = 31,
        dropout: float = 0.1,
        sample_rate: int = 24000,
        n_fft: int = 2048,
        hop_length: int = 240,
        n_mels: int = 128,
        mel_floor: float | None = None,
        mixing: str = "attention",
    ):
        sound = sample_rate, n_fft, hop_length, n_mels, mel_floor
        sizes = width, num_layers, num_heads, ffn_width
        convolutions = conv_channels, conv_kernel_size, dropout
        super().__init__(*sizes, *convolutions, *sound, mixing)
        if ffn_width % 2:
            raise ValueError(f"ffn_width must be even, got {ffn_width}.")
        from speechbrain.lobes.models.transformer.Branchformer import (
            BranchformerEncoder,
        )

        branchformer = BranchformerEncoder(
            num_layers,
            width,
            num_heads,
            kernel_size=conv_kernel_size,
            dropout=dropout,
            attention_type=MIXINGS[mixing],
            csgu_linear_units=ffn_width,
            output_hidden_states=True,
        )
        for layer in branchformer.layers:
            layer.convolution_branch.csgu.conv.padding_mode = "constant"
        self.branchformer = self._mix(branchformer)

    def _blocks(
        self, mask: Tensor | None
    ) -> tuple[nn.Module, list[nn.Module], Tensor | None]:
        """The branchformer."""
        layers = self.branchformer.layers
        gates = [layer.convolution_branch.csgu.norm for layer in layers]
        return self.branchformer, gates, None if mask is None else mask[..., None]


class SummaryMixing(nn.Module):
    """Lets frames hear each other by their mean alone (arXiv 2307.07421).

    ``merge([local(frame), mean of summary(all frames)])`` takes the place of attention
    in SpeechBrain's layers. All three are a linear layer and a GELU, as in the authors'
    latest recipes; in the first ones ``local`` and ``summary`` have two.
    """

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.local = nn.Sequential(Linear(width, width), nn.GELU())
        self.summary = nn.Sequential(Linear(width, width), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.merge = nn.Sequential(Linear(2 * width, width), nn.GELU())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        pos_embs: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Mixes (batch, frames, width); of the rest only what is padding matters."""
        summary = self.summary(query)
        if key_padding_mask is None:
            mean = summary.mean(1, keepdim=True)
        else:
            beyond = key_padding_mask[..., None]
            total = summary.masked_fill(beyond, 0).sum(1, keepdim=True)
            mean = total / (~beyond).sum(1, keepdim=True).clamp(min=1)
        both = torch.cat([self.local(query), mean.expand_as(summary)], dim=-1)
        return self.merge(self.dropout(both)), None


def _mixed(layer: nn.Linear) -> AbstractContextManager:
    """Lets SpeechBrain's attention, partly float32, work with weights that are not."""
    dtype = layer.weight.dtype
    if dtype not in (torch.float16, torch.bfloat16):
        return nullcontext()
    return torch.autocast(layer.weight.device.type, dtype)


@contextmanager
def _silenced(gates: list[nn.Module], mask: Tensor | None) -> Iterator[None]:
    """Gives the depthwise convolutions zeros beyond the end of a clip.

    SpeechBrain masks what comes out of a convolution module, or nothing, so the last
    frames of a clip would hear half a kernel of the padding's biases.
    """
    hooks = []
    if mask is not None:
        for gate in gates:
            hooks.append(gate.register_forward_hook(lambda _, __, out: out * mask))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
