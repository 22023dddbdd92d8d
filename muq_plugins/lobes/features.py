"""Features: what a target quantizes and what an encoder listens to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, relative_lengths
from muq_plugins.lobes.parts import attribute, part


class Features(nn.Module):
    """The Features contract; what follows it need not be of this class.

    ``feats, lens = features(wavs, wav_lens)``, with the attributes ``sample_rate``,
    ``frame_rate`` and ``output_size``, and ``config``: all that decides what is
    computed and that the weights do not show.
    """

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computes the features.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        feats : Tensor
            (batch, frames, output_size) at `frame_rate`.
        lens : Tensor
            Relative lengths (batch,) in frames.
        """
        raise NotImplementedError


class Standardised(Features):
    """Features that one mean and one deviation standardise, measured on a corpus.

    They are buffers, saved with the weights, and the arguments ``mean`` and ``std``.
    """

    def register_statistics(self, mean: float, std: float) -> None:
        """Makes the two buffers."""
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.set_statistics(mean, std)

    def set_statistics(self, mean: float, std: float) -> None:
        """Replaces the normalisation, for example by one measured on a corpus.

        Arguments
        ---------
        mean : float
            Global mean of the values before, in dB for a `LogMel`.
        std : float
            Global standard deviation, in the same unit.

        Raises
        ------
        ValueError
            If a value is not finite or the deviation is not positive.

        Example
        -------
        >>> from muq_plugins.lobes import LogMel
        >>> features = LogMel()
        >>> features.set_statistics(0.0, 20.0)
        >>> features.std
        tensor(20.)
        """
        statistics = torch.tensor([mean, std], dtype=torch.float64)
        if not torch.isfinite(statistics).all() or std <= 0:
            raise ValueError(
                f"Statistics of {type(self).__name__} must be finite with a positive "
                f"deviation, got mean {mean} and std {std}. Measure them again on a "
                f"corpus that is not silent, and with a lower floor if there is one."
            )
        self.mean.fill_(mean)
        self.std.fill_(std)

    def standardise(self, values: Tensor) -> Tensor:
        """Subtracts the mean and divides by the deviation."""
        return (values - self.mean) / self.std


@part
class StackedFrames(Features):
    """Concatenates consecutive frames of other features.

    MuQ quantizes 4 stacked mel frames: 100 Hz x 128 becomes 25 Hz x 512, with
    index ``frame * 128 + mel`` inside the vector. Frames left over at the end
    are dropped.

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract.
    num_frames : int
        How many consecutive frames make one vector.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel
    >>> features = StackedFrames(LogMel(), num_frames=4)
    >>> feats, lens = features(torch.randn(1, 24000))
    >>> feats.shape, features.frame_rate
    (torch.Size([1, 25, 512]), 25.0)
    """

    def __init__(self, features: nn.Module, num_frames: int = 4):
        super().__init__()
        self.features = features
        self.num_frames = num_frames
        self.config = {
            "num_frames": num_frames,
            "features": attribute(features, "config"),
        }
        self.sample_rate = attribute(features, "sample_rate")
        self.frame_rate = attribute(features, "frame_rate") / num_frames
        self.output_size = attribute(features, "output_size") * num_frames

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        groups, lens = _grouped(self.features, self.num_frames, wavs, wav_lens)
        return groups.flatten(2), lens

    def unstack(self, feats: Tensor) -> Tensor:
        """Takes stacked vectors apart again, to look at them as a spectrogram.

        Arguments
        ---------
        feats : Tensor
            Stacked features (..., frames, num_frames * size).

        Returns
        -------
        Tensor
            (..., frames * num_frames, size).

        Example
        -------
        >>> from muq_plugins.lobes import LogMel
        >>> features = StackedFrames(LogMel(), num_frames=4)
        >>> features.unstack(torch.zeros(2, 25, 512)).shape
        torch.Size([2, 100, 128])
        """
        size = self.output_size // self.num_frames
        return feats.reshape(*feats.shape[:-2], -1, size)


