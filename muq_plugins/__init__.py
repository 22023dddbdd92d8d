"""MuQ for SpeechBrain: train, adapt, evaluate and serve music representations.

The names below are imported when they are first used, so that processes which need
only a part, such as those that render the corpus, start without torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AudioTower": "muq_plugins.lobes",
    "BlockMasking": "muq_plugins.lobes",
    "ContrastiveTraining": "muq_plugins.lobes",
    "DecoupledContrastive": "muq_plugins.lobes",
    "EncodecFeatures": "muq_plugins.lobes",
    "EncodecQuantizer": "muq_plugins.lobes",
    "FiniteScalarQuantization": "muq_plugins.lobes",
    "InfoNCE": "muq_plugins.lobes",
    "KMeans": "muq_plugins.lobes",
    "KeptFrames": "muq_plugins.lobes",
    "LatentTransformer": "muq_plugins.lobes",
    "LogMel": "muq_plugins.lobes",
    "MaskedPrediction": "muq_plugins.lobes",
    "MelRVQ": "muq_plugins.inference",
    "Mfcc": "muq_plugins.lobes",
    "MuQ": "muq_plugins.inference",
    "MuQEncoder": "muq_plugins.lobes",
    "MuQMuLan": "muq_plugins.inference",
    "MultiCodebookHead": "muq_plugins.lobes",
    "MultiViewTarget": "muq_plugins.lobes",
    "PretrainedMuQ": "muq_plugins.inference",
    "PretrainedSpeechEncoder": "muq_plugins.lobes",
    "RandomProjection": "muq_plugins.lobes",
    "ResampledEncoder": "muq_plugins.lobes",
    "ResidualVQ": "muq_plugins.lobes",
    "SigmoidContrastive": "muq_plugins.lobes",
    "SpanMasking": "muq_plugins.lobes",
    "SpeechBrainConformer": "muq_plugins.lobes",
    "StackedFrames": "muq_plugins.lobes",
    "Target": "muq_plugins.lobes",
    "TextTower": "muq_plugins.lobes",
    "TokenizerTraining": "muq_plugins.lobes",
    "VirtualCodes": "muq_plugins.lobes",
    "WaveformTransformer": "muq_plugins.lobes",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Public names, also those not imported yet."""
    return sorted([*globals(), *__all__])
