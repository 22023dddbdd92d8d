"""The target: what the student has to predict."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from muq_plugins.lobes.finite import check_computed
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.parts import attribute
from muq_plugins.lobes.quantizers.base import Quantizer

PADDING_CODE = -1  # stands in the place of codes beyond the end of a clip
Crops = Sequence[tuple[str, float]]  # id of the clip and begin in seconds, of each


class Frozen(nn.Module):
    """What never trains: `train` leaves it in evaluation mode."""

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode whatever is asked.

        Arguments
        ---------
        mode : bool
            Ignored.

        Returns
        -------
        Frozen
            This module.
        """
        return super().train(False)


class CodeTarget(nn.Module):
    """The Target contract; what follows it need not be of this class.

    ``codes = target(wavs, wav_lens, crops)``, with the attributes ``sample_rate``,
    ``frame_rate``, ``num_codebooks`` and ``codebook_size``.
    """

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        """Computes the codes.

        Arguments
        ---------
        wavs : Tensor
            Clean waveforms (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.
        crops : Crops or None
            Which crops these are, for a target that looks its codes up; those that
            hear the waveforms need not know.

        Returns
        -------
        Tensor
            Codes (batch, frames, num_codebooks) int64; -1 beyond the end of a clip.
        """
        raise NotImplementedError


class Target(CodeTarget, Frozen):
    """Frozen features and quantizer: ``codes = target(wavs, wav_lens)``.

    It never trains: no parameter wants a gradient, so that no optimizer and no
    weight decay can reach it, and `train` leaves it in evaluation mode. The
    tokenizer of the official recipe was not frozen and drifted (its parameters
    decayed by about 63 % over the paper's schedule).

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract.
    quantizer : Quantizer
        Any quantizer for feature vectors of that size.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, RandomProjection, StackedFrames
    >>> target = Target(StackedFrames(LogMel()), RandomProjection(512, 2, 64))
    >>> target(torch.randn(1, 24000)).shape, target.frame_rate
    (torch.Size([1, 25, 2]), 25.0)
    """

    def __init__(self, features: nn.Module, quantizer: Quantizer):
        super().__init__()
        given, wanted = attribute(features, "output_size"), quantizer.input_size
        if given != wanted:
            raise ValueError(
                f"{type(features).__name__} gives vectors of {given} values, but "
                f"{type(quantizer).__name__} quantizes vectors of {wanted}: set "
                f"input_size to {given}."
            )
        self.features = features
        self.quantizer = quantizer
        self.sample_rate = attribute(features, "sample_rate")
        self.frame_rate = attribute(features, "frame_rate")
        self.num_codebooks = quantizer.num_codebooks
        self.codebook_size = quantizer.codebook_size
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        feats, lens = self.features(wavs, wav_lens)
        check_computed(feats, self.features)
        codes = self.quantizer.encode(feats)
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        mask = length_mask(lengths, feats.shape[1], feats.device)
        if mask is not None:
            codes = codes.masked_fill(~mask[..., None], PADDING_CODE)
        return codes


def mark_trained(module: nn.Module) -> None:
    """Notes that the weights of a quantizer are not random any more."""
    for part in module.modules():
        if hasattr(part, "is_trained"):
            part.is_trained = True


def untrained_parts(target: nn.Module) -> list[str]:
    """Classes of the parts of a target whose weights are random, each once."""
    found = [
        type(part).__name__
        for part in target.modules()
        # A part that has parts of this kind says what they say.
        if not getattr(part, "is_trained", True) and not hasattr(part, "quantizer")
    ]
    told = [name for p in target.modules() for name in getattr(p, "untrained", [])]
    return list(dict.fromkeys([*found, *told]))


