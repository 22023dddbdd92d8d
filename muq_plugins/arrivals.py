"""Tells transformers of our models when it is imported, and not before.

Its Auto classes find a model of another package only if that package has registered it.
To register costs importing transformers, which most of those who import us do not need.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO = "transformers.models.auto."


def _register_config(module: ModuleType) -> None:
    from muq_plugins.inference.auto_config import MODEL_TYPE, MuQPluginsConfig

    module.AutoConfig.register(MODEL_TYPE, MuQPluginsConfig, exist_ok=True)


def _register_model(module: ModuleType) -> None:
    from muq_plugins.inference.auto import MuQPluginsModel
    from muq_plugins.inference.auto_config import MuQPluginsConfig

    module.AutoModel.register(MuQPluginsConfig, MuQPluginsModel, exist_ok=True)


def _register_extractor(module: ModuleType) -> None:
    from muq_plugins.inference.auto import MuQPluginsFeatureExtractor
    from muq_plugins.inference.auto_config import MuQPluginsConfig

    module.AutoFeatureExtractor.register(
        MuQPluginsConfig, MuQPluginsFeatureExtractor, exist_ok=True
    )


# Each as soon as its own module is complete: they import one another.
WAITING: dict[str, Callable[[ModuleType], None]] = {
    f"{AUTO}configuration_auto": _register_config,
    f"{AUTO}modeling_auto": _register_model,
    f"{AUTO}feature_extraction_auto": _register_extractor,
}


class _Arrivals(MetaPathFinder):
    """Finds no module itself, but is told when one of those waited for is loaded."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in WAITING:
            return None
        register = WAITING.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            register(module)

        spec.loader.exec_module = load_and_register
        return spec


def wait_for_transformers() -> None:
    """Registers our models now if transformers is here, else when it comes."""
    for name in list(WAITING):
        if name in sys.modules:
            WAITING.pop(name)(sys.modules[name])
    if WAITING:
        sys.meta_path.insert(0, _Arrivals())
