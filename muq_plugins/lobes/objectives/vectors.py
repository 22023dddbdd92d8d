"""Vectors, and squared error: what MERT asks beside codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from muq_plugins.lobes.finite import check_computed
from muq_plugins.lobes.lengths import frames_inside, most_precise
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.masking import Masking
from muq_plugins.lobes.objectives.base import (
    Hearing,
    Measure,
    Objective,
    Reference,
    StageOutput,
    check_equal,
    frames_that_count,
    weighted_loss,
)
from muq_plugins.lobes.target import untrained_parts

# Vectors that differ by less of their size are all the same.
ROUNDING = 1e-10


class VectorHead(Linear):
    """One linear layer that predicts a vector.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    output_size : int
        Size of the vectors.

    Example
    -------
    >>> VectorHead(32, output_size=336)(torch.randn(7, 32)).shape
    torch.Size([7, 336])
    """

    def __init__(self, width: int, output_size: int):
        super().__init__(width, output_size)
        self.width = width
        self.output_size = output_size


class VectorRegression(Objective):
    """Which feature vectors do the frames have?

    The loss is the squared error, the mean over frames and values, where a masked
    frame counts 1 and a visible one ``visible_weight``. With a `ConstantQ` as features
    it is the second objective of MERT (arXiv 2306.00107).

    A squared error has the scale of the features. So what has been learned is told by
    its share of the error of a constant model, which always answers with the mean of
    the vectors: below 100 % something was heard.

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract, at the frame rate of the
        encoder. It is frozen.
    head : nn.Module
        Vectors (frames, size) from hidden states (frames, width).
    visible_weight : float
        What a frame that is not masked counts in the loss; 0 for nothing.

    Raises
    ------
    ValueError
        If features and head do not fit, or the weight is negative or not finite.

    Example
    -------
    >>> from muq_plugins.lobes import BlockMasking, ConstantQ, MuQEncoder, Pretraining
    >>> asked = VectorRegression(ConstantQ(num_bins=84, bins_per_octave=12),
    ...                          VectorHead(32, 84))
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> stage = Pretraining(BlockMasking(), encoder, {"constant_q": asked})
    >>> sorted(stage(torch.randn(2, 24000)).sums)
    ['error', 'loss']
    """

    frozen = ("features",)
    measures = {
        "relative_error": Measure(
            "Masked error, share of the variance",
            "share",
            references={
                "constant": Reference("a constant model", "a constant\nmodel: {:.0%}")
            },
            margin=0.1,
            about="The model describes frames that it does not hear by vectors. The "
            "squared error of a model that always answers with the mean of all vectors "
            "is 100 %. Only what lies below that line was learned from the music "
            "around the gap.",
        ),
        "error": Measure(
            "Masked squared error, mean over values",
            references={
                "variance": Reference("a constant model", "a constant\nmodel: {:.2f}")
            },
        ),
        "visible_relative_error": Measure(
            "Error of visible frames, share of the variance", "share"
        ),
    }

    def __init__(
        self, features: nn.Module, head: nn.Module, visible_weight: float = 0.0
    ):
        super().__init__()
        check_equal("output_size", "values", features, head)
        if not 0 <= visible_weight < math.inf:
            raise ValueError(f"visible_weight is {visible_weight}: give 0 or more.")
        self.features = features.requires_grad_(False).eval()
        self.head = head
        self.visible_weight = visible_weight

    def check(self, encoder: nn.Module, masking: Masking | None) -> None:
        check_equal("sample_rate", "Hz", self.features, encoder, masking)
        check_equal("frame_rate", "Hz", self.features, encoder, masking)
        check_equal("width", "values", encoder, self.head)

    def forward(self, hearing: Hearing) -> StageOutput:
        """Predicts the vectors of masked frames, and of visible ones if they count."""
        with torch.no_grad():
            vectors, lens = self.features(hearing.wavs, hearing.wav_lens)
        check_computed(vectors, self.features)
        inside = frames_inside(vectors, lens)
        if inside is None:
            inside = torch.ones_like(vectors[..., 0], dtype=torch.bool)
        hidden, vectors, kinds = frames_that_count(
            hearing, vectors.float(), inside, self.visible_weight
        )
        errors = (self.head(hidden).float() - vectors).square().mean(1)
        loss, sums, weights = weighted_loss(errors, kinds, self.visible_weight)
        totals = {}
        for kind, these in kinds.items():
            sums[f"{kind}error"] = (errors.detach() * these).sum()
            weights[f"{kind}error"] = these.float().sum()
            if not self.training:  # checkpoints are made in training, and stay small
                precise = vectors[these].to(most_precise(vectors.device))
                totals[f"{kind}frames"] = these.sum()
                totals[f"{kind}vector_sum"] = precise.sum(0)
                totals[f"{kind}vector_squares"] = precise.square().sum(0)
        return StageOutput(loss, sums, weights, totals)

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """What a constant model reaches, and how much of its error is left.

        ``variance`` is its squared error, ``relative_error`` the share of that which is
        left, of both kinds of frames; neither is there if all vectors are the same.
        ``random_target`` names untrained parts of the features, if there are any.
        """
        random = untrained_parts(self.features)
        found = {"random_target": ", ".join(random)} if random else {}
        for kind in ("", "visible_"):
            if not totals.get(f"{kind}frames"):
                continue
            frames = totals[f"{kind}frames"]
            mean = totals[f"{kind}vector_sum"] / frames
            power = float((totals[f"{kind}vector_squares"] / frames).mean())
            variance = power - float(mean.square().mean())
            if variance > ROUNDING * power:
                found[f"{kind}variance"] = variance
                found[f"{kind}relative_error"] = means[f"{kind}error"] / variance
                found["constant"] = 1.0
        return found