class ResampledTarget(CodeTarget):
    """Brings the codes of a target to another frame rate, without changing any.

    Of a faster target, the codes of all its frames within a new one stand side by side
    as those of so many more codebooks: EnCodec's 8 codebooks at 75 Hz are 24 at 25 Hz,
    first those of the first frame. Frames left over at the end are dropped, and one
    that a clip does not fill is -1. Codes of a slower one are repeated. To use fewer
    codes instead, leave frames out where the features are made, with `KeptFrames`.

    Arguments
    ---------
    target : nn.Module
        Any module that follows the Target contract.
    frame_rate : float
        The wanted rate, in Hz: a whole number of times slower or faster.

    Raises
    ------
    ValueError
        If neither rate is a multiple of the other.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, RandomProjection, StackedFrames
    >>> fast = Target(StackedFrames(LogMel(), 2), RandomProjection(256, 2, 64))
    >>> target = ResampledTarget(fast, frame_rate=25.0)
    >>> target(torch.randn(1, 24000)).shape, fast.frame_rate, target.num_codebooks
    (torch.Size([1, 25, 4]), 50.0, 4)
    """

    def __init__(self, target: nn.Module, frame_rate: float):
        super().__init__()
        if frame_rate <= 0:
            raise ValueError(f"frame_rate must be a rate in Hz, got {frame_rate}.")
        # Both rates are fractions of small numbers, which floating point numbers only
        # resemble.
        ratio = Fraction(target.frame_rate / frame_rate).limit_denominator(1000)
        if 1 not in (ratio.numerator, ratio.denominator):
            raise ValueError(
                f"{type(target).__name__} has {target.frame_rate:g} frames a second, "
                f"of which {frame_rate:g} cannot be made: give a rate that is a whole "
                f"number of times slower or faster."
            )
        self.target = target
        self.folded, self.repeated = ratio.numerator, ratio.denominator
        self.sample_rate = target.sample_rate
        self.frame_rate = float(frame_rate)
        self.num_codebooks = target.num_codebooks * self.folded
        self.codebook_size = target.codebook_size

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        codes = self.target(wavs, wav_lens, crops)
        frames = codes.shape[1] // self.folded
        codes = codes[:, : frames * self.folded]
        codes = codes.reshape(len(codes), frames, self.num_codebooks)
        beyond = (codes == PADDING_CODE).any(dim=-1, keepdim=True)
        codes = codes.masked_fill(beyond, PADDING_CODE)
        return codes.repeat_interleave(self.repeated, dim=1)


class MultiViewTarget(CodeTarget):
    """Several targets at once: the student predicts the codes of all of them.

    OMAR-RQ predicts random projections of several features. To everything else
    this is one target whose codebooks are those of the views, one after another. A
    clip ends where it does in any of them.

    Arguments
    ---------
    views : list of Target
        At least one; of equal rates and codebook sizes.

    Raises
    ------
    ValueError
        If there is no view, or one does not fit the first.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, RandomProjection, StackedFrames
    >>> views = [
    ...     Target(StackedFrames(LogMel(n_fft=n_fft)), RandomProjection(512, 2, 64))
    ...     for n_fft in (1024, 2048)
    ... ]
    >>> target = MultiViewTarget(views)
    >>> target(torch.randn(1, 24000)).shape, target.num_codebooks
    (torch.Size([1, 25, 4]), 4)
    """

    def __init__(self, views: list[Target]):
        super().__init__()
        if not views:
            raise ValueError("A target of several views needs at least one view.")
        for name in ("sample_rate", "frame_rate", "codebook_size"):
            for index, view in enumerate(views):
                expected, found = getattr(views[0], name), getattr(view, name)
                if found != expected:
                    raise ValueError(
                        f"{name} differs: view 0 has {expected:g}, view {index} has "
                        f"{found:g}. All views must have the same."
                    )
        self.views = nn.ModuleList(views)
        self.sample_rate = views[0].sample_rate
        self.frame_rate = views[0].frame_rate
        self.num_codebooks = sum(view.num_codebooks for view in views)
        self.codebook_size = views[0].codebook_size

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        codes = [view(wavs, wav_lens, crops) for view in self.views]
        # A clip may end inside its last frame, which not all features round alike.
        frames = min(part.shape[1] for part in codes)
        together = torch.cat([part[:, :frames] for part in codes], dim=-1)
        beyond = (together == PADDING_CODE).any(dim=-1, keepdim=True)
        return together.masked_fill(beyond, PADDING_CODE)
