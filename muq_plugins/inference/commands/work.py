"""What a sub-command has to say about its work on audio files.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Work(Protocol):
    """What a sub-command does with audio.

    Attributes
    ----------
    about : dict
        Facts for the outputs that do not decide about resuming.
    sample_rate : int
        Rate of the waveforms, in Hz.
    min_samples : int
        Shorter audio gives not even one frame.
    device : str
        Where it computes, for messages.
    """

    about: dict[str, Any]
    sample_rate: int
    min_samples: int
    device: str

    def settings(self, duration: float) -> dict[str, Any]:
        """All that decides what the output for a file of this duration is.

        Arguments
        ---------
        duration : float
            Seconds.

        Returns
        -------
        dict
            As JSON can hold it.
        """

    def batch(self, wavs: Tensor, wav_lens: Tensor) -> list[dict[str, np.ndarray]]:
        """Computes the outputs of a padded batch.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples).
        wav_lens : Tensor
            Relative lengths (batch,), float64.

        Returns
        -------
        list of dict
            The arrays of each clip.
        """

    def stream(
        self, blocks: Iterable[Tensor], advance: Callable[[float], None]
    ) -> dict[str, np.ndarray]:
        """Computes the output of audio that is too long for a batch.

        Arguments
        ---------
        blocks : iterable of Tensor
            Consecutive waveforms (samples,).
        advance : callable
            To be told how many seconds are done now.

        Returns
        -------
        dict
            The arrays.
        """
