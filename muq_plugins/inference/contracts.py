"""What those who use a model of music and text need of it.

`MuQMuLan` gives all of it; each user names no more than what it asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class AudioModel(Protocol):
    """A model that embeds audio files."""

    fingerprint: str
    latent_width: int

    def embed_file(self, path: str) -> Tensor:
        """Embeds a file of any length."""


class TextModel(Protocol):
    """A model that embeds texts."""

    def embed_text(self, texts: list[str]) -> Tensor:
        """Embeds texts."""
