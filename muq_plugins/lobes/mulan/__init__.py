"""MuQ-MuLan: audio and text in one space (arXiv 2501.01108, section 3.4).

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.lobes.mulan.audio_tower import AudioTower
from muq_plugins.lobes.mulan.contrastive import ContrastiveLoss
from muq_plugins.lobes.mulan.gathering import gather_with_gradient
from muq_plugins.lobes.mulan.latent_transformer import LatentTransformer
from muq_plugins.lobes.mulan.losses import (
    DecoupledContrastive,
    InfoNCE,
    SigmoidContrastive,
)
from muq_plugins.lobes.mulan.text_tower import TextTower
from muq_plugins.lobes.mulan.training import ContrastiveTraining

__all__ = [
    "AudioTower",
    "ContrastiveLoss",
    "ContrastiveTraining",
    "DecoupledContrastive",
    "InfoNCE",
    "LatentTransformer",
    "SigmoidContrastive",
    "TextTower",
    "gather_with_gradient",
]
