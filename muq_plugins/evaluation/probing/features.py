"""What a probe reads: one vector a clip and layer, computed once and kept on disk.

It is the mean and the standard deviation of every value over the valid frames of all
windows of a clip, of a log-mel as of every layer of every encoder: what one row is told
and another is not would decide a comparison. Each frame counts the same.

The name of a file is a hash of everything that its content depends on: the weights of
the encoder, the clips with the size and time of their files, and the windows. So
features of another encoder or of a changed recording are never found by mistake, and
nothing has to be deleted by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from muq_plugins.evaluation.kept import digest, file_stamp, load_arrays, save_arrays
from muq_plugins.evaluation.probing.clips import (
    Clip,
    ProbeError,
    check_seeds,
    window_batches,
)
from muq_plugins.evaluation.probing.results import LOG_MEL, TRAINED, UNTRAINED
from muq_plugins.lobes.batch_norm import batch_norms, measure_batch_statistics
from muq_plugins.lobes.constant_q import ConstantQ
from muq_plugins.lobes.features import StackedFrames
from muq_plugins.lobes.lengths import (
    absolute_lengths,
    length_mask,
    lengths_on,
    without_padding,
)
from muq_plugins.lobes.mel import LogMel
from muq_plugins.lobes.parts import build, describe, encoder_fingerprint, fingerprint

# Raised whenever a change of the code changes the features.
FORMAT = 2
# Clips in a file: what an interruption can cost.
CHUNK = 64
# Of the weights of untrained encoders: one alone may be lucky.
UNTRAINED_SEEDS = (1234, 1235, 1236, 1237, 1238)
# Windows that the batch normalisation of untrained encoders is measured on, in batches.
MEASURED, AT_ONCE = 16, 8
# Of the strongest pitch class, about -80 dBFS: what is below is rounding.
SILENT = 1e-3


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
        found: list[np.ndarray | None] = [None] * len(some)
        if settings.folder is not None:
            keys.append(_key(extractor, some, settings))
            file = f"{name.replace(' ', '_')}-{keys[-1]}.npz"
            path = Path(settings.folder) / file
            if path.is_file():
                found = list(load_arrays(path)["values"])
        # What could not be read is tried again: a drive may have been away.
        lost = [at for at, row in enumerate(found) if not _is_there(row)]
        again = _compute(extractor, [some[at] for at in lost], settings) if lost else []
        for at, row in zip(lost, again, strict=True):
            found[at] = row
        if path is not None and any(map(_is_there, again)):
            save_arrays(path, values=_stack(found))
        rows += found
    if all(row is None for row in rows):
        raise ProbeError(f"None of the {len(clips)} clips could be read; see the log.")
    values = _stack(rows)
    key = digest(" ".join(keys).encode() if keys else values.tobytes())
    return Features(values, key)


def _key(extractor: Extractor, clips: list[Clip], settings: FeatureSettings) -> str:
    """A hash of all that the features of these clips depend on."""
    about = {
        "format": FORMAT,
        "extractor": [type(extractor).__name__, extractor.fingerprint],
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
        totals, lengths = moment_sums(*extractor.states(wavs, lens))
        for place, total, length in zip(places, totals, lengths, strict=True):
            sums[place] = sums[place] + total.numpy()
            frames[place] += int(length)
    rows = []
    for clip, total, count in zip(clips, sums, frames, strict=True):
        rows.append(mean_and_deviation(total / count) if count else None)
        if count and not np.isfinite(rows[-1]).all():
            raise ProbeError(
                f"The features of {clip.name!r} are not finite: the encoder is broken, "
                "or the recording is."
            )
    return rows


def _is_there(row: np.ndarray | None) -> bool:
    return row is not None and bool(np.isfinite(row).all())


def _stack(rows: list[np.ndarray | None]) -> np.ndarray:
    """One array of all clips, NaN where there are no features."""
    missing = np.full_like(next(row for row in rows if row is not None), np.nan)
    rows = [missing if row is None else row for row in rows]
    return np.stack(rows).astype(np.float32)


class Extractor(Protocol):
    """What `cached_features` takes."""

    sample_rate: int
    fingerprint: str
    frame_rate: float  # of `frames`, in Hz
    layers: int  # how many are read
    others: Sequence[Extractor]  # the same on other devices, which work beside it

    def states(
        self, wavs: Tensor, wav_lens: Tensor
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """What is pooled: layers (batch, frames, size), and relative lengths."""
        ...

    def frames(
        self, wavs: Tensor, wav_lens: Tensor
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """What is read frame by frame: layers (batch, frames, size), and lengths."""
        ...


class HiddenStates:
    """Every hidden state, 0 being the front end."""

    def __init__(self, encoder: nn.Module, other_devices: Sequence[str] = ()):
        self.encoder = encoder.eval()
        self.others = [HiddenStates(deepcopy(encoder).to(d)) for d in other_devices]
        self.sample_rate = encoder.sample_rate
        self.frame_rate = encoder.frame_rate
        self.layers = encoder.num_layers + 1
        self.device = next(encoder.parameters()).device

    @cached_property
    def fingerprint(self) -> str:
        """See `Extractor`."""
        return encoder_fingerprint(self.encoder)

    @torch.no_grad()
    def states(self, wavs: Tensor, wav_lens: Tensor):
        """See `Extractor`."""
        out = self.encoder(wavs.to(self.device), lengths_on(wav_lens, self.device))
        return out.hidden_states, out.lens

    def frames(self, wavs: Tensor, wav_lens: Tensor):
        """See `Extractor`."""
        return self.states(wavs, wav_lens)


class LogMelFrames:
    """The log-mel spectrogram: what needs no encoder."""

    layers = 1
    others = ()

    def __init__(self, encoder: nn.Module | None = None):
        """Beside an encoder; without one, as MuQ hears it."""
        if encoder is None:
            self.features, rate, self.device = LogMel(), 25.0, torch.device("cpu")
        else:
            self.features, rate = log_mel_beside(encoder), encoder.frame_rate
            self.device = next(encoder.parameters()).device
        ratio = self.features.frame_rate / rate
        self.stacked = StackedFrames(self.features, max(1, round(ratio)))
        self.frame_rate = self.stacked.frame_rate
        self.sample_rate = self.features.sample_rate

    @cached_property
    def fingerprint(self) -> str:
        """See `Extractor`."""
        return fingerprint(self.stacked, self.stacked.config)

    @torch.no_grad()
    def states(self, wavs: Tensor, wav_lens: Tensor):
        """See `Extractor`."""
        lens = lengths_on(wav_lens, self.device)
        feats, lens = self.features(wavs.to(self.device), lens)
        return [feats], lens

    @torch.no_grad()
    def frames(self, wavs: Tensor, wav_lens: Tensor):
        """All frames within one of the encoder, side by side."""
        lens = lengths_on(wav_lens, self.device)
        feats, lens = self.stacked(wavs.to(self.device), lens)
        return [feats], lens


class ChromaFrames:
    """Twelve pitch classes, from C, of a constant-Q transform: what needs no encoder.

    Octaves are added up, and the strongest class of each frame is 1, as librosa's
    `chroma_cqt` has it by default.
    """

    layers = 1
    others = ()

    def __init__(self):
        self.features = ConstantQ(num_bins=84, bins_per_octave=12)
        self.sample_rate = self.features.sample_rate
        self.frame_rate = self.features.frame_rate

    @cached_property
    def fingerprint(self) -> str:
        """See `Extractor`."""
        return fingerprint(self.features, self.features.config)

    @torch.no_grad()
    def states(self, wavs: Tensor, wav_lens: Tensor):
        """See `Extractor`."""
        bands, lens = self.features(wavs.cpu(), lengths_on(wav_lens, "cpu"))
        chroma = bands.unflatten(-1, (-1, 12)).sum(dim=2)
        strongest = chroma.amax(dim=-1, keepdim=True)
        return [torch.where(strongest > SILENT, chroma / strongest, 0)], lens

    def frames(self, wavs: Tensor, wav_lens: Tensor):
        """See `Extractor`."""
        return self.states(wavs, wav_lens)


def moment_sums(states: Sequence[Tensor], lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sums over valid frames of values and of their squares, and how many these are.

    (batch, layers, 2, size) float64 and (batch,), on the CPU. Squares are taken around
    the mean of the window first: a small deviation beside a large mean would be lost.
    """
    batch, frames, _ = states[0].shape
    lengths = absolute_lengths(lens, frames, batch)
    if lengths is None:
        lengths = torch.full((batch,), frames, device=states[0].device)
    lengths = lengths.clamp(min=1)
    mask = length_mask(lengths, frames, states[0].device)[..., None]
    own, count = lengths[:, None].to(states[0].device), lengths[:, None].cpu()
    sums = []
    for values in states:
        values = values.float()
        mean = (values * mask).sum(dim=1) / own
        spread = (((values - mean[:, None]) * mask) ** 2).sum(dim=1)
        mean, spread = mean.cpu().double(), spread.cpu().double()
        sums.append(torch.stack([mean * count, spread + count * mean**2], dim=1))
    return torch.stack(sums, dim=1), lengths.cpu()


