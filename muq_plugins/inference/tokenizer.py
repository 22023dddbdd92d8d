"""Trained tokenizers: saving them, and putting one into a target."""

from __future__ import annotations

from pathlib import Path

from muq_plugins.inference.folders import (
    HYPERPARAMETERS,
    find_folder,
    load_weights,
    read_config,
    save_folder,
)
from muq_plugins.lobes.target import Target

KIND = "tokenizer"


def save_tokenizer(folder: str | Path, target: Target, hyperparameters: str) -> Path:
    """Writes the inference folder of a tokenizer."""
    return save_folder(folder, target.state_dict(), _describe(target), hyperparameters)


def is_saved_tokenizer(folder: str | Path, hyperparameters: str) -> bool:
    """Tells whether `save_tokenizer` has finished for the same experiment."""
    path = Path(folder) / HYPERPARAMETERS
    return path.is_file() and path.read_text(encoding="utf-8") == hyperparameters


def load_tokenizer(target: Target, source: str | Path) -> None:
    """Loads a trained tokenizer into a target, strictly."""
    if not isinstance(target, Target):
        raise ValueError(
            f"A {type(target).__name__} takes no trained tokenizer: its quantizers are "
            f"used as they are made. Set tokenizer and tokenizer_folder to null, or "
            f"choose a target of one view."
        )
    folder = find_folder(source, "tokenizer")
    found, expected = read_config(folder), _describe(target)
    differences = [
        f"{key} is {found.get(key)} there, {value} here"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if differences:
        raise ValueError(
            f"The tokenizer in {folder} does not fit this experiment: "
            f"{'; '.join(differences)}. Change the YAML or give another folder."
        )
    load_weights(target, folder)


def _describe(target: Target) -> dict:
    """What must be equal for codes to mean the same."""
    return {
        "kind": KIND,
        "features": type(target.features).__name__,
        "features_config": target.features.config,
        "quantizer": type(target.quantizer).__name__,
        "sample_rate": target.sample_rate,
        "frame_rate": target.frame_rate,
        "num_codebooks": target.num_codebooks,
        "codebook_size": target.codebook_size,
        **target.quantizer.config,
    }
