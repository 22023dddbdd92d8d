"""Examples of what a tokenizer keeps of a spectrogram, for the report."""

from __future__ import annotations

import torch
from torch import Tensor

from muq_plugins.lobes.features import StackedFrames
from muq_plugins.lobes.target import Target


@torch.no_grad()
def reconstruction_examples(target: Target, wavs: Tensor) -> dict[str, Tensor]:
    """Reconstructs one clip from the first, half and all levels of its codes."""
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
