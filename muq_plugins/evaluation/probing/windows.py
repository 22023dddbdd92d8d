"""What is heard of a clip: windows, evenly spread over it."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from muq_plugins.data.audio import read_audio
from muq_plugins.evaluation.probing.clips import Clip

# Shorter sounds are followed by silence up to here: a spectrogram needs one window.
SHORTEST_SECONDS = 0.2


def clip_windows(
    clip: Clip, window_seconds: float, max_windows: int, sample_rate: int
) -> list[Tensor]:
    """Read the windows of a clip."""
    room = max(0.0, clip.duration - window_seconds)
    number = min(max_windows, max(1, int(clip.duration / window_seconds)))
    starts = [room / 2] if number == 1 else np.linspace(0, room, number).tolist()
    windows = []
    for start in starts:
        wav = read_audio(clip.wav, start, window_seconds, sample_rate)
        lacking = round(SHORTEST_SECONDS * sample_rate) - len(wav)
        windows.append(nn.functional.pad(wav, (0, max(0, lacking))))
    return windows
