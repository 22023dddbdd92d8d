"""MuQ for SpeechBrain: train, adapt, evaluate and serve music representations.

The public names are those of `muq_plugins.inference` and `muq_plugins.lobes`. They are
imported when they are first used, so that processes which need only a part, such as
those that render the corpus, start without torch. Editors and type checkers read them
from the block that never runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from muq_plugins.arrivals import wait_for_transformers

__version__ = "0.1.0"

if TYPE_CHECKING:
    from muq_plugins.inference import *  # noqa: F403
    from muq_plugins.lobes import *  # noqa: F403

_HOMES = ("muq_plugins.inference", "muq_plugins.lobes")  # the light one first

if not TYPE_CHECKING:  # a checker would believe that it gives any name

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used (PEP 562)."""
        if name == "__all__":
            return [each for home in _HOMES for each in import_module(home).__all__]
        for home in () if name.startswith("__") else _HOMES:
            if name in import_module(home).__all__:
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Public names, also those not imported yet."""
        return sorted([*globals(), *__getattr__("__all__")])


wait_for_transformers()
