"""Residual 2-D convolutional front end of MuQ and MusicFM.

Parameter names equal those of the official ``Conv2dSubsampling`` module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.batch_norm import BatchNorm
from muq_plugins.lobes.lengths import length_mask
from muq_plugins.lobes.linear import Linear, is_traced, onednn_applies
from muq_plugins.lobes.recomputation import recompute_later

# Mel frames that go through the convolutions at a time when nothing is learned: the
# activations of 10 s stay near a CPU's caches, those of an hour fit in no memory.
CPU_FRAMES = 1024
GPU_FRAMES = 65536
# Mel frames of context on either side of a piece, of which the outputs are dropped.
CONTEXT = 12


class ResidualBlock2d(nn.Module):
    """3x3 convolutions with a strided convolutional shortcut.

    Both axes are halved (rounded up).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.bn1 = BatchNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = BatchNorm(out_channels)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.bn3 = BatchNorm(out_channels)

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Applies the block."""
        hidden = self.conv1(images)
        mask = length_mask(lengths, hidden.shape[-1], hidden.device)
        hidden = torch.relu(self.bn1(hidden, mask))
        if mask is not None:
            hidden = hidden * mask[:, None, None]
        shortcut = self.bn3(self.conv3(images), mask)
        out = torch.relu(self.bn2(self.conv2(hidden), mask) + shortcut)
        return out if mask is None else out * mask[:, None, None]

    def folded(self, dtype: torch.dtype) -> FoldedBlock2d:
        """The same computation in evaluation mode, for inference."""
        pairs = (
            (self.conv1, self.bn1),
            (self.conv2, self.bn2),
            (self.conv3, self.bn3),
        )
        return FoldedBlock2d(*(_fold(conv, norm, dtype) for conv, norm in pairs))


class FoldedBlock2d:
    """A `ResidualBlock2d` for inference: fewer passes over memory, none of them
    kept.
    """

    def __init__(
        self,
        first: tuple[Tensor, Tensor],
        second: tuple[Tensor, Tensor],
        shortcut: tuple[Tensor, Tensor],
    ):
        self.first = first
        self.second = second
        self.shortcut = shortcut

    def __iter__(self) -> Iterator[Tensor]:
        """All weights and biases."""
        return iter((*self.first, *self.second, *self.shortcut))

    def __call__(self, images: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Applies the block; see `ResidualBlock2d.forward`."""
        fused = onednn_applies(images, self.first[0])
        if fused:
            hidden = onednn_convolution(images, *self.first, 2, "relu")
        else:
            hidden = F.conv2d(images, *self.first, stride=2, padding=1).relu_()
        mask = length_mask(lengths, hidden.shape[-1], hidden.device)
        if mask is not None:
            hidden *= mask[:, None, None]
        if fused:
            out = onednn_convolution(images, *self.shortcut, 2, "none")
            _onednn_add_convolution(out, hidden, *self.second)
        else:
            out = F.conv2d(hidden, *self.second, padding=1)
            out += F.conv2d(images, *self.shortcut, stride=2, padding=1)
            out.relu_()
        if mask is not None:
            out *= mask[:, None, None]
        return out


def onednn_convolution(
    images: Tensor, weight: Tensor, bias: Tensor, stride: int, activation: str
) -> Tensor:
    """A 3x3 convolution whose activation is not a pass of its own."""
    where = ([1, 1], [stride, stride], [1, 1], 1)
    return torch.ops.mkldnn._convolution_pointwise(
        images, weight, bias, *where, activation, [], ""
    )


