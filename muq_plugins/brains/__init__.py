"""Brains: one per training stage, on one common base.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.brains.base import StageBrain, TrainingInterrupted
from muq_plugins.brains.checkpoints import AtomicCheckpointer, CheckpointError
from muq_plugins.brains.clustering import fit_centres
from muq_plugins.brains.fitting import FittingBrain
from muq_plugins.brains.mulan import MuLanBrain
from muq_plugins.brains.pretrain import PretrainBrain
from muq_plugins.brains.tokenizer import TokenizerBrain

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
