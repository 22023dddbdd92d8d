"""Codes, and cross-entropy: what MuQ, BEST-RQ and HuBERT ask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes import codes as statistics
from muq_plugins.lobes.codes import count_codes
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
from muq_plugins.lobes.target import PADDING_CODE, untrained_parts


class MultiCodebookHead(nn.Module):
    """One linear layer that predicts an entry of each codebook.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    num_codebooks : int
        Number of codebooks N.
    codebook_size : int
        Entries of each codebook V.

    Example
    -------
    >>> import torch
    >>> head = MultiCodebookHead(32, num_codebooks=8, codebook_size=1024)
    >>> head(torch.randn(7, 32)).shape
    torch.Size([7, 8, 1024])
    """

    def __init__(self, width: int, num_codebooks: int, codebook_size: int):
        super().__init__()
        self.width = width
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.linear = Linear(width, num_codebooks * codebook_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Predicts.

        Arguments
        ---------
        hidden : Tensor
            Hidden states (..., width), of the masked frames only.

        Returns
        -------
        Tensor
            Logits (..., N, V).
        """
        logits = self.linear(hidden)
        return logits.unflatten(-1, (self.num_codebooks, self.codebook_size))


class CodePrediction(Objective):
    """Which codes do the frames have?

    The loss is the cross-entropy, the mean over frames and codebooks, where a masked
    frame counts 1 and a visible one ``visible_weight``.

    With a weight of 0 nothing but masked frames is scored, as in MuQ (arXiv
    2501.01108) and HuBERT (arXiv 2106.07447), whose recipe has this weight too: it
    was best for its large models. What is read off an encoder later, however, are
    frames that it hears. A small model in a short training learns much faster to
    describe these, and to predict the masked ones, when it is asked for both.

    Arguments
    ---------
    target : nn.Module
        ``codes = target(wavs, wav_lens, crops)``. It is frozen.
    head : nn.Module
        Logits (frames, N, V) from hidden states (frames, width).
    visible_weight : float
        What a frame that is not masked counts in the loss; 0 for nothing.
    level_weights : sequence of float or None
        What each codebook counts in the loss beside the others; None for all the
        same, as in MuQ. Reported numbers leave it out.

    Raises
    ------
    ValueError
        If target and head do not fit, or a weight is negative or not finite.

    Example
    -------
    >>> import torch
    >>> from muq_plugins.lobes import (
    ...     BlockMasking, LogMel, MuQEncoder, Pretraining, RandomProjection,
    ...     StackedFrames, Target,
    ... )
    >>> def asked(size):
    ...     target = Target(StackedFrames(LogMel()), RandomProjection(512, 2, size))
    ...     return CodePrediction(target, MultiCodebookHead(32, 2, size))
    >>> stage = Pretraining(
    ...     BlockMasking(),
    ...     MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4),
    ...     {"coarse": asked(16), "fine": asked(256)},
    ...     weights={"fine": 0.5},
    ... )
    >>> [name for name in stage(torch.randn(2, 24000)).sums if name.endswith("/loss")]
    ['coarse/loss', 'fine/loss']
    """

    frozen = ("target",)
    measures = {
        "cross_entropy": Measure(
            "Masked cross-entropy, mean over codebooks",
            "nat",
            references={
                "chance": Reference("chance (ln V)", "chance\nln V = {:.2f}"),
                "code_entropy": Reference(
                    "a counting model", "a model that\nonly counts\ncodes: {:.2f}"
                ),
            },
            margin=0.30,
            about="The model names the codes of frames that it does not hear. Guessing "
            "costs ln V nats a code. A model that knows how often each code occurs, "
            "and nothing else, pays the entropy of the codes. Only what lies below "
            "that line was learned from the music around the gap.",
        ),
        "accuracy": Measure("Masked accuracy", "share", better=+1),
        "visible_cross_entropy": Measure(
            "Cross-entropy of visible frames, mean over codebooks", "nat"
        ),
        "visible_accuracy": Measure("Accuracy of visible frames", "share", better=+1),
    }

    def __init__(
        self,
        target: nn.Module,
        head: nn.Module,
        visible_weight: float = 0.0,
        level_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        check_equal("num_codebooks", "codebooks", target, head)
        check_equal("codebook_size", "entries", target, head)
        if not 0 <= visible_weight < math.inf:
            raise ValueError(f"visible_weight is {visible_weight}: give 0 or more.")
        if level_weights is not None and (
            len(level_weights) != target.num_codebooks
            or not all(0 <= weight < math.inf for weight in level_weights)
            or not sum(level_weights)
        ):
            raise ValueError(
                f"level_weights is {list(level_weights)}: give a number of 0 or more "
                f"for each of the {target.num_codebooks} codebooks, not all 0."
            )
        self.target = target.requires_grad_(False).eval()
        self.head = head
        self.visible_weight = visible_weight
        self.level_weights = level_weights

    def check(self, encoder: nn.Module, masking: Masking | None) -> None:
        check_equal("sample_rate", "Hz", self.target, encoder, masking)
        check_equal("frame_rate", "Hz", self.target, encoder, masking)
        check_equal("width", "values", encoder, self.head)

    def forward(self, hearing: Hearing) -> StageOutput:
        """Predicts the codes of masked frames, and of visible ones if they count."""
        codes = self.target(hearing.wavs, hearing.wav_lens, hearing.crops)
        inside = codes[..., 0] != PADDING_CODE
        hidden, codes, kinds = frames_that_count(
            hearing, codes, inside, self.visible_weight
        )
        logits = self.head(hidden)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1),
            codes.flatten(),
            ignore_index=PADDING_CODE,
            reduction="none",
        ).view(codes.shape)
        loss, sums, weights = weighted_loss(
            self._of_frames(losses), kinds, self.visible_weight
        )
        hits = (logits.detach().argmax(dim=-1) == codes).float()
        values = {"cross_entropy": losses.detach(), "accuracy": hits}
        for kind, frames in kinds.items():
            found = {}
            for name, value in values.items():
                per_codebook = (value * frames[:, None]).sum(0)
                found[kind + name] = per_codebook.mean()
                found[f"{kind}{name}_per_codebook"] = per_codebook
            sums |= found
            weights |= dict.fromkeys(found, frames.float().sum())
        counts = count_codes(codes, self.target.codebook_size, kinds[""])
        return StageOutput(loss, sums, weights, {"code_counts": counts})

    def _of_frames(self, losses: Tensor) -> Tensor:
        """The loss of each frame, of those (frames, N) of its codes."""
        if self.level_weights is None:
            return losses.mean(1)
        weights = torch.tensor(self.level_weights, dtype=losses.dtype)
        weights = weights.to(losses.device, non_blocking=True)
        with torch.autocast(losses.device.type, enabled=False):
            return losses @ (weights / weights.sum())

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """What counts of codes say: the losses of models that learn nothing.

        The entropy of the codes' own frequencies (``code_counts``) is the cross-entropy
        of a model that has only counted; the logarithm of the codebook size is that of
        one that has not even done that. ``random_target`` names parts of the target
        with random weights, if there are any.
        """
        counts = totals.get("code_counts")
        if counts is None or not counts.any():
            raise ValueError(
                "No frame of this part of the music was masked, so nothing was asked "
                "about: it needs more music, or clips that are longer."
            )
        entropy = statistics.entropy(counts)
        random = untrained_parts(self.target)
        named = {"random_target": ", ".join(random)} if random else {}
        return {
            **named,
            "code_entropy": float(entropy.mean()),
            "code_entropy_per_codebook": entropy.tolist(),
            "chance": math.log(counts.shape[1]),
        }
