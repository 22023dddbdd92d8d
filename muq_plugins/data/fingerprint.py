"""Telling models apart by what they compute, not by where they lie.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

# Settings of an encoder that change nothing in evaluation mode.
TRAINING_ONLY = ("dropout", "gradient_checkpointing")


def fingerprint(module: nn.Module, config: dict[str, Any]) -> str:
    """A short hash of weights and settings.

    Arguments
    ---------
    module : nn.Module
        Its state dict is read: names, shapes and every value.
    config : dict
        Settings that the weights do not show, as JSON can hold them.

    Returns
    -------
    str
        16 hexadecimal digits; equal for a model and its copy in another folder, layout
        or on another device.

    Example
    -------
    >>> layer = nn.Linear(2, 2)
    >>> before = fingerprint(layer, {})
    >>> before == fingerprint(layer, {}), before == fingerprint(layer, {"size": 2})
    (True, False)
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # As bytes, since numpy has no bfloat16.
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def encoder_fingerprint(encoder: nn.Module) -> str:
    """A short hash of what an encoder computes when it is not trained.

    Arguments
    ---------
    encoder : nn.Module
        Any encoder with a ``config``.

    Returns
    -------
    str
        16 hexadecimal digits; settings that matter in training alone do not count.

    Example
    -------
    >>> encoder = nn.Linear(2, 2)
    >>> encoder.config = {"width": 2, "dropout": 0.1}
    >>> before = encoder_fingerprint(encoder)
    >>> encoder.config["dropout"] = 0.0
    >>> encoder_fingerprint(encoder) == before
    True
    """
    config = {k: v for k, v in encoder.config.items() if k not in TRAINING_ONLY}
    return fingerprint(encoder, config)
