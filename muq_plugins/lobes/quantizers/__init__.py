"""Quantizers: feature vectors in, codes out."""

from muq_plugins.lobes.quantizers.base import Quantizer, QuantizerOutput, VirtualCodes
from muq_plugins.lobes.quantizers.finite_scalar import FiniteScalarQuantization
from muq_plugins.lobes.quantizers.kmeans import KMeans
from muq_plugins.lobes.quantizers.random_projection import RandomProjection
from muq_plugins.lobes.quantizers.residual_vq import ResidualVQ, VectorQuantizer

__all__ = [
    "FiniteScalarQuantization",
    "KMeans",
    "Quantizer",
    "QuantizerOutput",
    "RandomProjection",
    "ResidualVQ",
    "VectorQuantizer",
    "VirtualCodes",
]
