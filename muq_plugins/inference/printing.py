"""Paths as text that can be printed."""

from __future__ import annotations

import os


def shown(words: str | os.PathLike) -> str:
    """Text with paths in it, as it can be printed."""
    return os.fsencode(words).decode("utf-8", "replace")
