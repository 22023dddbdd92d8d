"""Inference folders: what a run leaves behind for others to use.

A folder holds ``config.json`` (plain numbers), ``model.safetensors`` (weights) and,
for SpeechBrain's ``from_hparams``, ``hyperparams.yaml``. Reading one executes
nothing: numbers are data, and so are weights in safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from muq_plugins.data.atomic import replace_model_folder
from muq_plugins.inference.weights import check_weights, load_strictly, read_tensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
HYPERPARAMETERS = "hyperparams.yaml"


def save_folder(
    folder: str | Path,
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    hyperparameters: str | None = None,
    loadable: str | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> Path:
    """Writes an inference folder; it is complete or not there."""
    folder = Path(folder)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()
    }
    check_weights(tensors, f"The model for {folder}")
    with replace_model_folder(folder) as unfinished:
        save_file(tensors, unfinished / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(config, indent=2) + "\n"
        (unfinished / CONFIG).write_text(text, encoding="utf-8")
        if hyperparameters is not None:
            path = unfinished / HYPERPARAMETERS
            path.write_text(hyperparameters, encoding="utf-8")
        if loadable is not None:
            # The Pretrainer finds <loadable>.ckpt and nothing else beside its YAML. A
            # second name for the same file takes no space.
            os.link(unfinished / WEIGHTS, unfinished / f"{loadable}.ckpt")
        if write_more is not None:
            write_more(unfinished)
    return folder


def find_folder(source: str | Path, what: str) -> Path:
    """Finds the inference folder in a run folder, or takes the folder itself."""
    source = Path(source)
    for folder in (source, source / "inference"):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    raise FileNotFoundError(
        f"No trained {what} in {source}: neither it nor {source / 'inference'} holds "
        f"{CONFIG} and {WEIGHTS}. Give the folder of a finished run."
    )


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads ``config.json``."""
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}): make the folder again from its run."
        ) from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{path} must hold a JSON object, not {type(config).__name__}."
        )
    return config


def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Loads weights strictly: every tensor must be there, with the right shape."""
    path = Path(folder) / WEIGHTS
    load_strictly(module, read_tensors(path), path)


def pretrainer_hook(module: nn.Module, path: str | Path) -> None:
    """Lets SpeechBrain's Pretrainer load safetensors, strictly."""
    tensors = load_file(path)
    check_weights(tensors, path)
    load_strictly(module, tensors, path)
