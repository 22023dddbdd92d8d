"""What those who use a model of music and text need of it.

`MuQMuLan` gives all of it; each user names no more than what it asks for.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class AudioModel(Protocol):
    """A model that embeds audio files.

    Attributes
    ----------
    fingerprint : str
        Of its weights and settings.
    latent_width : int
        Of its latents.
    """

    fingerprint: str
    latent_width: int

    def embed_file(self, path: str) -> Tensor:
        """Embeds a file of any length.

        Arguments
        ---------
        path : str
            The audio.

        Returns
        -------
        Tensor
            Its latent, of ``latent_width`` values.
        """


class TextModel(Protocol):
    """A model that embeds texts."""

    def embed_text(self, texts: list[str]) -> Tensor:
        """Embeds texts.

        Arguments
        ---------
        texts : list of str
            The texts.

        Returns
        -------
        Tensor
            Latents (texts, latent_width).
        """