@part
class KeptFrames(Features):
    """Keeps the first of every few frames of other features.

    It brings features down to the rate of the student and says so: the rate it
    declares is the lower one. Frames left over at the end are dropped.

    Arguments
    ---------
    features : nn.Module
        Any module that follows the Features contract.
    every : int
        One of so many frames is kept.

    Raises
    ------
    ValueError
        If ``every`` is below 1.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel
    >>> features = KeptFrames(LogMel(), every=4)
    >>> feats, lens = features(torch.randn(1, 24000))
    >>> feats.shape, features.frame_rate
    (torch.Size([1, 25, 128]), 25.0)
    """

    def __init__(self, features: nn.Module, every: int):
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 frame, got {every}.")
        self.features = features
        self.every = every
        self.config = {"every": every, "features": attribute(features, "config")}
        self.sample_rate = attribute(features, "sample_rate")
        self.frame_rate = attribute(features, "frame_rate") / every
        self.output_size = attribute(features, "output_size")

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        groups, lens = _grouped(self.features, self.every, wavs, wav_lens)
        return groups[:, :, 0], lens


def _grouped(
    features: nn.Module, size: int, wavs: Tensor, wav_lens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Features (batch, groups, frames, values), and relative lengths in groups."""
    feats, lens = features(wavs, wav_lens)
    lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
    if lengths is not None:
        lengths = lengths // size
    groups = feats.shape[1] // size
    feats = feats[:, : groups * size].unflatten(1, (groups, size))
    return feats, relative_lengths(lengths, groups, feats, wav_lens)


class FrozenTeacher(Features):
    """Features of a teacher that is used, not owned; see `TeacherFeatures`."""

    def __init__(self, teacher: nn.Module):
        super().__init__()
        # In a tuple, where nn.Module does not look for submodules.
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.sample_rate = teacher.sample_rate

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenTeacher:
        """Lets the teacher follow to another device."""
        self._teacher[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def _listen(self, wavs: Tensor, wav_lens: Tensor | None) -> Any:
        """What the teacher makes of it, in float32 whatever the precision around it."""
        with torch.autocast(wavs.device.type, enabled=False):
            return self._teacher[0](wavs, wav_lens)


@part(unsaved=("encoder",))
class TeacherFeatures(FrozenTeacher):
    """The output of one block of a frozen encoder (MuQ_iter, arXiv 2501.01108).

    Or the mean of the outputs of several blocks.

    The teacher is used, not owned: it is no submodule, so that its weights are neither
    trained, nor saved again with each tokenizer and checkpoint, nor given other log-mel
    statistics. Instead the ``config`` names it by its fingerprint. It always hears
    audio in evaluation mode, in float32 whatever the precision around it, so that codes
    do not depend on who computes them.

    Blocks are counted from 1 as in the paper: ``layer=10`` is ``hidden_states[10]``,
    the output of the tenth block; ``hidden_states[0]``, what comes out of the front
    end, is no block. (The authors' iterative code takes the entry 9 of that list for
    what the paper calls the tenth layer: ``layer=9`` here.) The latents are taken as
    they are, as the authors do: each block ends with a layer normalisation, so they
    have no scale that would have to be measured.

    Arguments
    ---------
    encoder : nn.Module
        The teacher: any module that follows the Encoder contract. It is frozen and
        put in evaluation mode.
    layer : int or sequence of int
        Block whose output is used, from 1; of several, the mean.
    fingerprint : str
        What tells this teacher from others, for ``config``.

    Raises
    ------
    ValueError
        If there is no such block.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> features = TeacherFeatures(encoder, layer=1, fingerprint="a1b2")
    >>> feats, lens = features(torch.randn(1, 24000))
    >>> feats.shape, features.config, list(features.state_dict())
    (torch.Size([1, 25, 32]), {'teacher': 'a1b2', 'layer': 1}, [])
    """

    def __init__(
        self, encoder: nn.Module, layer: int | Sequence[int], fingerprint: str
    ):
        blocks = encoder.num_layers
        several = isinstance(layer, Sequence) and not isinstance(layer, str)
        layers = list(layer) if several else [layer]
        if not layers:
            raise ValueError(f"No layer is named: give blocks from 1 to {blocks}.")
        for one in layers:
            if type(one) is not int or not 1 <= one <= blocks:
                raise ValueError(
                    f"There is no layer {one!r}: the teacher has the blocks 1 to "
                    f"{blocks}. Blocks are counted from 1, as in the paper; the front "
                    f"end is none."
                )
        super().__init__(encoder)
        self.layer, self.layers = layer, layers
        self.config: dict[str, Any] = {"teacher": fingerprint, "layer": layer}
        self.frame_rate = encoder.frame_rate
        self.output_size = encoder.width
        self.min_samples = encoder.min_samples

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        out = self._listen(wavs, wav_lens)
        states = [out.hidden_states[layer] for layer in self.layers]
        return sum(states[1:], states[0]) / len(states), out.lens
