"""Cepstral coefficients: what HuBERT's first targets are made of.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio import functional as AF

from muq_plugins.lobes.lengths import relative_lengths
from muq_plugins.lobes.mel import MelDecibels
from muq_plugins.lobes.parts import part


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
        """Computes coefficients, deltas and delta-deltas.

        Arguments
        ---------
        wavs : Tensor
            Waveforms (batch, samples) at `sample_rate`, -1..1.
        wav_lens : Tensor or None
            Relative lengths (batch,); None when nothing is padded.

        Returns
        -------
        feats : Tensor
            (batch, frames, 3 * num_coefficients) float32 at `frame_rate`.
        lens : Tensor
            Relative lengths (batch,) in frames.
        """
        lengths = self.frame_lengths(wavs, wav_lens)
        decibels = self.decibels(wavs, wav_lens)
        with torch.autocast(wavs.device.type, enabled=False):
            parts = [decibels @ self.transform]
            for _ in range(2):
                held = _hold_last(parts[-1], lengths)
                deltas = AF.compute_deltas(held.transpose(1, 2))
                parts.append(deltas.transpose(1, 2))
            feats = torch.cat(parts, dim=-1)
        return feats, relative_lengths(lengths, feats.shape[1], feats)


def _hold_last(feats: Tensor, lengths: Tensor | None) -> Tensor:
    """Fills the padding of (batch, frames, size) with each clip's last frame."""
    if lengths is None:
        return feats
    frames = torch.arange(feats.shape[1], device=feats.device)
    source = torch.minimum(frames, lengths[:, None] - 1).clamp(min=0)
    return feats.gather(1, source[..., None].expand_as(feats))
