"""Examples of what a tokenizer keeps of a spectrogram, for the report.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor

from muq_plugins.lobes.features import StackedFrames
from muq_plugins.lobes.target import Target


@torch.no_grad()
def reconstruction_examples(target: Target, wavs: Tensor) -> dict[str, Tensor]:
    """Reconstructs one clip from the first, half and all levels of its codes.

    Arguments
    ---------
    target : Target
        Features, which must be stacked spectrogram frames, and a quantizer that
        can decode.
    wavs : Tensor
        One clip (1, samples).

    Returns
    -------
    dict
        ``mel`` (frames, mels), ``reconstructions`` (K, frames, mels) and
        ``reconstruction_levels`` (K,), ready for `save_diagnostics`; empty if the
        target is of another kind.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, ResidualVQ
    >>> target = Target(StackedFrames(LogMel()), ResidualVQ(512, 8, 16))
    >>> examples = reconstruction_examples(target, torch.randn(1, 24000))
    >>> examples["reconstructions"].shape, examples["reconstruction_levels"]
    (torch.Size([3, 100, 128]), tensor([1, 4, 8]))
    """
    features, quantizer = target.features, target.quantizer
    if not isinstance(features, StackedFrames) or not hasattr(quantizer, "decode"):
        return {}
    device = next(target.buffers()).device
    codes = target(wavs.to(device))
    feats, _ = features(wavs.to(device))
    levels = sorted({1, max(1, quantizer.num_codebooks // 2), quantizer.num_codebooks})
    decoded = [quantizer.decode(codes[..., :level]) for level in levels]
    return {
        "mel": features.unstack(feats)[0].cpu(),
        "reconstructions": torch.stack(
            [features.unstack(feats)[0].cpu() for feats in decoded]
        ),
        "reconstruction_levels": torch.tensor(levels),
    }
