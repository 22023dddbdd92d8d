"""Paths as text that can be printed.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import os


def shown(words: str | os.PathLike) -> str:
    """Text with paths in it, as it can be printed.

    Arguments
    ---------
    words : str or PathLike
        A path, or words around one.

    Returns
    -------
    str
        With a replacement character for what is not UTF-8.

    Example
    -------
    >>> shown("caf\\udce9.wav") == "caf\\ufffd.wav"
    True
    """
    return os.fsencode(words).decode("utf-8", "replace")
