"""What makes another view of the same music: the augmentations of CLMR."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
import torchaudio.functional as AF
from torch import Tensor, nn

GAIN = (-20.0, -1.0)  # dB
NOISE = (1e-4, 1e-2)  # standard deviation, as a share of that of the clip
HIGH_PASS = (200.0, 1200.0)  # Hz
LOW_PASS = (2200.0, 4000.0)
DELAYS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)  # seconds
SEMITONES = (-7.0, 7.0)
REVERBERATION = (0.1, 1.0)  # seconds until it is 60 dB down
WETNESS = (0.0, 1.0)  # its level beside that of the clip


class Augmentation(nn.Module):
    """Changes a clip as CLMR does (arXiv 2103.09410): the same effects and chances.

    In this order, each with its own probability: the sign of all samples, white noise
    of 40 to 80 dB below the clip, a lower gain, a high-pass or a low-pass filter, one
    echo at half the level, another pitch, and a room. Ranges are those of the authors'
    code, too. Its room is that of SoX; here it is noise that decays exponentially,
    which is how a large room sounds (J. A. Moorer, Computer Music Journal 3, 1979).
    Pitch is shifted by torchaudio's phase vocoder and resampling.

    All random numbers come from the generator that is given, and as many of them for
    a clip whatever is done to it: other probabilities change nothing else.

    Arguments
    ---------
    sample_rate : int
        Rate of the waveforms, in Hz.
    polarity, noise, gain, filters, delay, pitch, reverberation : float
        Probability of each effect.

    Raises
    ------
    ValueError
        If a probability is none.

    Example
    -------
    >>> augmentation = Augmentation(pitch=1.0)
    >>> wav = torch.randn(24000)
    >>> augmentation(wav, torch.Generator().manual_seed(1)).shape
    torch.Size([24000])
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        polarity: float = 0.8,
        noise: float = 0.01,
        gain: float = 0.3,
        filters: float = 0.8,
        delay: float = 0.3,
        pitch: float = 0.6,
        reverberation: float = 0.6,
    ):
        super().__init__()
        self.sample_rate = sample_rate
        self.probabilities = {
            "polarity": polarity,
            "noise": noise,
            "gain": gain,
            "filters": filters,
            "delay": delay,
            "pitch": pitch,
            "reverberation": reverberation,
        }
        for name, probability in self.probabilities.items():
            if not 0 <= probability <= 1:
                raise ValueError(
                    f"{name} is {probability}: give a probability, 0 to 1."
                )

    def forward(self, wav: Tensor, generator: torch.Generator) -> Tensor:
        """Changes one clip.

        Arguments
        ---------
        wav : Tensor
            (samples,).
        generator : torch.Generator
            On the CPU, so that every device changes a clip in the same way.

        Returns
        -------
        Tensor
            (samples,), float32.
        """
        numbers = torch.rand(len(self.probabilities), 3, generator=generator).tolist()
        draws = dict(zip(self.probabilities, numbers, strict=True))
        size = round(
            _between(REVERBERATION, draws["reverberation"][1]) * self.sample_rate
        )
        tail = torch.randn(size, generator=generator).to(wav.device)
        hiss = torch.randn(len(wav), generator=generator).to(wav.device)

        def drawn(name: str) -> list[float]:
            """Two numbers in 0..1 for an effect; none if it is left out."""
            chance, *places = draws[name]
            return places if chance < self.probabilities[name] else []

        wav = wav.float()
        if drawn("polarity"):
            wav = -wav
        if places := drawn("noise"):
            wav = wav + _between(NOISE, places[0]) * wav.std() * hiss
        if places := drawn("gain"):
            wav = wav * 10 ** (_between(GAIN, places[0]) / 20)
        if places := drawn("filters"):
            high = places[1] < 0.5
            cutoff = _between(HIGH_PASS if high else LOW_PASS, places[0])
            wav = _filtered(wav, cutoff / self.sample_rate, high)
        if places := drawn("delay"):
            seconds = DELAYS[int(places[0] * len(DELAYS))]
            wav = _delayed(wav, round(seconds * self.sample_rate))
        if places := drawn("pitch"):
            wav = _shifted(wav, _between(SEMITONES, places[0]))
        if places := drawn("reverberation"):
            wav = _in_a_room(wav, tail, _between(WETNESS, places[1]))
        return wav


def _between(ends: tuple[float, float], place: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * place


def _filtered(wav: Tensor, cutoff: float, high: bool) -> Tensor:
    """The magnitude of a Butterworth filter of 12 dB per octave, without its delay."""
    # The pause keeps the end of a clip from ringing into its beginning.
    spectrum = torch.fft.rfft(wav, n=2 * len(wav))
    frequencies = torch.fft.rfftfreq(2 * len(wav), device=wav.device)
    ratio = cutoff / frequencies if high else frequencies / cutoff
    return torch.fft.irfft(spectrum / (1 + ratio**4).sqrt(), n=2 * len(wav))[: len(wav)]


def _delayed(wav: Tensor, samples: int) -> Tensor:
    """With one echo at half its level, and as loud as before at most."""
    echo = torch.cat([wav.new_zeros(samples), wav])[: len(wav)]
    return (wav + 0.5 * echo) / 2


def _shifted(wav: Tensor, semitones: float, n_fft: int = 2048) -> Tensor:
    """At another pitch, as long as before."""
    # A ratio of small numbers, which is within 15 cents, keeps resampling fast.
    ratio = Fraction(2 ** (semitones / 12)).limit_denominator(60)
    hop, window = n_fft // 4, torch.hann_window(n_fft, device=wav.device)
    spectrum = torch.stft(
        wav, n_fft, hop, window=window, pad_mode="constant", return_complex=True
    )
    advance = torch.linspace(0, math.pi * hop, len(spectrum), device=wav.device)
    stretched = AF.phase_vocoder(spectrum, 1 / float(ratio), advance[:, None])
    samples = math.ceil(len(wav) * ratio)
    longer = torch.istft(stretched, n_fft, hop, window=window, length=samples)
    return AF.resample(longer, ratio.numerator, ratio.denominator)[: len(wav)]


def _in_a_room(wav: Tensor, tail: Tensor, wetness: float) -> Tensor:
    """With reverberation; on average as loud as before."""
    decay = torch.logspace(0, -3, len(tail), device=wav.device)
    response = tail * decay
    wet = AF.fftconvolve(wav, response / response.norm())[: len(wav)]
    return (wav + wetness * wet) / math.sqrt(1 + wetness**2)
