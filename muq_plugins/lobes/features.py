"""Features: what a target quantizes and what an encoder listens to.

Every class here follows the Features contract: ``feats, lens = features(wavs,
wav_lens)`` with feats (batch, frames, size) and relative lens (batch,), and the
attributes ``sample_rate``, ``frame_rate`` and ``output_size``.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, relative_lengths
from muq_plugins.lobes.mel import MelDecibels
from muq_plugins.lobes.parts import part

# Statistics of the Million Song Dataset, published with MusicFM and MuQ
# (arXiv 2501.01108): one mean and one standard deviation for all mel bands.
MSD_MEAN = 6.768444971712967
MSD_STD = 18.417922652295623


@part(unsaved=("mean", "std"))
class LogMel(MelDecibels):
    """Normalised log-mel spectrogram in dB, as MuQ and MusicFM compute it.

    The spectrogram is that of `MelDecibels`; one mean and one deviation for all
    bands normalise it.

    Arguments
    ---------
    sample_rate : int
        Rate of the waveforms, in Hz.
    n_fft : int
        Window and FFT size, in samples.
    hop_length : int
        Samples between frames.
    n_mels : int
        Number of mel bands, from 0 Hz to half the sample rate.
    mean : float
        Global mean in dB that is subtracted (a buffer).
    std : float
        Global standard deviation in dB that is divided by (a buffer).

    Example
    -------
    >>> features = LogMel()
    >>> feats, lens = features(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    >>> feats.shape, lens
    (torch.Size([2, 100, 128]), tensor([1.0000, 0.5000]))
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        n_fft: int = 2048,
        hop_length: int = 240,
        n_mels: int = 128,
        mean: float = MSD_MEAN,
        std: float = MSD_STD,
    ):
        super().__init__(sample_rate, n_fft, hop_length, n_mels)
        self.output_size = n_mels
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.set_statistics(mean, std)

    def set_statistics(self, mean: float, std: float) -> None:
        """Replaces the normalisation, for example by one measured on a corpus.

        Arguments
        ---------
        mean : float
            Global mean of the log-mel values, in dB.
        std : float
            Global standard deviation, in dB.

        Raises
        ------
        ValueError
            If a value is not finite or the deviation is not positive.

        Example
        -------
        >>> features = LogMel()
        >>> features.set_statistics(0.0, 20.0)
        >>> features.std
        tensor(20.)
        """
        statistics = torch.tensor([mean, std], dtype=torch.float64)
        if not torch.isfinite(statistics).all() or std <= 0:
            raise ValueError(
                f"Log-mel statistics must be finite with a positive deviation, "
                f"got mean {mean} and std {std}. Measure them again on a corpus "
                f"that is not silent."
            )
        self.mean.fill_(mean)
        self.std.fill_(std)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computes the normalised log-mel spectrogram.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        feats : Tensor
            (batch, frames, n_mels) float32 at `frame_rate`.
        lens : Tensor
            Relative lengths (batch,) in frames.
        """
        feats = (self.decibels(wavs, wav_lens) - self.mean) / self.std
        lengths = self.frame_lengths(wavs, wav_lens)
        return feats, relative_lengths(lengths, feats.shape[1], feats)


@part
class StackedFrames(nn.Module):
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
    >>> features = StackedFrames(LogMel(), num_frames=4)
    >>> feats, lens = features(torch.randn(1, 24000))
    >>> feats.shape, features.frame_rate
    (torch.Size([1, 25, 512]), 25.0)
    """

    def __init__(self, features: nn.Module, num_frames: int = 4):
        super().__init__()
        self.features = features
        self.num_frames = num_frames
        self.config = {"num_frames": num_frames, "features": features.config}
        self.sample_rate = features.sample_rate
        self.frame_rate = features.frame_rate / num_frames
        self.output_size = features.output_size * num_frames

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computes the inner features and stacks them.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        feats : Tensor
            (batch, frames // num_frames, num_frames * size).
        lens : Tensor
            Relative lengths (batch,) in stacked frames.
        """
        feats, lens = self.features(wavs, wav_lens)
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        if lengths is not None:
            lengths = lengths // self.num_frames
        frames = feats.shape[1] // self.num_frames
        feats = feats[:, : frames * self.num_frames]
        feats = feats.reshape(feats.shape[0], frames, self.output_size)
        return feats, relative_lengths(lengths, frames, feats)

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
        >>> features = StackedFrames(LogMel(), num_frames=4)
        >>> features.unstack(torch.zeros(2, 25, 512)).shape
        torch.Size([2, 100, 128])
        """
        size = self.output_size // self.num_frames
        return feats.reshape(*feats.shape[:-2], -1, size)


@part
class KeptFrames(nn.Module):
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
        self.config = {"every": every, "features": features.config}
        self.sample_rate = features.sample_rate
        self.frame_rate = features.frame_rate / every
        self.output_size = features.output_size

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computes the inner features and leaves most frames out.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        feats : Tensor
            (batch, frames // every, size).
        lens : Tensor
            Relative lengths (batch,) in kept frames.
        """
        feats, lens = self.features(wavs, wav_lens)
        lengths = absolute_lengths(lens, feats.shape[1], feats.shape[0])
        if lengths is not None:
            lengths = lengths // self.every
        frames = feats.shape[1] // self.every
        feats = feats[:, : frames * self.every : self.every]
        return feats, relative_lengths(lengths, frames, feats)
