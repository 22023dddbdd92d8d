"""Brains: one per training stage, on one common base."""

from muq_plugins.brains.base import StageBrain, TrainingInterrupted
from muq_plugins.brains.checkpoints import AtomicCheckpointer, CheckpointError
from muq_plugins.brains.stages import (
    FittingBrain,
    MuLanBrain,
    PretrainBrain,
    TokenizerBrain,
    fit_centres,
)

__all__ = [
    "AtomicCheckpointer",
    "CheckpointError",
    "FittingBrain",
    "MuLanBrain",
    "PretrainBrain",
    "StageBrain",
    "TokenizerBrain",
    "TrainingInterrupted",
    "fit_centres",
]
