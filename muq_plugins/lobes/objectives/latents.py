"""Latents of the model itself, and their regression: what data2vec asks."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    directions,
    frames_that_count,
    weighted_loss,
)


class LatentRegression(Objective):
    """What would a slower copy of the model make of the whole clip? (arXiv 2202.03555)

    The teacher is the encoder as it was a while ago: after each update its weights
    move a small step towards the encoder's. It hears the clip unmasked. The target of
    a frame is the mean over its last layers, each of which is first normalised over
    the frames of a clip (every dimension has mean 0 and variance 1, as data2vec does
    with audio). A linear head predicts it from what the encoder makes of the masked
    clip. JEPA and M2D regress latents of such a teacher as well; they differ in that
    their encoder is given the visible parts alone, and a predictor the places.

    The error of a frame is the mean over dimensions (data2vec: their sum, divided by
    the square root of their number), and a layer is what comes out of it (data2vec:
    its feed-forward part alone).

    Nothing in the loss keeps all targets from becoming the same. So it is measured:
    how far targets and predictions spread, and over how many directions (RankMe,
    arXiv 2210.02885).

    Arguments
    ---------
    encoder : nn.Module
        Any module that follows the Encoder contract; it is copied, not kept.
    top_layers : int
        How many of its last layers are averaged.
    decay_start, decay_end : float
        What the teacher keeps of itself at an update, at first and from
        ``decay_updates`` on; linear in between.
    decay_updates : int
        See there.
    visible_weight : float
        What a frame that is not masked counts in the loss; 0 for nothing.
    beta : float
        Errors below it are squared, those above are linear (smooth L1); 0 squares all,
        as data2vec does with audio.

    Raises
    ------
    ValueError
        If a number is out of range, or the encoder has fewer layers.

    Example
    -------
    >>> from muq_plugins.lobes import BlockMasking, MuQEncoder, Pretraining
    >>> encoder = MuQEncoder(32, 1, num_heads=4, ffn_width=64, conv_channels=4)
    >>> latents = LatentRegression(encoder, top_layers=1)
    >>> stage = Pretraining(BlockMasking(), encoder, {"latents": latents})
    >>> sorted(stage(torch.randn(2, 24000)).sums)
    ['constant_error', 'error', 'loss']
    """

    frozen = ("teacher",)
    measures = {
        "error": Measure(
            "Masked error of the latents, mean over dimensions",
            references={
                "constant_error": Reference(
                    "a constant answer", "a constant\nanswer: {:.2f}"
                )
            },
            margin=0.10,
            moving=True,
            about="The model predicts what its slower copy makes of frames that it "
            "does not hear itself. Each dimension is normalised over a clip, so that "
            "answering always with the mean is an error of the variance that is left "
            "in the average of several layers. As the copy learns, too, its targets "
            "become others, and the error may rise. Where they spread over nothing "
            "but a few directions, a small error says little.",
        ),
        "visible_error": Measure("Error of visible frames, mean over dimensions"),
        "target_spread": Measure(
            "Spread of the targets, standard deviation",
            better=+1,
            limit=0.1,
            beyond="the targets have collapsed: all frames are alike to the teacher",
        ),
        "prediction_spread": Measure(
            "Spread of the predictions, standard deviation",
            better=+1,
            limit=0.01,
            beyond="the predictions hardly differ: the same is answered everywhere",
        ),
        "rank": Measure(
            "RankMe of the targets, share of the dimensions",
            "share",
            better=+1,
            limit=0.1,
            beyond="the targets have collapsed into few directions",
        ),
    }

    def __init__(
        self,
        encoder: nn.Module,
        top_layers: int = 8,
        decay_start: float = 0.999,
        decay_end: float = 0.9999,
        decay_updates: int = 30000,
        visible_weight: float = 0.0,
        beta: float = 0.0,
    ):
        super().__init__()
        if not 1 <= top_layers <= encoder.num_layers:
            raise ValueError(
                f"top_layers is {top_layers}, but {type(encoder).__name__} has "
                f"{encoder.num_layers} layers: give 1 to {encoder.num_layers}."
            )
        if not 0 <= decay_start <= decay_end <= 1:
            raise ValueError(
                f"decay_start is {decay_start} and decay_end {decay_end}: give shares, "
                f"0 to 1, the second not below the first."
            )
        if decay_updates < 1:
            raise ValueError(f"decay_updates is {decay_updates}: give 1 or more.")
        for name, value in (("visible_weight", visible_weight), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}: give 0 or more.")
        self.teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.head = Linear(encoder.width, encoder.width)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.top_layers = top_layers
        self.decays = decay_start, decay_end
        self.decay_updates = decay_updates
        self.visible_weight = visible_weight
        self.beta = beta

    def check(self, encoder: nn.Module, masking: Masking | None) -> None:
        """Refuses an encoder that the teacher is no copy of; see `Objective.check`."""
        check_equal("sample_rate", "Hz", encoder, masking)
        check_equal("frame_rate", "Hz", encoder, masking)
        check_equal("width", "values", encoder, self.teacher)
        ours, its = (
            {name: value.shape for name, value in part.state_dict().items()}
            for part in (self.teacher, encoder)
        )
        if type(encoder) is not type(self.teacher) or ours != its:
            raise ValueError(
                f"The teacher of {type(self).__name__} is a copy of another "
                f"{type(self.teacher).__name__} than the {type(encoder).__name__} that "
                f"learns: give both the same encoder."
            )

    def forward(self, hearing: Hearing) -> StageOutput:
        """Predicts the latents of masked frames, and of visible ones if they count."""
        hidden, targets, kinds = frames_that_count(
            hearing, *self.targets(hearing), self.visible_weight
        )
        predictions = self.head(hidden).float()
        errors = self._error(predictions, targets)
        loss, sums, weights = weighted_loss(errors, kinds, self.visible_weight)
        for kind, frames in kinds.items():
            sums[f"{kind}error"] = (errors.detach() * frames).sum()
            weights[f"{kind}error"] = frames.float().sum()
        masked = kinds[""]
        constant = self._error(torch.zeros_like(targets), targets)
        sums["constant_error"] = (constant * masked).sum()
        weights["constant_error"] = weights["error"]
        totals = {}
        if not self.training:
            precision = most_precise(targets.device)
            kept = (x.detach()[masked] for x in (predictions, targets))
            said, asked = (x.to(precision) for x in kept)
            totals = {
                "frames": masked.sum(),
                "target_sum": asked.sum(0),
                "target_products": asked.T @ asked,
                "prediction_sum": said.sum(0),
                "prediction_squares": said.square().sum(0),
            }
        return StageOutput(loss, sums, weights, totals)

    @torch.no_grad()
    def targets(self, hearing: Hearing) -> tuple[Tensor, Tensor]:
        """What the teacher makes of a batch.

        Arguments
        ---------
        hearing : Hearing
            The batch.

        Returns
        -------
        targets : Tensor
            (batch, frames, width), float32.
        inside : Tensor
            Boolean (batch, frames): the frames of the clips.
        """
        # The encoder's running statistics, as they are now, on every process.
        for own, its in zip(
            self.teacher.buffers(), hearing.encoder.buffers(), strict=True
        ):
            own.copy_(its)
        out = self.teacher(hearing.wavs, hearing.wav_lens)
        layers = torch.stack(out.hidden_states[-self.top_layers :]).float()
        inside = frames_inside(layers[0], out.lens)
        if inside is None:
            inside = torch.ones_like(layers[0, ..., 0], dtype=torch.bool)
        share = inside / inside.sum(1, keepdim=True).clamp(min=1)
        share = share[..., None]
        centred = layers - (layers * share).sum(2, keepdim=True)
        variance = (centred.square() * share).sum(2, keepdim=True)
        return (centred / (variance + 1e-5).sqrt()).mean(0), inside

    def _error(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Of each frame (frames,)."""
        if self.beta == 0:
            return F.mse_loss(predictions, targets, reduction="none").mean(1)
        errors = F.smooth_l1_loss(
            predictions, targets, reduction="none", beta=self.beta
        )
        return errors.mean(1)

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """How far targets and predictions spread, and over how many directions.

        ``target_spread`` and ``prediction_spread`` are standard deviations, ``rank`` is
        the number of directions as a share of the width.
        """
        frames = totals["frames"].clamp(min=1)
        asked = totals["target_products"].diagonal() / frames
        said = totals["prediction_squares"] / frames
        spread = (totals["frames"], totals["target_sum"], totals["target_products"])
        return {
            "target_spread": _spread(asked - (totals["target_sum"] / frames).square()),
            "prediction_spread": _spread(
                said - (totals["prediction_sum"] / frames).square()
            ),
            "rank": directions(*spread),
        }

    def decay(self) -> float:
        """What the teacher keeps of itself at the newest update.

        Returns
        -------
        float
            From ``decay_start`` to ``decay_end``.
        """
        start, end = self.decays
        left = max(0.0, 1 - int(self.updates) / self.decay_updates)
        return end - (end - start) * left

    @torch.no_grad()
    def after_update(self, encoder: nn.Module) -> None:
        """Moves the teacher towards the encoder."""
        self.updates += 1
        own, its = list(self.teacher.parameters()), list(encoder.parameters())
        torch._foreach_lerp_(own, its, 1 - self.decay())


def _spread(variances: Tensor) -> float:
    """The standard deviation, mean over dimensions."""
    return float(variances.clamp(min=0).sqrt().mean())
