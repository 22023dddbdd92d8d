"""What a probe reads: one vector a clip and layer, the average over its frames.

Sums over the valid frames of all windows of a clip are added up before they are
divided, so that every frame counts the same.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.mel import LogMel
from muq_plugins.lobes.parts import build, describe, encoder_fingerprint, fingerprint


class Extractor(Protocol):
    """What `cached_features` takes."""

    sample_rate: int
    fingerprint: str

    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the valid frames, and how many there are."""
        ...

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """Turn the sums of a whole clip into its features."""
        ...


class LayerAverages:
    """The time average of every hidden state, 0 being the front end."""

    def __init__(self, encoder: nn.Module):
        self.encoder = encoder.eval()
        self.sample_rate = encoder.sample_rate
        self.fingerprint = encoder_fingerprint(encoder)
        self.device = next(encoder.parameters()).device

    @torch.no_grad()
    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """See `Extractor`."""
        out = self.encoder(wavs.to(self.device), wav_lens.to(self.device))
        sums = [masked_sum(state, out.lens) for state in out.hidden_states]
        return (
            torch.stack([total for total, _ in sums], dim=1).cpu(),
            sums[0][1].cpu(),
        )

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """The averages."""
        return sums / frames


class LogMelStatistics:
    """Mean and standard deviation of every mel band: what needs no encoder."""

    def __init__(self, encoder: nn.Module):
        self.features = log_mel_beside(encoder)
        self.sample_rate = encoder.sample_rate
        self.fingerprint = fingerprint(self.features, self.features.config)
        self.device = next(encoder.parameters()).device

    @torch.no_grad()
    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the values and of their squares."""
        feats, lens = self.features(wavs.to(self.device), wav_lens.to(self.device))
        values, frames = masked_sum(feats, lens)
        squares, _ = masked_sum(feats.float() ** 2, lens)
        return torch.stack([values, squares], dim=1).cpu(), frames.cpu()

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """Mean and standard deviation."""
        mean, square = sums / frames
        deviation = np.sqrt(np.clip(square - mean**2, 0, None))
        return np.concatenate([mean, deviation])[None]


def log_mel_beside(encoder: nn.Module) -> nn.Module:
    """The log-mel spectrogram that a probe of an encoder is compared with."""
    if encoder.features is not None:
        return encoder.features
    log_mel = LogMel(encoder.sample_rate, hop_length=encoder.sample_rate // 100)
    return log_mel.to(next(encoder.parameters()).device)


def untrained_like(encoder: nn.Module, seed: int) -> nn.Module:
    """The same encoder before any training, hearing the same normalised input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = build(describe(encoder))
    if encoder.features is not None:
        untrained.features.load_state_dict(encoder.features.state_dict())
    return untrained.to(next(encoder.parameters()).device).eval()


def masked_sum(values: Tensor, lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Add up valid frames."""
    values = values.float()
    batch, frames, _ = values.shape
    lengths = absolute_lengths(lens, frames, batch)
    if lengths is None:
        lengths = torch.full((batch,), frames, device=values.device)
        return values.sum(dim=1), lengths
    lengths = lengths.clamp(min=1)
    mask = length_mask(lengths, frames)
    return (values * mask[..., None]).sum(dim=1), lengths