def mean_and_deviation(moments: np.ndarray) -> np.ndarray:
    """From means of values and squares (layers, 2, size) to (layers, 2 * size)."""
    mean, square = moments[:, 0], moments[:, 1]
    deviation = np.sqrt(np.clip(square - mean**2, 0, None))
    return np.concatenate([mean, deviation], axis=-1)


def extractors_of(
    trained: nn.Module, untrained: Sequence[nn.Module]
) -> dict[str, list[Extractor]]:
    """What is read of an encoder, and what of all that it has to beat."""
    return {
        LOG_MEL: [LogMelFrames(trained)],
        UNTRAINED: [HiddenStates(encoder) for encoder in untrained],
        TRAINED: [HiddenStates(trained)],
    }


def log_mel_beside(encoder: nn.Module) -> nn.Module:
    """The log-mel spectrogram that a probe of an encoder is compared with."""
    if encoder.features is not None:
        return encoder.features
    log_mel = LogMel(encoder.sample_rate, hop_length=encoder.sample_rate // 100)
    return log_mel.to(next(encoder.parameters()).device)


def untrained_like(
    encoder: nn.Module,
    seeds: Sequence[int],
    clips: Sequence[Clip],
    settings: FeatureSettings,
) -> list[nn.Module]:
    """The same encoder before any training, from several initialisations.

    They hear the same normalised input, and their batch normalisation knows the music,
    as in the first updates of a training: it is measured on clips of the training part,
    or on any where the parts are not decided. That need not be the stronger reference:
    see docs/training.md.
    """
    check_seeds(seeds, "untrained_seeds")
    device, heard, made = next(encoder.parameters()).device, [], []
    if batch_norms(encoder):
        heard = list(_training_audio(clips, settings, encoder))
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):  # of the weights, and of dropout
            torch.manual_seed(seed)
            if hasattr(encoder, "untrained"):
                untrained = encoder.untrained()
            else:
                untrained = build(describe(encoder))
            if encoder.features is not None:
                untrained.features.load_state_dict(encoder.features.state_dict())
            untrained.to(device).eval()
            if heard:
                batches = (wavs.to(device) for wavs in heard)
                measure_batch_statistics(untrained, batches)
        made.append(untrained)
    return made


def _training_audio(
    clips: Sequence[Clip], settings: FeatureSettings, encoder: nn.Module
) -> Iterator[Tensor]:
    """A few batches of windows without padding, each of another clip."""
    clips = [clip for clip in clips if clip.part in ("train", None)]
    clips = clips[:: max(1, len(clips) // MEASURED)][:MEASURED]
    windows = settings.window_seconds, 1, encoder.sample_rate, AT_ONCE
    for _, wavs, lens in window_batches(clips, *windows, []):
        yield without_padding(wavs, lens, encoder.min_samples)
