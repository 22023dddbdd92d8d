"""The target: what the student has to predict.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.quantizers.base import Quantizer

PADDING_CODE = -1  # stands in the place of codes beyond the end of a clip


class Target(nn.Module):
    """Frozen features and quantizer: ``codes = target(wavs, wav_lens)``.

    It never trains: no parameter wants a gradient, so that no optimizer and no
    weight decay can reach it, and `train` leaves it in evaluation mode. The
    tokenizer of the official recipe was not frozen and drifted (its parameters
    decayed by about 63 % over the paper's schedule).

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract.
    quantizer : Quantizer
        Any quantizer for feature vectors of that size.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, RandomProjection, StackedFrames
    >>> target = Target(StackedFrames(LogMel()), RandomProjection(512, 2, 64))
    >>> target(torch.randn(1, 24000)).shape, target.frame_rate
    (torch.Size([1, 25, 2]), 25.0)
    """

    def __init__(self, features: nn.Module, quantizer: Quantizer):
        super().__init__()
        if features.output_size != quantizer.input_size:
            raise ValueError(
                f"{type(features).__name__} gives vectors of {features.output_size} "
                f"values, but {type(quantizer).__name__} quantizes vectors of "
                f"{quantizer.input_size}: set input_size to {features.output_size}."
            )
        self.features = features
        self.quantizer = quantizer
        self.sample_rate = features.sample_rate
        self.frame_rate = features.frame_rate
        self.num_codebooks = quantizer.num_codebooks
        self.codebook_size = quantizer.codebook_size
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Target:
        """Stays in evaluation mode whatever is asked.

        Arguments
        ---------
        mode : bool
            Ignored.

        Returns
        -------
        Target
            This module.
        """
        return super().train(False)

    @torch.no_grad()
    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Computes the codes.

        Arguments
        ---------
        wavs : Tensor
            Clean waveforms (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            Codes (batch, frames, N) int64; -1 beyond the end of a clip.
        """
        feats, lens = self.features(wavs, wav_lens)
        codes = self.quantizer.encode(feats)
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        mask = length_mask(lengths, feats.shape[1])
        if mask is not None:
            codes = codes.masked_fill(~mask[..., None], PADDING_CODE)
        return codes
