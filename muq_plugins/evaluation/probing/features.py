"""What a probe reads: one vector a clip and layer, computed once and kept on disk.

It is the average over the valid frames of all windows of a clip: sums are added up
before they are divided, so that every frame counts the same.

The name of a file is a hash of everything that its content depends on: the weights of
the encoder, the clips with the size and time of their files, and the windows. So
features of another encoder or of a changed recording are never found by mistake, and
nothing has to be deleted by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from muq_plugins.evaluation.kept import digest, file_stamp, load_arrays, save_arrays
from muq_plugins.evaluation.probing.clips import Clip, ProbeError, window_batches
from muq_plugins.evaluation.probing.results import LOG_MEL, TRAINED, UNTRAINED
from muq_plugins.lobes.lengths import absolute_lengths, length_mask, lengths_on
from muq_plugins.lobes.mel import LogMel
from muq_plugins.lobes.parts import build, describe, encoder_fingerprint, fingerprint

# Raised whenever a change of the code changes the features.
FORMAT = 1
# Clips in a file: what an interruption can cost.
CHUNK = 64


@dataclass(frozen=True)
class FeatureSettings:
    """How clips become features."""

    folder: str | Path | None  # where they are kept; None: nowhere
    window_seconds: float = 10.0  # length of a window
    max_windows: int = 3  # most windows of a clip
    batch_size: int = 8  # windows encoded at once; does not change the features

    def __post_init__(self):
        for name in ("window_seconds", "max_windows", "batch_size"):
            if not getattr(self, name) > 0:
                raise ProbeError(
                    f"{name} must be more than 0, got {getattr(self, name)}."
                )


@dataclass(frozen=True)
class Features:
    """Features of all clips."""

    # (clips, layers, size) float32; not finite where the clip could not be read
    values: np.ndarray
    key: str  # hash of all that they depend on
    first: int = 0  # number of the first layer

    @property
    def usable(self) -> np.ndarray:
        """Whether each clip has features (clips,)."""
        return np.isfinite(self.values).all(axis=(1, 2))


def cached_features(
    extractor: Extractor,
    clips: list[Clip],
    settings: FeatureSettings,
    name: str = "features",
    progress: bool = False,
) -> Features:
    """Compute the features of clips, or read what was computed before."""
    rows, keys = [], []
    starts = range(0, len(clips), CHUNK)
    for start in tqdm(starts, desc=name, unit="chunk", disable=not progress):
        some, path = clips[start : start + CHUNK], None
        if settings.folder is not None:
            keys.append(_key(extractor, some, settings))
            file = f"{name.replace(' ', '_')}-{keys[-1]}.npz"
            path = Path(settings.folder) / file
        if path is not None and path.is_file():
            rows += list(load_arrays(path)["values"])
            continue
        found = _compute(extractor, some, settings)
        if path is not None and any(row is not None for row in found):
            save_arrays(path, values=_stack(found))
        rows += found  # not kept if none could be read: the next attempt may
    if all(row is None for row in rows):
        raise ProbeError(f"None of the {len(clips)} clips could be read; see the log.")
    values = _stack(rows)
    key = digest(" ".join(keys).encode() if keys else values.tobytes())
    return Features(values, key, extractor.first)


def _key(extractor: Extractor, clips: list[Clip], settings: FeatureSettings) -> str:
    """A hash of all that the features of these clips depend on."""
    about = {
        "format": FORMAT,
        "extractor": [type(extractor).__name__, extractor.fingerprint],
        **({"first": extractor.first} if extractor.first else {}),
        "windows": [settings.window_seconds, settings.max_windows],
        "files": [[*file_stamp(clip.wav), clip.duration] for clip in clips],
    }
    return digest(about)


def _compute(
    extractor: Extractor, clips: list[Clip], settings: FeatureSettings
) -> list[np.ndarray | None]:
    """Features (layers, size) of each clip, None if it could not be read."""
    sums: list = [0.0] * len(clips)
    frames = [0] * len(clips)
    windows = settings.window_seconds, settings.max_windows, extractor.sample_rate
    for places, wavs, lens in window_batches(clips, *windows, settings.batch_size, []):
        totals, lengths = extractor.sums(wavs, lens)
        for place, total, length in zip(places, totals, lengths, strict=True):
            sums[place] = sums[place] + total.double().numpy()
            frames[place] += int(length)
    rows = []
    for clip, total, count in zip(clips, sums, frames, strict=True):
        rows.append(extractor.finish(total, count) if count else None)
        if count and not np.isfinite(rows[-1]).all():
            raise ProbeError(
                f"The features of {clip.name!r} are not finite: the encoder is broken, "
                "or the recording is."
            )
    return rows


def _stack(rows: list[np.ndarray | None]) -> np.ndarray:
    """One array of all clips, NaN where there are no features."""
    missing = np.full_like(next(row for row in rows if row is not None), np.nan)
    rows = [missing if row is None else row for row in rows]
    return np.stack(rows).astype(np.float32)


class Extractor(Protocol):
    """What `cached_features` takes."""

    sample_rate: int
    fingerprint: str
    first: int  # number of the first layer of its features

    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the valid frames, and how many there are."""
        ...

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """Turn the sums of a whole clip into its features."""
        ...


class LayerAverages:
    """The time average of every hidden state from `first` on, 0 being the front end."""

    def __init__(self, encoder: nn.Module, first: int = 0):
        self.encoder = encoder.eval()
        self.sample_rate = encoder.sample_rate
        self.first = first
        self.device = next(encoder.parameters()).device

    @cached_property
    def fingerprint(self) -> str:
        """See `Extractor`."""
        return encoder_fingerprint(self.encoder)

    @torch.no_grad()
    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """See `Extractor`."""
        out = self.encoder(wavs.to(self.device), lengths_on(wav_lens, self.device))
        sums = [
            masked_sum(state, out.lens) for state in out.hidden_states[self.first :]
        ]
        return (
            torch.stack([total for total, _ in sums], dim=1).cpu(),
            sums[0][1].cpu(),
        )

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """The averages."""
        return sums / frames


class LogMelStatistics:
    """Mean and standard deviation of every mel band: what needs no encoder."""

    first = 0

    def __init__(self, encoder: nn.Module):
        self.features = log_mel_beside(encoder)
        self.sample_rate = encoder.sample_rate
        self.device = next(encoder.parameters()).device

    @cached_property
    def fingerprint(self) -> str:
        """See `Extractor`."""
        return fingerprint(self.features, self.features.config)

    @torch.no_grad()
    def sums(self, wavs: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the values and of their squares."""
        feats, lens = self.features(
            wavs.to(self.device), lengths_on(wav_lens, self.device)
        )
        values, frames = masked_sum(feats, lens)
        squares, _ = masked_sum(feats.float() ** 2, lens)
        return torch.stack([values, squares], dim=1).cpu(), frames.cpu()

    def finish(self, sums: np.ndarray, frames: int) -> np.ndarray:
        """Mean and standard deviation."""
        mean, square = sums / frames
        deviation = np.sqrt(np.clip(square - mean**2, 0, None))
        return np.concatenate([mean, deviation])[None]


def extractors_of(
    trained: nn.Module, untrained: nn.Module, first: int = 0
) -> dict[str, Extractor]:
    """What is read of an encoder, and what of all that it has to beat."""
    return {
        LOG_MEL: LogMelStatistics(trained),
        UNTRAINED: LayerAverages(untrained, first),
        TRAINED: LayerAverages(trained, first),
    }


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