def _onednn_add_convolution(
    out: Tensor, images: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """``out = relu(out + convolution)`` in place, in one pass."""
    where = ([1, 1], [1, 1], [1, 1], 1)
    torch.ops.mkldnn._convolution_pointwise_.binary(
        out, images, weight, bias, *where, "add", 1.0, "relu", [], ""
    )


class ResidualFrontEnd(nn.Module):
    """Turns a spectrogram into a sequence at a quarter of its frame rate.

    Arguments
    ---------
    n_mels : int
        Mel bands of the input.
    channels : int
        Channels of both residual blocks (512 in the paper's model).
    width : int
        Size of the output vectors.
    gradient_checkpointing : bool
        Recompute each block in the backward pass instead of storing its activations,
        which are most of those of an encoder.

    Example
    -------
    >>> front_end = ResidualFrontEnd(n_mels=128, channels=8, width=32)
    >>> front_end(torch.randn(2, 100, 128))[0].shape
    torch.Size([2, 25, 32])
    """

    subsampling = 4

    def __init__(
        self,
        n_mels: int,
        channels: int,
        width: int,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.conv = nn.Sequential(
            ResidualBlock2d(1, channels), ResidualBlock2d(channels, channels)
        ).to(memory_format=torch.channels_last)  # the faster layout, CPU and GPU
        bands = -(-n_mels // self.subsampling)
        self.linear = Linear(channels * bands, width)

    def forward(
        self, mel: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Applies the front end.

        Arguments
        ---------
        mel : Tensor
            Normalised log-mel spectrogram (batch, mel frames, n_mels).
        lengths : Tensor or None
            Own mel frames (batch,) of each clip; None when nothing is padded.

        Returns
        -------
        hidden : Tensor
            (batch, ceil(mel frames / 4), width).
        lengths : Tensor or None
            Own frames (batch,) of the output.
        """
        mel = mel.to(self.linear.bias.dtype)  # the spectrogram is always float32
        if self.training or torch.is_grad_enabled() or is_traced():
            return self._convolve(self.conv, mel, lengths)
        return self._in_pieces(mel, lengths)

    def _convolve(
        self,
        blocks: Iterable[Callable[..., Tensor]],
        mel: Tensor,
        lengths: Tensor | None,
    ) -> Tensor:
        """Applies the blocks and the projection; see `forward`."""
        images = mel.transpose(1, 2)[:, None]
        images = images.contiguous(memory_format=torch.channels_last)
        mask = length_mask(lengths, images.shape[-1], images.device)
        if mask is not None:
            images = images * mask[:, None, None]
        for block in blocks:
            lengths = None if lengths is None else (lengths + 1) // 2
            if self.gradient_checkpointing and self.training:
                images = recompute_later(block, images, lengths)
            else:
                images = block(images, lengths)
        # Channel-major, then frequency: the order of the official flattening.
        return self.linear(images.permute(0, 3, 1, 2).flatten(2)), lengths

    def _in_pieces(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        """The same for inference, a few clips or seconds at a time."""
        device = mel.device.type
        dtype = mel.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        blocks = [block.folded(dtype) for block in self.conv]
        budget = CPU_FRAMES if device == "cpu" else GPU_FRAMES
        frames = mel.shape[1]
        clips = max(1, budget // max(frames, 1))
        rows = []
        for row in range(0, len(mel), clips):
            part = slice(row, row + clips)
            pieces = []
            for start in range(0, frames, budget):
                stop = min(start + budget, frames)
                begin = max(0, start - CONTEXT)
                hidden, _ = self._convolve(
                    blocks,
                    mel[part, begin : stop + CONTEXT].to(dtype),
                    None if lengths is None else (lengths[part] - begin).clamp(min=0),
                )
                first, last = (start - begin) // 4, -(-(stop - begin) // 4)
                pieces.append(hidden[:, first:last])
            rows.append(torch.cat(pieces, dim=1))
        if lengths is not None:
            lengths = -(-lengths // self.subsampling)
        out = torch.cat(rows)
        if device == "cpu":
            # The fused ReLU turns NaN into 0: what hides behind it comes back here.
            weights = sum(part.float().sum() for block in blocks for part in block)
            nothing = 0 * (mel.sum((1, 2), dtype=torch.float32) + weights)
            out += nothing[:, None, None].to(out.dtype)
        return out, lengths


def _fold(
    conv: nn.Conv2d, norm: BatchNorm, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes the normalisation after it."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = (conv.weight * scale[:, None, None, None]).to(dtype)
    bias = norm.bias + (conv.bias - norm.running_mean) * scale
    return weight.contiguous(memory_format=torch.channels_last), bias.to(dtype)
