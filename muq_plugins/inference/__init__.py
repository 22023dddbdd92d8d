"""Using what was trained.

The names below are imported when they are first used: the command line starts, and can
explain a broken installation, without torch and SpeechBrain.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muq_plugins.inference.mulan import MuQMuLan
    from muq_plugins.inference.muq import MuQ
    from muq_plugins.inference.pretrained_muq import PretrainedMuQ
    from muq_plugins.inference.tokenizer import MelRVQ
    from muq_plugins.inference.weighted_muq import WeightedMuQ

__all__ = [
    "MelRVQ",
    "MuQ",
    "MuQMuLan",
    "PretrainedMuQ",
    "WeightedMuQ",
]
_HOMES = {
    "MelRVQ": "tokenizer",
    "MuQ": "muq",
    "MuQMuLan": "mulan",
    "PretrainedMuQ": "pretrained_muq",
    "WeightedMuQ": "weighted_muq",
}

if not TYPE_CHECKING:  # a checker would believe that it gives any name

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
