"""Checkpoints in the layout of the official MuQ package, written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from muq_plugins.inference.folders import save_folder
from muq_plugins.inference.official import (
    FIXED,
    HEAD,
    PREFIX,
    TOKENIZER,
    OfficialCheckpoint,
)
from muq_plugins.lobes.encoders.muq import MuQEncoder


def save_official(
    folder: str | Path,
    encoder: MuQEncoder,
    checkpoint: OfficialCheckpoint | None = None,
) -> Path:
    """Writes an encoder in the official layout, with safetensors."""
    tensors, config = official_tensors(encoder, checkpoint)
    return save_folder(folder, tensors, config)


def official_tensors(
    encoder: MuQEncoder, checkpoint: OfficialCheckpoint | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An encoder as the official class has it."""
    if not isinstance(encoder, MuQEncoder):
        raise ValueError(
            f"The official layout cannot hold a {type(encoder).__name__}, only a "
            f"MuQEncoder: save it with muq_plugins.inference.muq.save_muq."
        )
    differences = [
        f"{key} is {encoder.config[key]}, there only {value}"
        for key, value in FIXED.items()
        if encoder.config[key] != value
    ]
    if differences:
        raise ValueError(
            f"The official layout cannot hold this encoder: {'; '.join(differences)}."
        )
    tensors = {
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("features.")
    }
    if checkpoint is not None:
        tensors |= {HEAD + name: tensor for name, tensor in checkpoint.head.items()}
        tensors |= {
            TOKENIZER + name: tensor for name, tensor in checkpoint.tokenizer.items()
        }
        tensors |= checkpoint.unused
        config = dict(checkpoint.config)
        config["stat"] = {**config["stat"], **_statistics(encoder, config["stat"])}
    else:
        config = _official_config(encoder)
    return {PREFIX + name: tensor for name, tensor in tensors.items()}, config


def _statistics(encoder: MuQEncoder, known: dict[str, float]) -> dict[str, float]:
    """The log-mel statistics; known ones that differ by rounding only are kept."""
    statistics = {}
    for name in ("mean", "std"):
        key, value = f"melspec_2048_{name}", getattr(encoder.features, name)
        same = key in known and value == value.new_tensor(known[key])
        statistics[key] = known[key] if same else value.item()
    return statistics


def _official_config(encoder: MuQEncoder) -> dict[str, Any]:
    """The settings of the official class that give this encoder."""
    ours = encoder.config
    dropouts = ("attention", "activation", "hidden", "conformer_conv", "feat_proj")
    return {
        "label_rate": 25,
        "num_codebooks": 1,
        "codebook_dim": 16,
        "codebook_size": 8192,
        "features": ["melspec_2048"],
        "hop_length": ours["hop_length"],
        "n_mels": ours["n_mels"],
        "conv_dim": ours["conv_channels"],
        "encoder_dim": ours["width"],
        "encoder_depth": ours["num_layers"],
        "mask_hop": 0.4,
        "mask_prob": 0.6,
        "is_flash": False,
        "stat": _statistics(encoder, {}),
        "w2v2_config": {
            "hidden_size": ours["width"],
            "num_hidden_layers": ours["num_layers"],
            "num_attention_heads": ours["num_heads"],
            "intermediate_size": ours["ffn_width"],
            "hidden_act": "swish",
            "feat_extract_activation": "gelu",
            "conv_depthwise_kernel_size": ours["conv_kernel_size"],
            "position_embeddings_type": "rotary",
            "rotary_embedding_base": 10000,
            "max_source_positions": 5000,
            "num_conv_pos_embeddings": 128,
            "num_conv_pos_embedding_groups": math.gcd(16, ours["width"]),
            **{f"{name}_dropout": ours["dropout"] for name in dropouts},
            "layerdrop": 0.0,
            "layer_norm_eps": 1e-5,
            "initializer_range": 0.02,
        },
        "use_rvq_target": True,
        "rvq_n_codebooks": 8,
        "rvq_multi_layer_num": 1,
    }
