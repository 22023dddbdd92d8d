"""Using what was trained.

The names below are imported when they are first used: the command line starts, and can
explain a broken installation, without torch and SpeechBrain.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "MelRVQ": "muq_plugins.inference.tokenizer",
    "MuQ": "muq_plugins.inference.muq",
    "MuQMuLan": "muq_plugins.inference.mulan",
    "PretrainedMuQ": "muq_plugins.inference.pretrained_muq",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
