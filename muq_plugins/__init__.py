"""MuQ for SpeechBrain: train, adapt, evaluate and serve music representations.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.inference import MuQ
from muq_plugins.lobes import (
    BlockMasking,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MuQEncoder,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
    TokenizerTraining,
)

__version__ = "0.1.0"

__all__ = [
    "BlockMasking",
    "LogMel",
    "MaskedPrediction",
    "MuQ",
    "MuQEncoder",
    "MultiCodebookHead",
    "RandomProjection",
    "ResidualVQ",
    "StackedFrames",
    "Target",
    "TokenizerTraining",
]
