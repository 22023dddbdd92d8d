"""Numbers that depend on a name alone, the same in every environment.

Imported by both sides of the comparison with the official package, so it imports
nothing of ours and nothing of theirs.
"""

import math
import zlib

import numpy as np
import torch

SAMPLE_RATE = 24000
# One each: English, the same longer, Chinese, and signs that no vocabulary has.
TEXTS = [
    "slow solo cello",
    "a fast and joyful piece for flute and oboe in D major, played by two musicians",
    "缓慢的大提琴独奏",
    "🎻 violin & piano — ＡＢＣ",
]
# Longer than a clip, shorter than one, and exactly one.
SECONDS = {"long": 5.0, "short": 1.5, "clips": 2.0}
# What official models compute from others when they are made.
DERIVED = ("inv_freq", "position_ids", "num_batches_tracked")
POSITIVE = ("running_var", "weight_g", "original0", "_scale", "learned_gamma")


def seeded_tensor(name: str, shape: list[int]) -> torch.Tensor:
    """A tensor of a checkpoint: neither trivial nor so large that values explode."""
    if name.endswith("contrast.temperatures"):
        return torch.full(tuple(shape), math.log(14.0))
    values = _normal(name, shape)
    if name.endswith(POSITIVE) or ("norm" in name.lower() and name.endswith("weight")):
        values = 0.6 + values.abs()
    elif len(shape) > 1:
        # Large enough for recordings to differ after all the layers.
        values = 2 * values / math.sqrt(np.prod(shape[1:]))
    else:
        values = 0.1 * values
    return values


def seeded_state(shapes: dict) -> dict:
    """A checkpoint, from the shapes and types of its tensors by name."""
    return {
        name: torch.zeros(shape, dtype=getattr(torch, dtype))
        if name.endswith(DERIVED)
        else seeded_tensor(name, shape)
        for name, (shape, dtype) in shapes.items()
    }


def seeded_wavs(length: str) -> torch.Tensor:
    """Four recordings: noise that becomes louder, on a tone of their own."""
    time = torch.arange(int(SECONDS[length] * SAMPLE_RATE)) / SAMPLE_RATE
    tones = torch.tensor([[110.0], [277.2], [523.25], [1046.5]])
    noise = 0.2 * time / time[-1] * _normal(length, [4, len(time)])
    return (0.3 * torch.sin(6.2831853 * tones * time) + noise).clamp(-1, 1)


def _normal(name: str, shape: list[int]) -> torch.Tensor:
    """Normal numbers by the generator that numpy promises never to change."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(generator.standard_normal(shape)).float()
