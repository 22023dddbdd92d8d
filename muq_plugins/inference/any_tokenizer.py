"""Trained tokenizers of any kind, from the folders of their runs.

`MelRVQ` is for the tokenizer of MuQ alone, and takes the file that its authors publish
as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from muq_plugins.inference.folders import find_folder, load_weights, read_config
from muq_plugins.inference.mel_rvq import WEIGHT_FILES, MelRVQ
from muq_plugins.inference.tokenizer import KIND
from muq_plugins.lobes import (
    FiniteScalarQuantization,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    Quantizer,
    StackedFrames,
    Target,
)


def any_tokenizer(source: str | Path, device: str = "cpu") -> Target:
    """Loads a trained tokenizer, strictly; nothing that comes with it is executed."""
    path = Path(source)
    if path.suffix in WEIGHT_FILES and not path.is_dir():
        return MelRVQ.from_pretrained(path, device)
    folder = find_folder(path, "tokenizer")
    config = read_config(folder)
    if config.get("kind") != KIND or config.get("quantizer") == "ResidualVQ":
        return MelRVQ.from_pretrained(path, device)  # which refuses all other models
    features = _known(FEATURES, config, "features", folder)(config["features_config"])
    quantizer = _known(QUANTIZERS, config, "quantizer", folder)(
        features.output_size, config
    )
    target = Target(features, quantizer)
    load_weights(target, folder)
    return target.to(device)


def _known(builders: dict, config: dict, part: str, folder: Path) -> Callable:
    if config[part] not in builders:
        raise ValueError(
            f"{folder} holds a tokenizer with {part} {config[part]}, which cannot be "
            f"built from its folder alone; those that can are {', '.join(builders)}."
        )
    return builders[config[part]]


def _spectrogram(config: dict[str, Any]) -> nn.Module:
    """Coefficients or bands, of which only the coefficients have a number."""
    return (Mfcc if "num_coefficients" in config else LogMel)(**config)


FEATURES: dict[str, Callable[[dict], nn.Module]] = {
    "StackedFrames": lambda config: StackedFrames(
        _spectrogram(config["features"]), config["num_frames"]
    ),
    "KeptFrames": lambda config: KeptFrames(
        _spectrogram(config["features"]), config["every"]
    ),
}
QUANTIZERS: dict[str, Callable[[int, dict], Quantizer]] = {
    "FiniteScalarQuantization": lambda size, config: FiniteScalarQuantization(
        size, config["num_codebooks"], config["levels"]
    ),
    "KMeans": lambda size, config: KMeans(size, config["codebook_size"]),
}
