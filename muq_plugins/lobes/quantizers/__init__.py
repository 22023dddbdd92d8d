"""Quantizers: feature vectors in, codes out.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.lobes.quantizers.base import Quantizer, QuantizerOutput
from muq_plugins.lobes.quantizers.random_projection import RandomProjection
from muq_plugins.lobes.quantizers.residual_vq import ResidualVQ, VectorQuantizer

__all__ = [
    "Quantizer",
    "QuantizerOutput",
    "RandomProjection",
    "ResidualVQ",
    "VectorQuantizer",
]
