"""Spectrograms: mel power in dB, normalised log-mel, and cepstral coefficients."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio import functional as AF

from muq_plugins.lobes.features import Features, Standardised
from muq_plugins.lobes.finite import check_wavs
from muq_plugins.lobes.lengths import absolute_lengths, relative_lengths
from muq_plugins.lobes.parts import check_sizes, part

# Frames that are transformed at a time.
CPU_FRAMES = 1024
GPU_FRAMES = 65536
# Statistics of the Million Song Dataset, published with MusicFM and MuQ
# (arXiv 2501.01108): one mean and one standard deviation for all mel bands.
MSD_MEAN = 6.768444971712967
MSD_STD = 18.417922652295623


class MelDecibels(Features):
    """Mel spectrogram in dB, the first half of several features.

    It equals ``torchaudio.transforms.MelSpectrogram`` (periodic Hann window,
    power 2, HTK scale, no filterbank norm, centred frames with reflection)
    followed by ``AmplitudeToDB`` without a floor relative to the maximum; the
    last frame is dropped, so that ``frames = samples // hop_length``.
    Two things go beyond that chain. The reflection happens at the end of each
    clip, not of the batch, so that padding never changes a clip's own frames.
    And everything is computed in float32 under any autocast: dB values of
    quiet music do not survive half precision.
    """

    def __init__(self, sample_rate: int, n_fft: int, hop_length: int, n_mels: int):
        super().__init__()
        check_sizes(sample_rate=sample_rate, hop_length=hop_length)
        check_sizes(n_fft=n_fft, n_mels=n_mels)
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.frame_rate = sample_rate / hop_length
        self.min_samples = n_fft // 2 + 1  # the shortest clip that can be reflected
        # Everything needed to build it again, apart from the buffers.
        self.config = {
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "hop_length": hop_length,
            "n_mels": n_mels,
        }
        # Constants are not weights: they stay out of the state dict, as in the
        # official checkpoints.
        window = torch.hann_window(n_fft)
        filterbank = AF.melscale_fbanks(
            n_fft // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate
        )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filterbank", filterbank, persistent=False)

    def _apply(self, fn: Callable, recurse: bool = True) -> MelDecibels:
        """Follows to another device, but not to half precision: power has no room."""

        def precise(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            low = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if low else moved

        return super()._apply(precise, recurse)

    def decibels(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Log-mel spectrogram before the normalisation."""
        check_wavs(wavs, wav_lens)
        lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
        frames = wavs.shape[1] // self.hop_length
        with torch.autocast(wavs.device.type, enabled=False):
            padded = _reflect(wavs.float(), lengths, self.n_fft // 2)
            # On a CPU one clip at a time: spectra of a whole batch do not fit its
            # caches, and asking the system for that much memory takes longer than
            # the transform. Everywhere a piece at a time, for audio of any length.
            on_cpu = wavs.device.type == "cpu"
            size = CPU_FRAMES if on_cpu else GPU_FRAMES
            mel = torch.cat(
                [
                    torch.cat(
                        [
                            self._mel(clips, start, min(start + size, frames))
                            for start in range(0, frames, size)
                        ],
                        dim=1,
                    )
                    for clips in (padded.split(1) if on_cpu else (padded,))
                ]
            )
            return AF.amplitude_to_DB(
                mel, multiplier=10.0, amin=1e-10, db_multiplier=0.0
            )

    def _mel(self, padded: Tensor, start: int, stop: int) -> Tensor:
        """Mel power (batch, frames, n_mels) of the frames from start to stop."""
        first, last = start * self.hop_length, (stop - 1) * self.hop_length
        spectrum = AF.spectrogram(
            padded[:, first : last + self.n_fft],
            pad=0,
            window=self.window,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            win_length=self.n_fft,
            power=None,
            normalized=False,
            center=False,
        )
        # Not abs() squared: its square root takes longer than the transform.
        power = spectrum.real.square() + spectrum.imag.square()
        return power.transpose(1, 2) @ self.filterbank

    def frame_lengths(self, wavs: Tensor, wav_lens: Tensor | None) -> Tensor | None:
        """Tells how many frames each clip has."""
        lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
        return None if lengths is None else lengths // self.hop_length


@part(unsaved=("mean", "std"))
class LogMel(Standardised, MelDecibels):
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
    floor : float or None
        Value in dB below which everything counts as silence; None for none, as in
        the paper. What lies far below the music is room noise and the rounding of
        16 bits, which a linear scale of decibels shows as large as the music.

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
        floor: float | None = None,
    ):
        super().__init__(sample_rate, n_fft, hop_length, n_mels)
        self.floor = floor
        if floor is not None:  # configs from before there was one stay equal
            self.config["floor"] = floor
        self.output_size = n_mels
        self.register_statistics(mean, std)

    def decibels(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Log-mel spectrogram before the normalisation, not below the floor."""
        found = super().decibels(wavs, wav_lens)
        return found if self.floor is None else found.clamp_(min=self.floor)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        feats = self.standardise(self.decibels(wavs, wav_lens))
        lengths = self.frame_lengths(wavs, wav_lens)
        return feats, relative_lengths(lengths, feats.shape[1], feats, wav_lens)


@part
class Mfcc(MelDecibels):
    """Mel-frequency cepstral coefficients with their first two derivatives.

    HuBERT (arXiv 2106.07447) clusters 39 values per frame: 13 coefficients of a
    spectrogram with windows of 25 ms, and their deltas and delta-deltas. Padding
    never changes a clip's own frames: at its end the last frame is held for the
    derivatives. Everything is computed in float32 under any autocast.

    Arguments
    ---------
    sample_rate : int
        Rate of the waveforms, in Hz.
    n_fft : int
        Window and FFT size, in samples.
    hop_length : int
        Samples between frames.
    n_mels : int
        Number of mel bands.
    num_coefficients : int
        Coefficients, of which the first tells the loudness.

    Raises
    ------
    ValueError
        If there are more coefficients than mel bands.

    Example
    -------
    >>> features = Mfcc()
    >>> feats, lens = features(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    >>> feats.shape, features.frame_rate
    (torch.Size([2, 100, 39]), 100.0)
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        n_fft: int = 600,
        hop_length: int = 240,
        n_mels: int = 40,
        num_coefficients: int = 13,
    ):
        super().__init__(sample_rate, n_fft, hop_length, n_mels)
        if not 1 <= num_coefficients <= n_mels:
            raise ValueError(
                f"num_coefficients must be between 1 and the {n_mels} mel bands, got "
                f"{num_coefficients}."
            )
        self.output_size = 3 * num_coefficients
        self.config["num_coefficients"] = num_coefficients
        transform = AF.create_dct(num_coefficients, n_mels, norm="ortho")
        self.register_buffer("transform", transform, persistent=False)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        lengths = self.frame_lengths(wavs, wav_lens)
        decibels = self.decibels(wavs, wav_lens)
        with torch.autocast(wavs.device.type, enabled=False):
            parts = [decibels @ self.transform]
            for _ in range(2):
                held = _hold_last(parts[-1], lengths)
                deltas = AF.compute_deltas(held.transpose(1, 2))
                parts.append(deltas.transpose(1, 2))
            feats = torch.cat(parts, dim=-1)
        return feats, relative_lengths(lengths, feats.shape[1], feats, wav_lens)


def _reflect(wavs: Tensor, lengths: Tensor | None, pad: int) -> Tensor:
    """Pads (batch, samples) by reflection at both ends of every single clip."""
    shortest = wavs.shape[1] if lengths is None else int(lengths.min())
    if shortest <= pad:
        raise ValueError(
            f"A clip of {shortest} samples is too short for a window of {2 * pad} "
            f"samples: at least {pad + 1} samples are needed. Leave the clip out, "
            f"or pad it with silence and let wav_lens include the padding."
        )
    if lengths is None:
        return F.pad(wavs, (pad, pad), mode="reflect")
    positions = torch.arange(-pad, wavs.shape[1] + pad, device=wavs.device)
    last = lengths.to(wavs.device, non_blocking=True)[:, None] - 1
    source = last - (last - positions.abs()).abs()
    inside = positions <= last + pad
    return wavs.gather(1, source.clamp(min=0)) * inside


def _hold_last(feats: Tensor, lengths: Tensor | None) -> Tensor:
    """Fills the padding of (batch, frames, size) with each clip's last frame."""
    if lengths is None:
        return feats
    frames = torch.arange(feats.shape[1], device=feats.device)
    last = lengths.to(feats.device, non_blocking=True)[:, None] - 1
    source = torch.minimum(frames, last).clamp(min=0)
    return feats.gather(1, source[..., None].expand_as(feats))
