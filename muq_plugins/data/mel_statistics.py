"""The global mean and deviation that spectrograms are normalised with."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.distributed import run_on_main
from torch import nn
from tqdm import tqdm

from muq_plugins.data.clips import evaluation_loader
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError, given_by_user
from muq_plugins.files import locked, read_json, write_json
from muq_plugins.lobes.features import Standardised
from muq_plugins.lobes.mel import LogMel

WINDOW_SECONDS = 5.0
BATCH_SIZE = 16
MAX_WINDOWS = 256  # 21 minutes: enough for three digits, seconds to compute


def normalise(
    features: nn.Module, manifests: Manifests, statistics: list[float] | None
) -> None:
    """Sets the normalisation of all spectrograms in some features.

    Each is measured with its own settings. Given values are for log-mel spectrograms
    of one setting: a window of another length has other decibels.
    """
    check_statistics(features, statistics)
    for part in features.modules():
        if isinstance(part, Standardised):
            given = statistics if isinstance(part, LogMel) else None
            mean, std = given or mel_statistics(part, manifests.train, manifests.folder)
            with given_by_user():
                part.set_statistics(mean, std)


def check_statistics(features: nn.Module, statistics: Any) -> None:
    """Refuses given statistics that `normalise` could not set, before music is read."""
    if statistics is not None:
        _refuse_other_than_numbers(statistics)
        parts = [part for part in features.modules() if isinstance(part, LogMel)]
        _refuse_differences(parts, statistics)


def _refuse_other_than_numbers(given: Any) -> None:
    pair = given if isinstance(given, list | tuple) and len(given) == 2 else ["", ""]
    numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in pair)
    if not numbers or not pair[1] > 0:
        raise UserError(
            f"mel_statistics is {given!r}, but must be [mean, std] in dB, with a "
            "deviation above 0, or null, which measures them."
        )


def _refuse_differences(spectrograms: list[LogMel], statistics: list[float]) -> None:
    for part in spectrograms[1:]:
        if part.config != spectrograms[0].config:
            raise UserError(
                f"mel_statistics is {list(statistics)}, but there are log-mel "
                f"spectrograms of different settings, {spectrograms[0].config} and "
                f"{part.config}, which one mean and deviation cannot normalise. Set "
                f"mel_statistics to null: each is then measured on the training part."
            )


def mel_statistics(
    features: Standardised, manifest: dict, folder: str | Path, progress: bool = True
) -> tuple[float, float]:
    """Measures the statistics on a corpus once, and remembers them.

    Up to 256 windows of 5 s are used, spread over the corpus, of few files several. The
    results, one for each setting of the spectrogram and each choice of clips, are kept
    in ``mel_statistics.json`` in the folder; measuring again means deleting it. With
    several processes the first one measures, and of several runs at the same time
    only one.
    """
    path = Path(folder) / "mel_statistics.json"
    clips = hashlib.sha256(os.fsencode("\n".join(sorted(manifest)))).hexdigest()[:16]
    key = {"settings": features.config, "clips": clips}
    if seen := _seen_in(Path(folder)):  # other files may have the same names
        key["seen"] = seen
    if not isinstance(features, LogMel):  # nobody else was measured at first
        key["class"] = type(features).__name__
    # On every process, measured or not: those that wait must all wait.
    run_on_main(_measure, args=[type(features), key, manifest, path, progress])
    measured = _find(path, key)
    return measured["mean"], measured["std"]


def _seen_in(folder: Path) -> str | None:
    """What tells the files of a scan, or the shards, from those of another time."""
    paths = (folder / name for name in ("scan.json", "shards.json"))
    for path in filter(Path.is_file, paths):
        found = read_json(path, "delete it, and the music is looked through again")
        if isinstance(found, dict):
            seen = found.get("seen") or found  # by a scan; of shards it is their hashes
            return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]
    return None


def _find(path: Path, key: dict) -> dict | None:
    """What was measured before of the same clips with the same settings."""
    return next((one for one in _records(path) if {**one, **key} == one), None)


def _records(path: Path) -> list[dict]:
    """All that was measured before; files of a single record say not of which clips."""
    if not path.exists():
        return []
    records = read_json(path, "delete it, and it is measured again")
    return records if isinstance(records, list) else []


def _measure(
    kind: type[Standardised], key: dict, manifest: dict, path: Path, progress: bool
) -> None:
    """Measures and adds the result to the file, unless that was done before."""
    if _find(path, key) is not None:
        return  # nothing to write: the folder may be read-only
    with locked(path.parent):
        if _find(path, key) is None:
            # A chain of its own on the CPU: the one given may be on a GPU already.
            features = kind(**key["settings"])
            features.set_statistics(0.0, 1.0)
            measured = _statistics(features, manifest, path.parent, progress)
            write_json(path, [*_records(path), {**measured, **key}])


@torch.no_grad()
def _statistics(
    features: nn.Module, manifest: dict, folder: Path, progress: bool
) -> dict:
    """Mean, deviation and number of all values."""
    loader = evaluation_loader(
        manifest,
        WINDOW_SECONDS,
        BATCH_SIZE,
        windows_per_clip=-(-MAX_WINDOWS // len(manifest)),
        max_windows=MAX_WINDOWS,
        sample_rate=round(features.sample_rate),
    )
    total = squares = frames = torch.zeros((), dtype=torch.float64)
    bar = tqdm(loader, desc="statistics", disable=not progress)
    for batch in bar:
        # One by one, so that padding needs no thought; reading is what takes time.
        for wav, share in zip(batch.wavs, batch.wav_lens, strict=True):
            samples = round(float(share) * len(wav))
            if samples <= getattr(features, "n_fft", 0) // 2:
                continue
            values = features(wav[None, :samples])[0].double()
            total = total + values.sum()
            squares = squares + values.square().sum()
            frames = frames + values.numel()
    if frames == 0:
        raise UserError(
            f"No audio of {folder} could be read to measure the statistics of "
            f"{type(features).__name__}: scan the data folder again."
        )
    mean = total / frames
    std = (squares / frames - mean.square()).clamp(min=0).sqrt()
    return {"mean": mean.item(), "std": std.item(), "values": int(frames)}
