"""Mel spectrogram in dB: what log-mel features and cepstral coefficients share.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio import functional as AF

from muq_plugins.lobes.lengths import absolute_lengths

# Frames that are transformed at a time.
CPU_FRAMES = 1024
GPU_FRAMES = 65536


class MelDecibels(nn.Module):
    """Mel spectrogram in dB, the first half of several features.

    It equals ``torchaudio.transforms.MelSpectrogram`` (periodic Hann window,
    power 2, HTK scale, no filterbank norm, centred frames with reflection)
    followed by ``AmplitudeToDB`` without a floor relative to the maximum; the
    last frame is dropped, so that ``frames = samples // hop_length``.
    Two things go beyond that chain. The reflection happens at the end of each
    clip, not of the batch, so that padding never changes a clip's own frames.
    And everything is computed in float32 under any autocast: dB values of
    quiet music do not survive half precision.

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

    Example
    -------
    >>> MelDecibels(24000, 2048, 240, 128).decibels(torch.randn(2, 24000)).shape
    torch.Size([2, 100, 128])
    """

    def __init__(self, sample_rate: int, n_fft: int, hop_length: int, n_mels: int):
        super().__init__()
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.frame_rate = sample_rate / hop_length
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

    def decibels(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Log-mel spectrogram before the normalisation.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor
            dB values (batch, samples // hop_length, n_mels), float32.

        Raises
        ------
        ValueError
            If a waveform is not (batch, samples) or a clip is shorter than
            half a window, which leaves nothing to reflect.

        Example
        -------
        >>> mel = MelDecibels(24000, 2048, 240, 128)
        >>> mel.decibels(torch.zeros(1, 2400)).max()
        tensor(-100.)
        """
        if wavs.dim() != 2:
            raise ValueError(
                f"Waveforms must have the shape (batch, samples), got "
                f"{tuple(wavs.shape)}: mix down to mono and add a batch axis."
            )
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
        """Tells how many frames each clip has.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples).
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        Tensor or None
            Lengths (batch,) int64 in frames; None when no clip is padded.

        Example
        -------
        >>> mel = MelDecibels(24000, 2048, 240, 128)
        >>> mel.frame_lengths(torch.zeros(2, 24000), torch.tensor([1.0, 0.5]))
        tensor([100,  50])
        """
        lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
        return None if lengths is None else lengths // self.hop_length


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
    last = lengths[:, None] - 1
    source = last - (last - positions.abs()).abs()
    inside = positions < lengths[:, None] + pad
    return wavs.gather(1, source.clamp(min=0)) * inside
