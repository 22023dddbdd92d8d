"""MuQ-MuLan: audio and text in one space (arXiv 2501.01108, section 3.4)."""

from muq_plugins.lobes.mulan.contrastive import (
    ContrastiveLoss,
    DecoupledContrastive,
    InfoNCE,
    SigmoidContrastive,
    gather_with_gradient,
)
from muq_plugins.lobes.mulan.latent_transformer import LatentTransformer
from muq_plugins.lobes.mulan.towers import AudioModel, AudioTower, TextModel, TextTower
from muq_plugins.lobes.mulan.training import ContrastiveTraining

__all__ = [
    "AudioModel",
    "AudioTower",
    "ContrastiveLoss",
    "ContrastiveTraining",
    "DecoupledContrastive",
    "InfoNCE",
    "LatentTransformer",
    "SigmoidContrastive",
    "TextModel",
    "TextTower",
    "gather_with_gradient",
]
