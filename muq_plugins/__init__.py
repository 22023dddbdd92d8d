"""MuQ for SpeechBrain: train, adapt, evaluate and serve music representations.

The names below are imported when they are first used, so that processes which need
only a part, such as those that render the corpus, start without torch. Editors and
type checkers read them from the block that never runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from muq_plugins.inference import (
        MelRVQ,
        MuQ,
        MuQMuLan,
        PretrainedMuQ,
    )
    from muq_plugins.lobes import (
        AudioTower,
        BlockMasking,
        ContrastiveTraining,
        DecoupledContrastive,
        EncodecFeatures,
        EncodecQuantizer,
        FiniteScalarQuantization,
        InfoNCE,
        KeptFrames,
        KMeans,
        LatentTransformer,
        LogMel,
        MaskedPrediction,
        Mfcc,
        MultiCodebookHead,
        MultiViewTarget,
        MuQEncoder,
        PretrainedSpeechEncoder,
        RandomProjection,
        ResampledEncoder,
        ResidualVQ,
        SigmoidContrastive,
        SpanMasking,
        SpeechBrainConformer,
        StackedFrames,
        Target,
        TextTower,
        TokenizerTraining,
        VirtualCodes,
        WaveformTransformer,
    )

__all__ = [
    "AudioTower",
    "BlockMasking",
    "ContrastiveTraining",
    "DecoupledContrastive",
    "EncodecFeatures",
    "EncodecQuantizer",
    "FiniteScalarQuantization",
    "InfoNCE",
    "KMeans",
    "KeptFrames",
    "LatentTransformer",
    "LogMel",
    "MaskedPrediction",
    "MelRVQ",
    "Mfcc",
    "MuQ",
    "MuQEncoder",
    "MuQMuLan",
    "MultiCodebookHead",
    "MultiViewTarget",
    "PretrainedMuQ",
    "PretrainedSpeechEncoder",
    "RandomProjection",
    "ResampledEncoder",
    "ResidualVQ",
    "SigmoidContrastive",
    "SpanMasking",
    "SpeechBrainConformer",
    "StackedFrames",
    "Target",
    "TextTower",
    "TokenizerTraining",
    "VirtualCodes",
    "WaveformTransformer",
]

if not TYPE_CHECKING:  # a checker would believe that it gives any name

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module("muq_plugins.inference")  # light, as this one is
        if name not in home.__all__:
            home = import_module("muq_plugins.lobes")
        return getattr(home, name)


def __dir__() -> list[str]:
    """Public names, also those not imported yet."""
    return sorted([*globals(), *__all__])
