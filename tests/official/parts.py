"""An official checkpoint taken apart into our lobes, to compute its masked loss."""

import torch

from muq_plugins import (
    BlockMasking,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    MuQ,
    ResidualVQ,
    StackedFrames,
    Target,
)
from muq_plugins.inference.folders import read_config
from muq_plugins.inference.official import read_official
from muq_plugins.lobes import Masking


class GivenMask(Masking):
    """Masks what the official code has masked."""

    sample_rate, frame_rate = BlockMasking().sample_rate, BlockMasking().frame_rate

    def __init__(self, golden):
        super().__init__()
        self.golden = golden

    def forward(self, wavs, clip_keys):
        mask = torch.zeros(self.golden["codes"].shape[:2], dtype=torch.bool)
        mask[tuple(self.golden["mask_indices"].t().long())] = True
        return self.golden["masked"].float(), mask


def masked_prediction(folder, golden):
    """The stage of pre-training with the weights of an official checkpoint."""
    checkpoint = read_official(folder, read_config(folder))
    num_codebooks = golden["codes"].shape[2]
    quantizer = ResidualVQ(512, num_codebooks, codebook_size=1024)
    quantizer.load_state_dict(checkpoint.others["tokenizer"])
    encoder = MuQ.from_pretrained(folder).mods.encoder
    head = MultiCodebookHead(encoder.width, num_codebooks, codebook_size=1024)
    head.linear.load_state_dict(checkpoint.others["head"])
    target = Target(StackedFrames(LogMel()), quantizer)
    return MaskedPrediction(GivenMask(golden), target, encoder, head).eval()
