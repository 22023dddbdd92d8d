"""What a probe reads: one vector a clip and layer, the average over its frames.

Sums over the valid frames of all windows of a clip are added up before they are
divided, so that every frame counts the same.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from muq_plugins.lobes.features import LogMel
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.parts import build, describe, encoder_fingerprint, fingerprint


class Extractor(Protocol):
    """What `cached_features` takes.

    Arguments
    ---------
    sample_rate : int
        Of the waveforms, in Hz.
    fingerprint : str
        Changes whenever the features do.
    """

    sample_rate: int
    fingerprint: str

    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the valid frames, and how many there are.

        Arguments
        ---------
        wavs : Tensor
            (batch, samples) on the CPU.
        wav_lens : Tensor
            Relative lengths (batch,).

        Returns
        -------
        sums : Tensor
            (batch, rows, size).
        frames : Tensor
            (batch,).
        """
        ...

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """Turn the sums of a whole clip into its features.

        Arguments
        ---------
        sums : numpy.ndarray
            (rows, size).
        frames : int
            Number of frames.

        Returns
        -------
        numpy.ndarray
            (layers, size).
        """
        ...


class LayerAverages:
    """The time average of every hidden state, 0 being the front end.

    Arguments
    ---------
    encoder : nn.Module
        Any encoder with a ``config``; it is put into evaluation mode.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> sums, frames = LayerAverages(encoder).sums(torch.randn(1, 24000), torch.ones(1))
    >>> sums.shape, frames
    (torch.Size([1, 3, 32]), tensor([25]))
    """

    def __init__(self, encoder: nn.Module):
        self.encoder = encoder.eval()
        self.sample_rate = encoder.sample_rate
        self.fingerprint = encoder_fingerprint(encoder)
        self.device = next(encoder.parameters()).device

    @torch.no_grad()
    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """See `Extractor`.

        Arguments
        ---------
        wavs, wav_lens
            See `Extractor`.

        Returns
        -------
        sums, frames : Tensor
            (batch, hidden states, width) and (batch,).
        """
        out = self.encoder(wavs.to(self.device), wav_lens.to(self.device))
        sums = [masked_sum(state, out.lens) for state in out.hidden_states]
        return (
            torch.stack([total for total, _ in sums], dim=1).cpu(),
            sums[0][1].cpu(),
        )

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """The averages.

        Arguments
        ---------
        sums, frames
            See `Extractor`.

        Returns
        -------
        numpy.ndarray
            (hidden states, width).
        """
        return sums / frames


class LogMelStatistics:
    """Mean and standard deviation of every mel band: what needs no encoder.

    Arguments
    ---------
    encoder : nn.Module
        The encoder whose spectrogram is measured; see `log_mel_beside`.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> log_mel = LogMelStatistics(encoder)
    >>> sums, frames = log_mel.sums(torch.randn(1, 24000), torch.ones(1))
    >>> log_mel.finish(sums[0].numpy(), int(frames[0])).shape
    (1, 256)
    """

    def __init__(self, encoder: nn.Module):
        self.features = log_mel_beside(encoder)
        self.sample_rate = encoder.sample_rate
        self.fingerprint = fingerprint(self.features, self.features.config)
        self.device = next(encoder.parameters()).device

    @torch.no_grad()
    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the values and of their squares.

        Arguments
        ---------
        wavs, wav_lens
            See `Extractor`.

        Returns
        -------
        sums, frames : Tensor
            (batch, 2, bands) and (batch,).
        """
        feats, lens = self.features(wavs.to(self.device), wav_lens.to(self.device))
        values, frames = masked_sum(feats, lens)
        squares, _ = masked_sum(feats.float() ** 2, lens)
        return torch.stack([values, squares], dim=1).cpu(), frames.cpu()

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """Mean and standard deviation.

        Arguments
        ---------
        sums, frames
            See `Extractor`.

        Returns
        -------
        numpy.ndarray
            (1, 2 * bands).
        """
        mean, square = sums / frames
        deviation = np.sqrt(np.clip(square - mean**2, 0, None))
        return np.concatenate([mean, deviation])[None]


def log_mel_beside(encoder: nn.Module) -> nn.Module:
    """The log-mel spectrogram that a probe of an encoder is compared with.

    Arguments
    ---------
    encoder : nn.Module
        Any encoder of ours.

    Returns
    -------
    nn.Module
        The one that the encoder listens to; for an encoder of waveforms that of MuQ,
        100 frames a second of 128 bands with the statistics of the Million Song
        Dataset, on the same device.

    Example
    -------
    >>> from muq_plugins.lobes import WaveformTransformer
    >>> encoder = WaveformTransformer(32, 1, 4, 64, conv_channels=4)
    >>> log_mel_beside(encoder).frame_rate
    100.0
    """
    if encoder.features is not None:
        return encoder.features
    log_mel = LogMel(encoder.sample_rate, hop_length=encoder.sample_rate // 100)
    return log_mel.to(next(encoder.parameters()).device)


def untrained_like(encoder: nn.Module, seed: int) -> nn.Module:
    """The same encoder before any training, hearing the same normalised input.

    Arguments
    ---------
    encoder : nn.Module
        Any encoder of ours.
    seed : int
        Seed of the weights; the global random state stays as it is.

    Returns
    -------
    nn.Module
        In evaluation mode, on the same device.

    Example
    -------
    >>> from muq_plugins.lobes import MuQEncoder
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> untrained_like(encoder, seed=0).config == encoder.config
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = build(describe(encoder))
    if encoder.features is not None:
        untrained.features.load_state_dict(encoder.features.state_dict())
    return untrained.to(next(encoder.parameters()).device).eval()


def masked_sum(values: Tensor, lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Add up valid frames.

    Arguments
    ---------
    values : Tensor
        (batch, frames, size).
    lens : Tensor or None
        Relative lengths (batch,); None if all frames are valid.

    Returns
    -------
    sums : Tensor
        (batch, size) float32.
    frames : Tensor
        How many were added (batch,), at least one each.

    Example
    -------
    >>> masked_sum(torch.ones(2, 4, 1), torch.tensor([1.0, 0.5]))[0].flatten().tolist()
    [4.0, 2.0]
    """
    values = values.float()
    batch, frames, _ = values.shape
    lengths = absolute_lengths(lens, frames, batch)
    if lengths is None:
        lengths = torch.full((batch,), frames, device=values.device)
        return values.sum(dim=1), lengths
    lengths = lengths.clamp(min=1)
    mask = length_mask(lengths, frames)
    return (values * mask[..., None]).sum(dim=1), lengths
