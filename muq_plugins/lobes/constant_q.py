"""The constant-Q transform: bands as far apart as pitches, and all equally sharp."""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from muq_plugins.lobes.features import Standardised
from muq_plugins.lobes.finite import check_wavs
from muq_plugins.lobes.lengths import absolute_lengths, length_mask, relative_lengths
from muq_plugins.lobes.parts import part

# Frames that are transformed at a time.
PIECE_FRAMES = 128
# Where the response of a filter ends, in multiples of sample rate over window length:
# the main lobe of a Hann window ends at 2, beyond 8 it is below -60 dB.
REACH = 8


@part(unsaved=("mean", "std"))
class ConstantQ(Standardised):
    """Standardised magnitudes of a constant-Q transform, after what MERT asks for.

    The transform of Brown (1991) with Hann windows of ``Q * sample_rate / frequency``
    samples, scaled like ``librosa.cqt``: a sine of amplitude 1 gives half the square
    root of the window length in its band. By default the bands of MERT (arXiv
    2306.00107): 336, a quarter of a semitone apart, over seven octaves from C1, at
    MuQ's 25 Hz.

    MERT's nnAudio convolves with each window as it is, librosa with those of one octave
    in audio at lower and lower rates. This multiplies spectra, of which a band is a
    small part: the values of nnAudio up to 0.1 %, in a seventeenth of its time on a CPU
    core and without its 176 MB of windows. librosa is 0.7 % away from both.

    One mean and one deviation for all bands standardise the magnitudes, as those of
    `LogMel` do; recipes measure them. MERT takes the magnitudes as they are.

    Frame t is centred on the samples from ``t * hop_length`` to ``(t + 1) *
    hop_length``; beyond the ends of a clip is silence. Everything is computed in
    float32 under any autocast.

    Arguments
    ---------
    sample_rate : int
        Rate of the waveforms, in Hz.
    hop_length : int
        Samples between frames.
    num_bins : int
        Number of bands.
    bins_per_octave : int
        Bands in an octave.
    f_min : float
        Frequency of the lowest band, in Hz.
    mean : float
        Global mean that is subtracted (a buffer).
    std : float
        Global standard deviation that is divided by (a buffer).

    Raises
    ------
    ValueError
        If the highest band does not fit below half the sample rate.

    Example
    -------
    >>> features = ConstantQ(num_bins=84, bins_per_octave=12)
    >>> a4 = torch.sin(2 * torch.pi * 440 * torch.arange(24000) / 24000)
    >>> feats, lens = features(a4[None])
    >>> feats.shape, feats[0, 12].argmax() # 3 octaves and 9 semitones above C1
    (torch.Size([1, 25, 84]), tensor(45))
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        hop_length: int = 960,
        num_bins: int = 336,
        bins_per_octave: int = 48,
        f_min: float = 32.703,
        mean: float = 0.0,
        std: float = 1.0,
    ):
        super().__init__()
        quality = 1 / (2 ** (1 / bins_per_octave) - 1)
        steps = torch.arange(num_bins, dtype=torch.float64) / bins_per_octave
        frequencies = f_min * 2**steps
        widths = frequencies / quality  # sample rate over window length
        highest = float(frequencies[-1] + widths[-1])
        if highest > sample_rate / 2:
            raise ValueError(
                f"The highest of {num_bins} bands ends at {highest:.0f} Hz, but audio "
                f"of {sample_rate} Hz at {sample_rate // 2} Hz: lower num_bins."
            )
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.frame_rate = sample_rate / hop_length
        self.output_size = num_bins
        # Everything needed to build it again.
        self.config = {
            "sample_rate": sample_rate,
            "hop_length": hop_length,
            "num_bins": num_bins,
            "bins_per_octave": bins_per_octave,
            "f_min": f_min,
        }
        self.register_statistics(mean, std)
        # Frames of context on either side of a piece: half of the longest window.
        self.context = ceil(sample_rate / float(widths[0]) / 2 / hop_length) + 1
        # A frame is to the spectrum of a piece what a block of so many bins is to a
        # frame: taking every hop_length-th sample adds the blocks up.
        self.block = next_fast_len(PIECE_FRAMES + 2 * self.context)
        self.octaves = range(0, num_bins, bins_per_octave)
        for first in self.octaves:
            group = slice(first, first + bins_per_octave)
            places, filters = self._filters(frequencies[group], widths[group])
            # Constants are no weights.
            self.register_buffer(f"places_{first}", places, persistent=False)
            self.register_buffer(f"filters_{first}", filters, persistent=False)

    def _filters(self, frequencies: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Which blocks of the spectrum each band hears (bands, n), and how.

        The responses are (bands, n, bins of a block).
        """
        resolution = self.frame_rate / self.block  # Hz from bin to bin
        lowest = (frequencies - REACH * widths).clamp(min=0)
        first = (lowest / self.frame_rate).long()
        last = ((frequencies + REACH * widths) / self.frame_rate).long()
        places = first[:, None] + torch.arange(int((last - first).max()) + 1)
        bins = places[..., None] * self.block + torch.arange(self.block)
        # The spectrum of a Hann window, 1 at its centre.
        away = bins * resolution - frequencies[:, None, None]
        away = away / widths[:, None, None]
        sides = torch.sinc(away - 1) + torch.sinc(away + 1)
        response = torch.sinc(away) + sides / 2
        heard = (away.abs() <= REACH) & (bins * resolution < self.sample_rate / 2)
        scale = (self.sample_rate / widths).sqrt() / self.hop_length
        response = torch.where(heard, response, 0) * scale[:, None, None]
        blocks = ceil(self.hop_length / 2)
        return places.clamp(max=blocks - 1), response.float()

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        check_wavs(wavs, wav_lens)
        lengths = absolute_lengths(wav_lens, wavs.shape[1], wavs.shape[0])
        mask = length_mask(lengths, wavs.shape[1], wavs.device)
        if mask is not None:
            wavs = torch.where(mask, wavs, 0)
            lengths = lengths // self.hop_length
        frames = wavs.shape[1] // self.hop_length
        with torch.autocast(wavs.device.type, enabled=False):
            # One clip at a time: the bands of a whole batch would take much memory.
            feats = torch.cat([self._clip(w, frames) for w in wavs.float().split(1)])
        feats = self.standardise(feats)
        return feats, relative_lengths(lengths, frames, feats, wav_lens)

    def _clip(self, wav: Tensor, frames: int) -> Tensor:
        """Magnitudes (1, frames, num_bins) of one clip, piece by piece."""
        pieces = max(1, ceil(frames / PIECE_FRAMES))
        step, size = PIECE_FRAMES * self.hop_length, self.block * self.hop_length
        before = self.context * self.hop_length - self.hop_length // 2
        after = (pieces - 1) * step + size - before - wav.shape[1]
        heard = F.pad(wav, (before, after))[0].unfold(0, size, step)
        spectrum = torch.fft.rfft(heard)
        spectrum = F.pad(spectrum, (0, -spectrum.shape[1] % self.block))
        blocks = spectrum.unflatten(1, (-1, self.block))
        found = []
        for first in self.octaves:
            places = self.get_buffer(f"places_{first}")
            filters = self.get_buffer(f"filters_{first}")
            band = (blocks[:, places] * filters).sum(2)  # (pieces, bands, block)
            found.append(torch.fft.ifft(band).abs())
        kept = slice(self.context, self.context + PIECE_FRAMES)
        values = torch.cat(found, dim=1)[..., kept].transpose(1, 2)
        return values.reshape(1, -1, self.output_size)[:, :frames]
