"""Residual 2-D convolutional front end of MuQ and MusicFM.

Parameter names equal those of the official ``Conv2dSubsampling`` module.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muq_plugins.lobes.lengths import length_mask


class ResidualBlock2d(nn.Module):
    """3x3 convolutions with a strided convolutional shortcut.

    Both axes are halved (rounded up).

    Arguments
    ---------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output.

    Example
    -------
    >>> block = ResidualBlock2d(1, 8)
    >>> block(torch.randn(2, 1, 128, 100)).shape
    torch.Size([2, 8, 64, 50])
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Applies the block.

        Arguments
        ---------
        images : Tensor
            (batch, channels, mels, frames).
        lengths : Tensor or None
            Own frames (batch,) of the OUTPUT; frames beyond are zero, inside
            the block as well, as if each clip ended there.

        Returns
        -------
        Tensor
            (batch, channels, ceil(mels / 2), ceil(frames / 2)).
        """
        hidden = torch.relu(self.bn1(self.conv1(images)))
        mask = length_mask(lengths, hidden.shape[-1])
        if mask is not None:
            hidden = hidden * mask[:, None, None]
        out = torch.relu(self.bn2(self.conv2(hidden)) + self.bn3(self.conv3(images)))
        return out if mask is None else out * mask[:, None, None]


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

    Example
    -------
    >>> front_end = ResidualFrontEnd(n_mels=128, channels=8, width=32)
    >>> front_end(torch.randn(2, 100, 128))[0].shape
    torch.Size([2, 25, 32])
    """

    subsampling = 4

    def __init__(self, n_mels: int, channels: int, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            ResidualBlock2d(1, channels), ResidualBlock2d(channels, channels)
        ).to(memory_format=torch.channels_last)  # the faster layout, CPU and GPU
        bands = -(-n_mels // self.subsampling)
        self.linear = nn.Linear(channels * bands, width)

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
        images = mel.transpose(1, 2)[:, None]
        images = images.contiguous(memory_format=torch.channels_last)
        mask = length_mask(lengths, images.shape[-1])
        if mask is not None:
            images = images * mask[:, None, None]
        for block in self.conv:
            lengths = None if lengths is None else (lengths + 1) // 2
            images = block(images, lengths)
        # Channel-major, then frequency: the order of the official flattening.
        return self.linear(images.permute(0, 3, 1, 2).flatten(2)), lengths
