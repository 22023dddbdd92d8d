"""Checkpoints in the layout of the official MuQ package, both ways.

A folder holds ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``. The
names of tensors equal those of our lobes behind the prefix ``model.``; what this file
adds is the meaning of the settings, and strictness: everything the encoder computes
with must be there, the tensors that no forward pass reads are known by name, and
anything else is an error. Facts about the layout come from the package muq 0.1.0.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from muq_plugins.inference.folders import CONFIG, WEIGHTS, save_folder
from muq_plugins.inference.weights import load_strictly, read_tensors
from muq_plugins.lobes.encoder import MuQEncoder

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
    """What a checkpoint in the official layout holds, sorted by use.

    Arguments
    ---------
    config : dict
        The content of ``config.json``.
    encoder : dict
        Tensors that `MuQEncoder` computes with, by our names.
    head : dict
        Tensors of the prediction head, ``weight`` and ``bias``.
    tokenizer : dict
        Tensors of the quantizer inside the checkpoint, by the names of `ResidualVQ`.
        In a checkpoint of iterative training it is not the tokenizer that made the
        labels; by the published settings, which load none, it is an untrained one.
    unused : dict
        Tensors that are kept only to be saved again.

    Example
    -------
    >>> OfficialCheckpoint({"encoder_dim": 1024}).config["encoder_dim"]
    1024
    """

    config: dict[str, Any]
    encoder: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    tokenizer: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, Tensor] = field(default_factory=dict)


def is_official(config: dict[str, Any]) -> bool:
    """Tells whether a ``config.json`` is one of the official package.

    Arguments
    ---------
    config : dict
        Its content.

    Returns
    -------
    bool
        True if it is.

    Example
    -------
    >>> is_official({"kind": "muq_encoder"})
    False
    """
    return "w2v2_config" in config and "encoder_dim" in config


def read_official(folder: str | Path, config: dict[str, Any]) -> OfficialCheckpoint:
    """Reads a checkpoint in the official layout.

    Arguments
    ---------
    folder : str or Path
        Where ``model.safetensors`` or ``pytorch_model.bin`` is.
    config : dict
        The content of its ``config.json``.

    Returns
    -------
    OfficialCheckpoint
        Its tensors, sorted by use.

    Raises
    ------
    FileNotFoundError
        If there is no file of weights.
    ValueError
        If a tensor is of no known use.
    """
    paths = [Path(folder) / name for name in (WEIGHTS, PICKLE)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder} holds a {CONFIG} but neither {WEIGHTS} nor {PICKLE}: download "
            "the whole folder."
        )
    checkpoint = OfficialCheckpoint(config)
    strangers = []
    for name, tensor in read_tensors(path).items():
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
            f"{path} holds tensors that no MuQ checkpoint has: {', '.join(strangers)}."
        )
    return checkpoint


def build_encoder(checkpoint: OfficialCheckpoint, where: str | Path) -> MuQEncoder:
    """Builds the encoder of a checkpoint, strictly.

    Arguments
    ---------
    checkpoint : OfficialCheckpoint
        From `read_official`.
    where : str or Path
        Its folder, for messages.

    Returns
    -------
    MuQEncoder
        With the weights and the log-mel statistics of the checkpoint.

    Raises
    ------
    ValueError
        If a setting asks for something else than MuQ computes, or a tensor is
        missing, unknown or of another shape; all are named.
    """
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


def save_official(
    folder: str | Path,
    encoder: MuQEncoder,
    checkpoint: OfficialCheckpoint | None = None,
) -> Path:
    """Writes an encoder in the official layout, with safetensors.

    Arguments
    ---------
    folder : str or Path
        Where; an older one is replaced.
    encoder : MuQEncoder
        The encoder.
    checkpoint : OfficialCheckpoint or None
        What it was loaded from: its settings and tensors that the encoder has no use
        for are written again. Without it, there is no head and no tokenizer in the
        folder, which the official class needs for training only.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the official code cannot compute this encoder.

    Example
    -------
    >>> encoder = MuQEncoder(32, num_layers=1, num_heads=4, ffn_width=64,
    ...                      conv_channels=4)
    >>> folder = save_official(getfixture("tmp_path") / "official", encoder)
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
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
    tensors = {PREFIX + name: tensor for name, tensor in tensors.items()}
    return save_folder(folder, tensors, config)


def _is_optional(name: str) -> bool:
    """Log-mel statistics come from the settings; some converters drop counters."""
    return name.startswith("features.") or name.endswith("num_batches_tracked")


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
