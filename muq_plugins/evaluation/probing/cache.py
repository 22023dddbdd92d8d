"""Features on disk: computed once for an encoder, its clips and their windows.

The name of a file is a hash of everything that its content depends on: the weights of
the encoder, the clips with the size and time of their files, and the windows. So
features of another encoder or of a changed recording are never found by mistake, and
nothing has to be deleted by hand.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from muq_plugins.data.audio import AudioError
from muq_plugins.evaluation.probe import ProbeError
from muq_plugins.evaluation.probing.clips import Clip
from muq_plugins.evaluation.probing.features import Extractor
from muq_plugins.evaluation.probing.windows import clip_windows
from muq_plugins.files import replace_file

logger = get_logger(__name__)

# Raised whenever a change of the code changes the features.
FORMAT = 1
# Clips in a file: what an interruption can cost.
CHUNK = 64


@dataclass(frozen=True)
class FeatureSettings:
    """How clips become features."""

    folder: str | Path  # where they are kept
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
    slug = name.replace(" ", "_")
    chunks, keys = [], []
    starts = range(0, len(clips), CHUNK)
    for start in tqdm(starts, desc=name, unit="chunk", disable=not progress):
        chunk = clips[start : start + CHUNK]
        keys.append(_key(extractor, chunk, settings))
        path = Path(settings.folder) / f"{slug}-{keys[-1]}.npz"
        values = _load(path)
        if values is None:
            values = _compute(extractor, chunk, settings)
            if values is None:  # not kept: the next attempt may read them
                chunks.append(None)
                continue
            content = io.BytesIO()
            np.savez(content, values=values)
            replace_file(path, content.getvalue())
        chunks.append(values)
    shapes = [chunk.shape[1:] for chunk in chunks if chunk is not None]
    if not shapes:
        raise ProbeError(f"None of the {len(clips)} clips could be read; see the log.")
    for index, start in enumerate(starts):
        if chunks[index] is None:
            size = len(clips[start : start + CHUNK])
            chunks[index] = np.full((size, *shapes[0]), np.nan, dtype=np.float32)
    key = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
    return Features(np.concatenate(chunks), key)


def _key(extractor: Extractor, clips: list[Clip], settings: FeatureSettings) -> str:
    """A hash of all that the features of these clips depend on."""
    files = []
    for clip in clips:
        try:
            status = os.stat(clip.wav)
        except OSError as error:
            raise ProbeError(
                f"The clip {clip.name!r} is not there: {error}. Restore it, or take it "
                "out of the list."
            ) from error
        files.append([clip.wav, status.st_size, status.st_mtime_ns, clip.duration])
    about = {
        "format": FORMAT,
        "extractor": [type(extractor).__name__, extractor.fingerprint],
        "windows": [settings.window_seconds, settings.max_windows],
        "files": files,
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _load(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as content:
        return content["values"]


def _compute(
    extractor: Extractor, clips: list[Clip], settings: FeatureSettings
) -> np.ndarray | None:
    """Features (clips, layers, size), None if no clip could be read."""
    sums: list = [0.0] * len(clips)
    frames = [0] * len(clips)
    batch: list[tuple[int, torch.Tensor]] = []

    def encode():
        if not batch:
            return
        windows = [wav for _, wav in batch]
        wavs = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True)
        lens = torch.tensor([len(wav) for wav in windows]) / wavs.shape[1]
        totals, lengths = extractor.sums(wavs, lens)
        for row, (index, _) in enumerate(batch):
            sums[index] = sums[index] + totals[row].double().numpy()
            frames[index] += int(lengths[row])
        batch.clear()

    for index, clip in enumerate(clips):
        try:
            windows = clip_windows(
                clip,
                settings.window_seconds,
                settings.max_windows,
                extractor.sample_rate,
            )
        except AudioError as error:
            logger.warning(f"Probe: left out: {error}")
            continue
        for wav in windows:
            batch.append((index, wav))
            if len(batch) == settings.batch_size:
                encode()
    encode()
    features = [
        extractor.finish(total, count) if count else None
        for total, count in zip(sums, frames, strict=True)
    ]
    shape = next((row.shape for row in features if row is not None), None)
    if shape is None:
        return None
    for clip, row in zip(clips, features, strict=True):
        if row is not None and not np.isfinite(row).all():
            raise ProbeError(
                f"The features of {clip.name!r} are not finite: the encoder is broken, "
                "or the recording is."
            )
    missing = np.full(shape, np.nan)
    return np.stack([missing if row is None else row for row in features]).astype(
        np.float32
    )
