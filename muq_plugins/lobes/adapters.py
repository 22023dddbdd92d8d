"""Our parts for recipes that expect a plain tensor: codes only, features only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muq_plugins.lobes.quantizers.base import Quantizer
from muq_plugins.lobes.target import Frozen


class CodesOnly(Frozen):
    """A frozen quantizer that gives codes, as ``RandomProjectionQuantizer`` does.

    SpeechBrain's recipe for BEST-RQ (arXiv 2202.01855) calls its quantizer on stacked
    frames and takes what comes back for labels. Any quantizer can stand there. It never
    trains: no parameter wants a gradient, and `train` leaves it in evaluation mode.

    Arguments
    ---------
    quantizer : Quantizer
        The one that chooses the codes.

    Example
    -------
    >>> from muq_plugins.lobes import RandomProjection
    >>> quantizer = CodesOnly(RandomProjection(320, codebook_size=64))
    >>> quantizer(torch.randn(2, 25, 320)).shape
    torch.Size([2, 25])
    """

    def __init__(self, quantizer: Quantizer):
        super().__init__()
        self.quantizer = quantizer
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, feats: Tensor) -> Tensor:
        """Chooses the codes.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size) of the quantizer.

        Returns
        -------
        Tensor
            Codes int64: (...) of a quantizer with one codebook, else (..., N).

        Raises
        ------
        ValueError
            If the vectors have another size.
        """
        expected = self.quantizer.input_size
        if feats.shape[-1] != expected:
            raise ValueError(
                f"{type(self.quantizer).__name__} quantizes vectors of {expected} "
                f"values, got {feats.shape[-1]}: set its input_size to that, the "
                f"number of stacked frames times their size."
            )
        codes = self.quantizer.encode(feats)
        return codes.squeeze(-1) if self.quantizer.num_codebooks == 1 else codes


class FeaturesOnly(nn.Module):
    """Features without lengths, as SpeechBrain's ``Fbank`` gives them.

    Recipes call ``compute_features(wavs)`` and count on one tensor. Few of them list
    features among their ``modules``, so these follow the waveforms to their device.

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel
    >>> compute_features = FeaturesOnly(LogMel(16000, 400, 160, n_mels=80))
    >>> compute_features(torch.randn(2, 16000)).shape
    torch.Size([2, 100, 80])
    """

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Computes the features.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at the rate of the features, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            (batch, frames, size).
        """
        self.features.to(wavs.device)
        return self.features(wavs, wav_lens)[0]
