"""Lobes: plain modules, wired by YAML or imported by anybody; this is their list."""

from muq_plugins.lobes.adapters import CodesOnly, FeaturesOnly
from muq_plugins.lobes.conformer import Conformer
from muq_plugins.lobes.constant_q import ConstantQ
from muq_plugins.lobes.encodec import EncodecFeatures, EncodecQuantizer
from muq_plugins.lobes.encoders.base import EncoderOutput, ResampledEncoder
from muq_plugins.lobes.encoders.muq import MuQEncoder
from muq_plugins.lobes.encoders.pretrained_speech import PretrainedSpeechEncoder
from muq_plugins.lobes.encoders.speechbrain import (
    SpeechBrainBranchformer,
    SpeechBrainConformer,
)
from muq_plugins.lobes.encoders.waveform import WaveformTransformer
from muq_plugins.lobes.features import KeptFrames, StackedFrames, TeacherFeatures
from muq_plugins.lobes.front_end import ResidualFrontEnd
from muq_plugins.lobes.masking import BlockMasking, Masking, SpanMasking
from muq_plugins.lobes.mel import LogMel, Mfcc
from muq_plugins.lobes.mulan import (
    AudioTower,
    ContrastiveLoss,
    ContrastiveTraining,
    DecoupledContrastive,
    InfoNCE,
    LatentTransformer,
    SigmoidContrastive,
    TextTower,
    gather_with_gradient,
)
from muq_plugins.lobes.objectives.augmentation import Augmentation
from muq_plugins.lobes.objectives.base import (
    Hearing,
    Measure,
    Objective,
    Reference,
    StageOutput,
)
from muq_plugins.lobes.objectives.codes import CodePrediction, MultiCodebookHead
from muq_plugins.lobes.objectives.distillation import (
    Distillation,
    TowerDistillation,
    TowerFeatures,
    TowerHead,
)
from muq_plugins.lobes.objectives.latents import LatentRegression
from muq_plugins.lobes.objectives.vectors import VectorHead, VectorRegression
from muq_plugins.lobes.objectives.views import ContrastiveViews
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import Quantizer, QuantizerOutput, VirtualCodes
from muq_plugins.lobes.quantizers.finite_scalar import FiniteScalarQuantization
from muq_plugins.lobes.quantizers.kmeans import KMeans
from muq_plugins.lobes.quantizers.random_projection import RandomProjection
from muq_plugins.lobes.quantizers.residual_vq import ResidualVQ
from muq_plugins.lobes.stages import (
    MaskedPrediction,
    Pretraining,
    TokenizerTraining,
)
from muq_plugins.lobes.target import MultiViewTarget, ResampledTarget, Target

__all__ = [
    "AudioTower",
    "Augmentation",
    "BlockMasking",
    "CodePrediction",
    "CodesOnly",
    "Conformer",
    "ConstantQ",
    "ContrastiveLoss",
    "ContrastiveTraining",
    "ContrastiveViews",
    "DecoupledContrastive",
    "Distillation",
    "EncodecFeatures",
    "EncodecQuantizer",
    "EncoderOutput",
    "FeaturesOnly",
    "FiniteScalarQuantization",
    "gather_with_gradient",
    "Hearing",
    "InfoNCE",
    "KeptFrames",
    "KMeans",
    "LatentRegression",
    "LatentTransformer",
    "LogMel",
    "MaskedPrediction",
    "Masking",
    "Measure",
    "Mfcc",
    "MultiCodebookHead",
    "MultiViewTarget",
    "MuQEncoder",
    "Objective",
    "part",
    "PretrainedSpeechEncoder",
    "Pretraining",
    "Quantizer",
    "QuantizerOutput",
    "RandomProjection",
    "Reference",
    "ResampledEncoder",
    "ResampledTarget",
    "ResidualFrontEnd",
    "ResidualVQ",
    "SigmoidContrastive",
    "SpanMasking",
    "SpeechBrainBranchformer",
    "SpeechBrainConformer",
    "StackedFrames",
    "StageOutput",
    "Target",
    "TeacherFeatures",
    "TextTower",
    "TokenizerTraining",
    "TowerDistillation",
    "TowerFeatures",
    "TowerHead",
    "VectorHead",
    "VectorRegression",
    "VirtualCodes",
    "WaveformTransformer",
]
