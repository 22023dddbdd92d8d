"""Where a recording is cut: windows spread over it, for validation and for probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from muq_plugins.data.audio import read_audio

# Shorter sounds are followed by silence up to here: a spectrogram needs one window.
SHORTEST_SECONDS = 0.2


def spread(length: float, size: float, most: int) -> list[float]:
    """Where up to `most` windows begin, from one end of a recording to the other.

    One window is in the middle. Published probes depend on every digit of this.
    """
    room = max(0.0, length - size)
    number = min(most, max(1, int(length / size)))
    return [room / 2] if number == 1 else np.linspace(0, room, number).tolist()


def spread_on_grid(length: int, size: int, most: int, grid: int) -> list[int]:
    """Where up to `most` windows begin that share no sample, on multiples of `grid`.

    So a validation clip begins with a frame. Published losses depend on it.
    """
    spacing = -(-size // grid) * grid
    fitting = max(0, length - size) // spacing + 1
    count = min(fitting, most)
    return [
        (2 * window + 1) * fitting // (2 * count) * spacing for window in range(count)
    ]


def spread_windows(
    path: str | Path, duration: float, seconds: float, most: int, sample_rate: int
) -> list[Tensor]:
    """Reads windows of a recording, evenly spread over it."""
    windows = []
    for start in spread(duration, seconds, most):
        wav = read_audio(path, start, seconds, sample_rate)
        lacking = round(SHORTEST_SECONDS * sample_rate) - len(wav)
        windows.append(nn.functional.pad(wav, (0, max(0, lacking))))
    return windows
