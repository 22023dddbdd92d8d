"""Lobes: plain modules, wired by YAML or imported by anybody.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.lobes.conformer import Conformer
from muq_plugins.lobes.encoder import EncoderOutput, MuQEncoder
from muq_plugins.lobes.features import LogMel, StackedFrames
from muq_plugins.lobes.front_end import ResidualFrontEnd
from muq_plugins.lobes.heads import MultiCodebookHead
from muq_plugins.lobes.masking import BlockMasking
from muq_plugins.lobes.quantizers import (
    Quantizer,
    QuantizerOutput,
    RandomProjection,
    ResidualVQ,
)
from muq_plugins.lobes.stages import MaskedPrediction, StageOutput, TokenizerTraining
from muq_plugins.lobes.target import Target

__all__ = [
    "BlockMasking",
    "Conformer",
    "EncoderOutput",
    "LogMel",
    "MaskedPrediction",
    "MultiCodebookHead",
    "MuQEncoder",
    "Quantizer",
    "QuantizerOutput",
    "RandomProjection",
    "ResidualFrontEnd",
    "ResidualVQ",
    "StackedFrames",
    "StageOutput",
    "Target",
    "TokenizerTraining",
]
