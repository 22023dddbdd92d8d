"""One module per training stage: all that a Brain or another loop must know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes import codes as statistics
from muq_plugins.lobes.codes import count_codes
from muq_plugins.lobes.finite import check_computed
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.linear import Linear
from muq_plugins.lobes.masking import Masking
from muq_plugins.lobes.quantizers.base import Quantizer
from muq_plugins.lobes.target import PADDING_CODE, Crops, untrained_parts


@dataclass
class StageOutput:
    """What a stage says about a batch.

    Statistics are sums with the weight they were summed over, so that batches,
    and the shares of several processes, add up to exact means.

    Arguments
    ---------
    loss : Tensor
        Scalar to minimise.
    sums : dict
        Name to sum: a scalar, or (N,) per codebook. Detached.
    weights : dict
        Name to the scalar weight of that sum. Detached.
    code_counts : Tensor or None
        How often each entry occurred (N, V) int64; None for a stage without codes.

    Example
    -------
    >>> one = torch.ones(())
    >>> out = StageOutput(one, {"loss": one}, {"loss": one}, torch.zeros(8, 1024))
    >>> out.code_counts.shape
    torch.Size([8, 1024])
    """

    loss: Tensor
    sums: dict[str, Tensor]
    weights: dict[str, Tensor]
    code_counts: Tensor | None = None


class Measure(NamedTuple):
    """What a number of a stage means, for whoever shows it."""

    title: str  # what it is, as the title of a chart
    unit: str = ""  # its unit; empty for none
    better: int = -1  # -1 if lower is better, +1 if higher is
    # numbers of the same row that give it a meaning, such as "chance"
    references: Mapping[str, str] = {}


# Keys of clips that have none are drawn below it: seeds of generators are int64.
LARGEST_KEY = 2**62
# An untrained model is within 1 % of chance; twice that still is no learning.
CHANCE_MARGIN = 0.02


def is_at_chance(loss: float, chance: float) -> bool:
    """Whether a loss is no better than that of guessing."""
    return loss >= (1 - CHANCE_MARGIN) * chance


class TokenizerTraining(nn.Module):
    """Stage *tokenizer*: a quantizer learns to reconstruct features.

    The loss is the quantizer's own plus the mean absolute error of the
    reconstruction (Mel-RVQ, arXiv 2501.01108).

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract.
    quantizer : Quantizer
        The quantizer to train.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames
    >>> stage = TokenizerTraining(StackedFrames(LogMel()), ResidualVQ(512, 2, 64))
    >>> out = stage(torch.randn(2, 24000))
    >>> out.code_counts.sum(dim=1)
    tensor([50, 50])
    """

    measures = {
        "reconstruction_error": Measure("Reconstruction error (L1)"),
        "commitment_loss": Measure("Commitment loss"),
        "codebook_loss": Measure("Codebook loss"),
    }

    def __init__(self, features: nn.Module, quantizer: Quantizer):
        super().__init__()
        self.features = features
        self.quantizer = quantizer

    @staticmethod
    def summary(counts: Tensor) -> dict:
        """What counts of codes (N, V) say: how each codebook is used.

        Arguments
        ---------
        counts : Tensor
            How often each entry was chosen (N, V).

        Returns
        -------
        dict
            Name to number or list of numbers.

        Example
        -------
        >>> TokenizerTraining.summary(torch.tensor([[2, 2, 0, 0]]))["dead_codes"]
        [2]
        """
        return {
            "usage": statistics.usage(counts).tolist(),
            "perplexity": statistics.perplexity(counts).tolist(),
            "dead_codes": statistics.dead_codes(counts).tolist(),
        }

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        clip_keys: Tensor | None = None,
        crops: Crops | None = None,
    ) -> StageOutput:
        """Quantizes a batch.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        clip_keys : Tensor or None
            (batch,) int64; this stage draws no random numbers.
        crops : Crops or None
            Which crops these are; this stage need not know.

        Returns
        -------
        StageOutput
            Loss and statistics over the clips' own frames.
        """
        return self.quantize(self.own_frames(wavs, wav_lens))

    @torch.no_grad()
    def own_frames(self, wavs: Tensor, wav_lens: Tensor | None) -> Tensor:
        """Computes the feature vectors that are not padding.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            (frames of all clips, size).
        """
        feats, lens = self.features(wavs, wav_lens)
        check_computed(feats, self.features)
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        mask = length_mask(lengths, feats.shape[1])
        return feats.flatten(0, 1) if mask is None else feats[mask]

    def quantize(self, feats: Tensor) -> StageOutput:
        """Quantizes feature vectors.

        Arguments
        ---------
        feats : Tensor
            (frames, size).

        Returns
        -------
        StageOutput
            Loss and statistics.
        """
        out = self.quantizer(feats)
        error = (feats - out.quantized).abs().mean()
        loss = error + out.loss
        frames = torch.tensor(float(len(feats)), device=feats.device)
        means = {
            "loss": loss.detach(),
            "reconstruction_error": error.detach(),
            "reconstruction_error_per_level": out.level_errors,
            **out.terms,
        }
        return StageOutput(
            loss=loss,
            sums={name: mean * frames for name, mean in means.items()},
            weights=dict.fromkeys(means, frames),
            code_counts=count_codes(out.codes, self.quantizer.codebook_size),
        )

    def after_update(self) -> None:
        """Tells the quantizer that the optimizer has made an update."""
        self.quantizer.after_update()


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


class MaskedPrediction(nn.Module):
    """Stage *pretrain*: predict the codes of what was masked.

    ``loss = cross-entropy(head(encoder(mask(wavs))), target(wavs))``, the mean
    over frames and codebooks, where a masked frame counts 1 and a visible one
    ``visible_weight``. Where in the encoder the mask comes is up to the masking, which
    has the encoder listen to what it left of a batch.

    With a weight of 0 nothing but masked frames is scored, as in MuQ (arXiv
    2501.01108) and HuBERT (arXiv 2106.07447), whose recipe has this weight too: it
    was best for its large models. What is read off an encoder later, however, are
    frames that it hears. A small model in a short training learns much faster to
    describe these, and to predict the masked ones, when it is asked for both.

    Arguments
    ---------
    masking : Masking
        ``out, mask = masking.encode(encoder, wavs, wav_lens, clip_keys)``.
    target : nn.Module
        ``codes = target(wavs, wav_lens, crops)``, frozen.
    encoder : nn.Module
        Any module that follows the Encoder contract; ``masking.check(encoder)``
        says whether it offers what the masking needs.
    head : nn.Module
        Logits (frames, N, V) from hidden states (frames, width).
    visible_weight : float
        What a frame that is not masked counts in the loss; 0 for nothing.

    Raises
    ------
    ValueError
        If rates or sizes of the parts do not fit, both parts are named; if
        ``visible_weight`` is negative or not finite.

    Example
    -------
    >>> from muq_plugins.lobes import (
    ...     BlockMasking, LogMel, MuQEncoder, MultiCodebookHead, RandomProjection,
    ...     StackedFrames, Target,
    ... )
    >>> stage = MaskedPrediction(
    ...     BlockMasking(),
    ...     Target(StackedFrames(LogMel()), RandomProjection(512, 2, 64)),
    ...     MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4),
    ...     MultiCodebookHead(32, 2, 64),
    ... )
    >>> out = stage(torch.randn(2, 24000))
    >>> out.sums["accuracy_per_codebook"].shape
    torch.Size([2])
    """

    measures = {
        "cross_entropy": Measure(
            "Masked cross-entropy, mean over codebooks",
            "nats",
            references={
                "chance": "chance\nln V = {:.2f}",
                "code_entropy": "a model that\nonly counts\ncodes: {:.2f}",
            },
        ),
        "accuracy": Measure("Masked accuracy", "share", better=+1),
        "visible_cross_entropy": Measure(
            "Cross-entropy of visible frames, mean over codebooks", "nats"
        ),
        "visible_accuracy": Measure("Accuracy of visible frames", "share", better=+1),
    }

    def __init__(
        self,
        masking: Masking,
        target: nn.Module,
        encoder: nn.Module,
        head: nn.Module,
        visible_weight: float = 0.0,
    ):
        super().__init__()
        _check_equal("sample_rate", "Hz", target, encoder, masking)
        _check_equal("frame_rate", "Hz", target, encoder, masking)
        _check_equal("num_codebooks", "codebooks", target, head)
        _check_equal("codebook_size", "entries", target, head)
        _check_equal("width", "values", encoder, head)
        masking.check(encoder)
        if not 0 <= visible_weight < math.inf:
            raise ValueError(f"visible_weight is {visible_weight}: give 0 or more.")
        self.masking = masking
        self.target = target
        self.encoder = encoder
        self.head = head
        self.visible_weight = visible_weight

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        clip_keys: Tensor | None = None,
        crops: Crops | None = None,
    ) -> StageOutput:
        """Masks, encodes, predicts.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        clip_keys : Tensor or None
            (batch,) int64: what is masked depends on them alone. None draws them from
            the global random state, so that each call masks something else.
        crops : Crops or None
            Which crops these are, for targets that look their codes up.

        Returns
        -------
        StageOutput
            Loss and statistics over masked frames inside the clips.
        """
        if clip_keys is None:
            clip_keys = torch.randint(LARGEST_KEY, (len(wavs),))
        codes = self.target(wavs, wav_lens, crops)
        out, mask = self.masking.encode(self.encoder, wavs, wav_lens, clip_keys)
        hidden = out.last_hidden_state
        # A clip may end inside its last frame, which not all parts round alike.
        frames = min(codes.shape[1], mask.shape[1], hidden.shape[1])
        codes, mask, hidden = codes[:, :frames], mask[:, :frames], hidden[:, :frames]
        inside = codes[..., 0] != PADDING_CODE
        scored = inside if self.visible_weight else inside & mask

        logits, codes, masked = self.head(hidden[scored]), codes[scored], mask[scored]
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), codes.flatten(), reduction="none"
        ).view(codes.shape)
        counted = torch.where(masked, 1.0, self.visible_weight)
        total, weight = (losses.mean(1) * counted).sum(), counted.sum()
        # By chance nothing may be scored: then there is nothing to learn, but the
        # graph must stay whole for the processes that did score something.
        loss = total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
        hits = (logits.detach().argmax(dim=-1) == codes).float()
        sums, weights = {"loss": total.detach()}, {"loss": weight}
        kinds = {"": masked, **({"visible_": ~masked} if self.visible_weight else {})}
        values = {"cross_entropy": losses.detach(), "accuracy": hits}
        for kind, frames in kinds.items():
            found = {}
            for name, value in values.items():
                per_codebook = (value * frames[:, None]).sum(0)
                found[kind + name] = per_codebook.mean()
                found[f"{kind}{name}_per_codebook"] = per_codebook
            sums |= found
            weights |= dict.fromkeys(found, frames.float().sum())
        return StageOutput(
            loss=loss,
            sums=sums,
            weights=weights,
            code_counts=count_codes(codes[masked], self.target.codebook_size),
        )

    def summary(self, counts: Tensor) -> dict:
        """What counts of codes (N, V) say: the losses of models that learn nothing.

        The entropy of the codes' own frequencies is the cross-entropy of a model that
        has only counted; the logarithm of the codebook size is that of one that has
        not even done that. A target with random weights is named.

        Arguments
        ---------
        counts : Tensor
            How often each entry was chosen (N, V).

        Returns
        -------
        dict
            Name to number or list of numbers; ``random_target`` to the names of its
            untrained parts, if there are any.
        """
        entropy = statistics.entropy(counts)
        random = untrained_parts(self.target)
        named = {"random_target": ", ".join(random)} if random else {}
        return {
            **named,
            "code_entropy": float(entropy.mean()),
            "code_entropy_per_codebook": entropy.tolist(),
            "chance": math.log(counts.shape[1]),
        }


def _check_equal(attribute: str, unit: str, *parts: nn.Module) -> None:
    """Refuses parts that do not fit together."""
    first = parts[0]
    for other in parts[1:]:
        expected, found = getattr(first, attribute), getattr(other, attribute)
        if expected != found:
            raise ValueError(
                f"{attribute} differs: {type(first).__name__} has {expected:g} {unit}, "
                f"{type(other).__name__} has {found:g} {unit}. Change one of the two "
                f"in the YAML, or resample explicitly between them."
            )
