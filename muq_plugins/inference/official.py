"""Checkpoints in the layout of the official MuQ package, read.

A folder holds ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``. The
names of tensors equal those of our lobes behind the prefix ``model.``; what this file
adds is the meaning of the settings, and strictness: everything the encoder computes
with must be there, the tensors that no forward pass reads are known by name, and
anything else is an error. Facts about the layout come from the package muq 0.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from muq_plugins.inference.folders import CONFIG, WEIGHTS
from muq_plugins.inference.weights import load_strictly, read_tensors
from muq_plugins.lobes.encoders.muq import MuQEncoder

PICKLE = "pytorch_model.bin"
PREFIX = "model."
TOKENIZER = "rvq."
HEAD = "linear."
# Tensors of official checkpoints that no forward pass to the hidden states reads.
UNUSED = (
    "cls_token",
    "conformer.pos_conv_embed.",
    "conformer.embed_positions.",
    "quantizer_melspec_2048",
    "recon_proj.",
)
# What the official code has no setting for, or can only compute in one way.
FIXED = {"sample_rate": 24000, "n_fft": 2048, "hop_length": 240, "n_mels": 128}
REQUIRED = {
    "label_rate": 25,
    "hop_length": 240,
    "n_mels": 128,
    "features": ["melspec_2048"],
}
REQUIRED_CONFORMER = {
    "position_embeddings_type": "rotary",
    "rotary_embedding_base": 10000,
    "layer_norm_eps": 1e-5,
}
SWISH = ("swish", "silu")
CONFORMER_SIZES = (
    "num_attention_heads",
    "intermediate_size",
    "conv_depthwise_kernel_size",
    "hidden_dropout",
)


@dataclass
class OfficialCheckpoint:
    """What a checkpoint in the official layout holds, sorted by use."""

    config: dict[str, Any]  # the content of ``config.json``
    # tensors that `MuQEncoder` computes with, by our names
    encoder: dict[str, Tensor] = field(default_factory=dict)
    # tensors of the prediction head, ``weight`` and ``bias``
    head: dict[str, Tensor] = field(default_factory=dict)
    # tensors of the quantizer inside the checkpoint, by the names of `ResidualVQ`. In a
    # checkpoint of iterative training it is not the tokenizer that made the labels; by
    # the published settings, which load none, it is an untrained one
    tokenizer: dict[str, Tensor] = field(default_factory=dict)
    # tensors that are kept only to be saved again
    unused: dict[str, Tensor] = field(default_factory=dict)


def find_weights(folder: str | Path) -> Path:
    """Finds the file of weights of a checkpoint, safetensors where there are any."""
    paths = [Path(folder) / name for name in (WEIGHTS, PICKLE)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} holds a {CONFIG} but neither {WEIGHTS} nor {PICKLE}: download "
            "the whole folder."
        )
    return path


def is_official(config: dict[str, Any]) -> bool:
    """Tells whether a ``config.json`` is one of the official package."""
    return "w2v2_config" in config and "encoder_dim" in config


def read_official(folder: str | Path, config: dict[str, Any]) -> OfficialCheckpoint:
    """Reads a checkpoint in the official layout."""
    path = find_weights(folder)
    return sort_tensors(read_tensors(path), config, path)


def sort_tensors(
    tensors: dict[str, Tensor], config: dict[str, Any], where: str | Path
) -> OfficialCheckpoint:
    """Sorts the tensors of a checkpoint by use."""
    checkpoint = OfficialCheckpoint(config)
    strangers = []
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        if short.startswith(UNUSED):
            checkpoint.unused[short] = tensor
        elif short.startswith(TOKENIZER):
            checkpoint.tokenizer[short.removeprefix(TOKENIZER)] = tensor
        elif short.startswith(HEAD):
            checkpoint.head[short.removeprefix(HEAD)] = tensor
        elif short.startswith(("conv.", "conformer.")):
            checkpoint.encoder[short] = tensor
        else:
            strangers.append(name)
    if strangers:
        raise ValueError(
            f"{where} holds tensors that no MuQ checkpoint has: {', '.join(strangers)}."
        )
    return checkpoint


def build_encoder(checkpoint: OfficialCheckpoint, where: str | Path) -> MuQEncoder:
    """Builds the encoder of a checkpoint, strictly."""
    config = checkpoint.config
    conformer = config["w2v2_config"]
    problems = [
        f"{key} is {found!r}, only {value!r} is known"
        for part, required in ((config, REQUIRED), (conformer, REQUIRED_CONFORMER))
        for key, value in required.items()
        if (found := part.get(key, value)) != value
    ]
    if conformer.get("hidden_act", "swish") not in SWISH:
        problems.append(f"hidden_act is {conformer['hidden_act']!r}, not 'swish'")
    statistics = [
        config.get("stat", {}).get(f"melspec_2048_{name}") for name in ("mean", "std")
    ]
    needed = {
        "": (config, ("encoder_dim", "encoder_depth", "conv_dim")),
        "w2v2_config.": (conformer, CONFORMER_SIZES),
    }
    problems += [
        f"{prefix}{key} is missing"
        for prefix, (part, keys) in needed.items()
        for key in keys
        if key not in part
    ]
    if None in statistics:
        problems.append("stat lacks melspec_2048_mean or melspec_2048_std")
    if problems:
        raise ValueError(f"{Path(where) / CONFIG}: {'; '.join(problems)}.")

    encoder = MuQEncoder(
        width=config["encoder_dim"],
        num_layers=config["encoder_depth"],
        num_heads=conformer["num_attention_heads"],
        ffn_width=conformer["intermediate_size"],
        conv_channels=config["conv_dim"],
        conv_kernel_size=conformer["conv_depthwise_kernel_size"],
        dropout=conformer["hidden_dropout"],
        **FIXED,
    )
    encoder.features.set_statistics(*statistics)
    load_strictly(encoder, checkpoint.encoder, where, optional=_is_optional)
    return encoder


def _is_optional(name: str) -> bool:
    """Log-mel statistics come from the settings; some converters drop counters."""
    return name.startswith("features.") or name.endswith("num_batches_tracked")
