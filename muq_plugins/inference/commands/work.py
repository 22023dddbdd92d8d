"""What a sub-command has to say about its work on audio files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Work(Protocol):
    """What a sub-command does with audio."""

    about: dict[str, Any]
    sample_rate: int
    min_samples: int
    device: str

    def settings(self, duration: float) -> dict[str, Any]:
        """All that decides what the output for a file of this duration is."""

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Computes the outputs of a padded batch."""

    def stream(
        self, blocks: Iterable[Tensor], advance: Callable[[float], None]
    ) -> dict[str, np.ndarray]:
        """Computes the output of audio that is too long for a batch."""
