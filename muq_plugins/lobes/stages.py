"""One module per training stage: all that a Brain or another loop must know."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.lobes.codes import count_codes, use_of_codes
from muq_plugins.lobes.finite import check_computed
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.masking import Masking
from muq_plugins.lobes.objectives.base import Hearing, Measure, Objective, StageOutput
from muq_plugins.lobes.objectives.codes import CodePrediction
from muq_plugins.lobes.quantizers.base import Quantizer
from muq_plugins.lobes.target import Crops

logger = logging.getLogger(__name__)

# Keys of clips that have none are drawn below it: seeds of generators are int64.
LARGEST_KEY = 2**62


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
    >>> out.totals["code_counts"].sum(dim=1)
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

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that it takes, in Hz."""
        return self.features.sample_rate

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """How each codebook is used.

        Arguments
        ---------
        means : dict
            Unused.
        totals : dict
            ``code_counts``: how often each entry was chosen (N, V).

        Returns
        -------
        dict
            ``usage``, ``perplexity`` and ``dead_codes``, one number per codebook.
        """
        return use_of_codes(totals["code_counts"])

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

    def compile(self, **options: Any) -> None:
        """Compiles nothing: spectra take most of the time, and compilers leave them.

        Arguments
        ---------
        **options : Any
            As for ``torch.compile``.
        """

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
        feats, frames = feats.flatten(0, 1), feats.shape[1]
        if lengths is None:
            return feats
        # Where the lengths are: on the CPU, how many there are is known at once.
        own = length_mask(lengths, frames, lengths.device).flatten().nonzero()[:, 0]
        return feats[own.to(feats.device, non_blocking=True)]

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
        frames = torch.full((), float(len(feats)), device=feats.device)
        means = {
            "loss": loss.detach(),
            "reconstruction_error": error.detach(),
            "reconstruction_error_per_level": out.level_errors,
            **out.terms,
        }
        counts = count_codes(out.codes, self.quantizer.codebook_size)
        return StageOutput(
            loss=loss,
            sums={name: mean * frames for name, mean in means.items()},
            weights=dict.fromkeys(means, frames),
            totals={"code_counts": counts},
        )

    def after_update(self) -> None:
        """Tells the quantizer that the optimizer has made an update."""
        self.quantizer.after_update()


class Pretraining(nn.Module):
    """Stage *pretrain*: an encoder learns from what one or several objectives ask.

    The loss is the weighted sum of theirs. With one objective all numbers have its
    names; with several, ``name/`` stands before those of each, and ``loss`` is the sum.

    Arguments
    ---------
    masking : Masking or None
        ``out, mask = masking.encode(encoder, wavs, wav_lens, clip_keys)``; None for
        objectives that do not ask about masked music.
    encoder : nn.Module
        Any module that follows the Encoder contract; ``masking.check(encoder)``
        says whether it offers what the masking needs.
    objectives : mapping
        Name to `Objective`; at least one.
    weights : mapping or None
        Name to what an objective counts in the loss; 1 for those left out.

    Raises
    ------
    ValueError
        If there is no objective, parts do not fit together, or a weight is negative,
        not finite, or of no objective.

    Example
    -------
    >>> from muq_plugins.lobes import (
    ...     BlockMasking, CodePrediction, LogMel, MuQEncoder, MultiCodebookHead,
    ...     RandomProjection, StackedFrames, Target,
    ... )
    >>> target = Target(StackedFrames(LogMel()), RandomProjection(512, 2, 64))
    >>> stage = Pretraining(
    ...     BlockMasking(),
    ...     MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4),
    ...     {"codes": CodePrediction(target, MultiCodebookHead(32, 2, 64))},
    ... )
    >>> out = stage(torch.randn(2, 24000))
    >>> out.sums["accuracy_per_codebook"].shape
    torch.Size([2])
    """

    def __init__(
        self,
        masking: Masking | None,
        encoder: nn.Module,
        objectives: Mapping[str, Objective],
        weights: Mapping[str, float] | None = None,
    ):
        super().__init__()
        if not objectives:
            raise ValueError("A pre-training needs at least one objective.")
        learning = [parameter.requires_grad for parameter in encoder.parameters()]
        if learning and not any(learning):
            logger.warning(
                f"The {type(encoder).__name__} is frozen, so that in a training "
                f"nothing but heads would learn: call its requires_grad_(). "
                f"MuQ.from_pretrained gives encoders frozen."
            )
        if masking is not None:
            masking.check(encoder)
        for name, objective in objectives.items():
            if not name.isidentifier():
                raise ValueError(
                    f"{name!r}: the name of an objective has letters, digits and "
                    f"underscores alone."
                )
            if masking is None and objective.listens_to_masked:
                raise ValueError(
                    f"{type(objective).__name__} ({name}) asks about masked music, but "
                    f"there is no masking: set one."
                )
            objective.check(encoder, masking)
        for name, weight in (weights or {}).items():
            if name not in objectives:
                raise ValueError(
                    f"weights has {name!r}, but the objectives are "
                    f"{', '.join(objectives)}."
                )
            if not 0 <= weight < float("inf"):
                raise ValueError(f"The weight of {name} is {weight}: give 0 or more.")
        self.masking = masking
        self.encoder = encoder
        self.objectives = nn.ModuleDict(objectives)
        self.weights = {name: (weights or {}).get(name, 1.0) for name in objectives}

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that it takes, in Hz."""
        return self.encoder.sample_rate

    def _prefixes(self) -> dict[str, Objective]:
        """The objectives, by what stands before the names of their numbers."""
        alone = len(self.objectives) == 1
        parts = self.objectives.items()
        return {"" if alone else f"{name}/": part for name, part in parts}

    def compile(self, **options: Any) -> None:
        """Compiles the encoder, nearly all of the work.

        Arguments
        ---------
        **options : Any
            As for ``torch.compile``.
        """
        self.encoder.compile(**options)

    def replace_target(self, target: nn.Module, labelled: nn.Module) -> None:
        """Has objectives look up what they would compute.

        Arguments
        ---------
        target : nn.Module
            The target of some of the objectives.
        labelled : nn.Module
            Takes its place in these.
        """
        for part in list(self.objectives.modules()):  # a target may be resampled
            if getattr(part, "target", None) is target:
                part.target = labelled

    @property
    def fewest_clips(self) -> int:
        """That a batch must have."""
        return max(objective.fewest_clips for objective in self.objectives.values())

    @property
    def measures(self) -> dict[str, Measure]:
        """What its numbers mean, by the names that they have."""
        return {
            prefix + name: measure._replace(
                references={prefix + k: v for k, v in measure.references.items()}
            )
            for prefix, objective in self._prefixes().items()
            for name, measure in objective.measures.items()
        }

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        clip_keys: Tensor | None = None,
        crops: Crops | None = None,
    ) -> StageOutput:
        """Has all objectives ask about a batch.

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
            Loss and statistics of all objectives.
        """
        if clip_keys is None:
            clip_keys = torch.randint(LARGEST_KEY, (len(wavs),))
        if wav_lens is None:  # on the CPU, where it costs nothing to look at them
            wav_lens = torch.ones(len(wavs))
        hearing = Hearing(self.encoder, self.masking, wavs, wav_lens, clip_keys, crops)
        answers = {
            prefix: objective(hearing) for prefix, objective in self._prefixes().items()
        }
        weighted = zip(self.weights.values(), answers.values(), strict=True)
        together = StageOutput(
            sum(weight * out.loss for weight, out in weighted), {}, {}
        )
        if len(answers) > 1:
            clips = torch.full((), float(len(wavs)), device=wavs.device)
            together.sums["loss"] = together.loss.detach() * clips
            together.weights["loss"] = clips
        for prefix, out in answers.items():
            for part in ("sums", "weights", "totals"):
                named = {prefix + k: v for k, v in getattr(out, part).items()}
                getattr(together, part).update(named)
        return together

    def summary(self, means: dict, totals: dict[str, Tensor]) -> dict:
        """What all objectives say about themselves; see `Objective.summary`.

        Arguments
        ---------
        means : dict
            Name to number or list of numbers: the sums by their weights.
        totals : dict
            As in `StageOutput`, of all batches.

        Returns
        -------
        dict
            Name to number, list of numbers or text.
        """
        found = {}
        for prefix, objective in self._prefixes().items():
            own = [
                {
                    name.removeprefix(prefix): value
                    for name, value in numbers.items()
                    if name.startswith(prefix)
                }
                for numbers in (means, totals)
            ]
            said = objective.summary(*own)
            found |= {prefix + name: value for name, value in said.items()}
        return found

    @property
    def follows_updates(self) -> bool:
        """Whether an objective has anything to do after an update."""
        return any(
            type(objective).after_update is not Objective.after_update
            for objective in self.objectives.values()
        )

    def after_update(self) -> None:
        """Tells the objectives that the optimizer has made an update."""
        for objective in self.objectives.values():
            objective.after_update(self.encoder)


class MaskedPrediction(Pretraining):
    """Stage *pretrain* with one objective: predict the codes of what was masked.

    ``loss = cross-entropy(head(encoder(mask(wavs))), target(wavs))``: `Pretraining`
    with a `CodePrediction`. Where in the encoder the mask comes is up to the masking,
    which has the encoder listen to what it left of a batch.

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
    level_weights : sequence of float or None
        What each codebook counts in the loss; None for all the same.

    Raises
    ------
    ValueError
        If rates or sizes of the parts do not fit, both parts are named; if a weight
        is negative or not finite.

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

    def __init__(
        self,
        masking: Masking,
        target: nn.Module,
        encoder: nn.Module,
        head: nn.Module,
        visible_weight: float = 0.0,
        level_weights: Sequence[float] | None = None,
    ):
        codes = CodePrediction(target, head, visible_weight, level_weights)
        super().__init__(masking, encoder, {"codes": codes})
        # Checkpoints of before objectives were parts have these two by themselves.
        self.register_load_state_dict_pre_hook(_under_objective)


def _under_objective(module, state_dict, prefix, *others) -> None:
    """Puts the weights of a target and a head where they belong now."""
    for name in list(state_dict):
        if name.startswith((f"{prefix}target.", f"{prefix}head.")):
            place = f"{prefix}objectives.codes.{name.removeprefix(prefix)}"
            state_dict[place] = state_dict.pop(name)
