"""The layout of the official MuQ package, read and written by one map of names.

A folder holds ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``. The
names of tensors equal those of our lobes behind the prefix ``model.``; what this file
adds is the meaning of the settings, and strictness: everything the encoder computes
with must be there, the tensors that no forward pass reads are known by name, and
anything else is an error. Facts about the layout come from the package muq 0.1.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from muq_plugins.errors import UserError
from muq_plugins.inference.folders import (
    CONFIG,
    find_weights,
    load_strictly,
    read_tensors,
    save_folder,
)
from muq_plugins.lobes.encoders.muq import MuQEncoder

# What the official code has no setting for, or can only compute in one way.
FIXED = {
    "sample_rate": 24000,
    "n_fft": 2048,
    "hop_length": 240,
    "n_mels": 128,
    "mel_floor": None,
}
CONFORMER = "w2v2_config"
# Where the official class has the arguments of ours; "" is outside of all sections.
SETTINGS = {
    "": {
        "width": "encoder_dim",
        "num_layers": "encoder_depth",
        "conv_channels": "conv_dim",
    },
    CONFORMER: {
        "num_heads": "num_attention_heads",
        "ffn_width": "intermediate_size",
        "conv_kernel_size": "conv_depthwise_kernel_size",
        "dropout": "hidden_dropout",
    },
}
# What must be so, since our encoder computes nothing else.
REQUIRED = {
    "": {
        "label_rate": 25,
        "hop_length": 240,
        "n_mels": 128,
        "features": ["melspec_2048"],
    },
    CONFORMER: {
        "position_embeddings_type": "rotary",
        "rotary_embedding_base": 10000,
        "layer_norm_eps": 1e-5,
        "hidden_act": "swish",
    },
}
# What the official class wants to know too, as the published settings have it.
USUAL = {
    "": {
        "num_codebooks": 1,
        "codebook_dim": 16,
        "codebook_size": 8192,
        "mask_hop": 0.4,
        "mask_prob": 0.6,
        "is_flash": False,
        "use_rvq_target": True,
        "rvq_n_codebooks": 8,
        "rvq_multi_layer_num": 1,
    },
    CONFORMER: {
        "feat_extract_activation": "gelu",
        "max_source_positions": 5000,
        "num_conv_pos_embeddings": 128,
        "layerdrop": 0.0,
        "initializer_range": 0.02,
    },
}
STATISTICS = ("melspec_2048_mean", "melspec_2048_std")


@dataclass
class Checkpoint:
    """What a checkpoint in an official layout holds, sorted by use.

    ``own`` is what the model computes with, by our names. ``others`` are kept to be
    saved again, and so is what no forward pass reads, ``unused``. The tokenizer among
    the others is not the one that made the labels of iterative training; by the
    published settings, which load none, it is an untrained one. A MuQ-MuLan has a
    ``muq`` inside.
    """

    config: dict[str, Any]
    own: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    unused: dict[str, Tensor] = field(default_factory=dict)
    muq: Checkpoint | None = None


@dataclass(frozen=True)
class KeyMap:
    """The names of tensors in an official layout, both ways.

    Names there have a ``prefix``, which some converters leave out, and begin with one
    of ``own``, ``others`` or ``unused``. Of the ``renames``, ours to theirs, those with
    a dot in front are ends of names, the rest beginnings.
    """

    kind: str
    prefix: str
    own: tuple[str, ...]
    others: dict[str, str]
    unused: tuple[str, ...]
    renames: tuple[tuple[str, str], ...] = ()

    def theirs(self, name: str) -> str:
        """The name there of a tensor that we compute with."""
        return self.prefix + _renamed(name, self.renames)

    def ours(self, name: str) -> str:
        """Our name of one of theirs."""
        back = tuple((theirs, ours) for ours, theirs in self.renames)
        return _renamed(name.removeprefix(self.prefix), back)

    def sort(
        self, tensors: dict[str, Tensor], config: dict[str, Any], where: str | Path
    ) -> Checkpoint:
        """Sorts the tensors of a checkpoint by use; strangers are named."""
        others: dict[str, dict[str, Tensor]] = {group: {} for group in self.others}
        checkpoint = Checkpoint(config, others=others)
        strangers = []
        for name, tensor in tensors.items():
            short = name.removeprefix(self.prefix)
            group = next((g for g in others if short.startswith(self.others[g])), None)
            if short.startswith(self.unused):
                checkpoint.unused[short] = tensor
            elif group is not None:
                others[group][short.removeprefix(self.others[group])] = tensor
            elif short.startswith(self.own):
                checkpoint.own[self.ours(short)] = tensor
            else:
                strangers.append(name)
        if strangers:
            raise UserError(
                f"{where} holds tensors that no {self.kind} checkpoint has: "
                f"{', '.join(strangers)}."
            )
        return checkpoint

    def write(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """All tensors of a checkpoint by their names there, the inverse of `sort`."""
        kept = dict(checkpoint.unused)
        for group, tensors in checkpoint.others.items():
            kept |= {self.others[group] + name: t for name, t in tensors.items()}
        return {self.theirs(name): t for name, t in checkpoint.own.items()} | {
            self.prefix + name: tensor for name, tensor in kept.items()
        }


def _renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """A name with the first beginning and the first end that a pair knows replaced."""
    for before, after in pairs:
        if before.startswith("."):
            if name.endswith(before):
                name = name.removesuffix(before) + after
                break
        elif name.startswith(before):
            name = after + name.removeprefix(before)
    return name


MUQ = KeyMap(
    kind="MuQ",
    prefix="model.",
    own=("conv.", "conformer."),
    others={"tokenizer": "rvq.", "head": "linear."},
    unused=(
        "cls_token",
        "conformer.pos_conv_embed.",
        "conformer.embed_positions.",
        "quantizer_melspec_2048",
        "recon_proj.",
    ),
)


def is_official(config: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is one of the official package."""
    return CONFORMER in config and "encoder_dim" in config


def misfits(
    config: dict[str, Any],
    required: dict[str, dict[str, Any]],
    needed: Mapping[str, Iterable[str]],
) -> list[str]:
    """Settings that ask for what is not computed here, and those that are missing.

    Both are known by their section; "" is outside of all.
    """
    sections = {"": config, **config}
    problems = [
        f"{section}.{key} is {found!r}, only {value!r} is known"
        for section, settings in required.items()
        for key, value in settings.items()
        if (found := sections[section].get(key, value)) != value
        and not (found == "silu" and value == "swish")  # two names of one function
    ]
    problems += [
        f"{section}.{key} is missing"
        for section, keys in needed.items()
        for key in keys
        if key not in sections.get(section, ())
    ]
    return [words.removeprefix(".") for words in problems]


def read_official(folder: str | Path, config: dict[str, Any]) -> Checkpoint:
    """Reads a checkpoint in the official layout."""
    path = find_weights(folder)
    return MUQ.sort(read_tensors(path), config, path)


def build_encoder(checkpoint: Checkpoint, where: str | Path) -> MuQEncoder:
    """Builds the encoder of a checkpoint strictly, and empties ``checkpoint.own``.

    Raises UserError if a setting asks for something else than is computed here, or a
    tensor is missing, unknown or of another shape; all are named.
    """
    config = checkpoint.config
    conformer = config[CONFORMER]
    needed = {section: names.values() for section, names in SETTINGS.items()}
    problems = misfits(config, REQUIRED, {**needed, "stat": STATISTICS})
    if problems:
        raise UserError(f"{Path(where) / CONFIG}: {'; '.join(problems)}.")

    sections = {"": config, CONFORMER: conformer}
    arguments = {
        ours: sections[section][theirs]
        for section, names in SETTINGS.items()
        for ours, theirs in names.items()
    }
    encoder = MuQEncoder(**arguments, **FIXED)
    encoder.features.set_statistics(*map(config["stat"].get, STATISTICS))
    load_strictly(
        encoder,
        checkpoint.own,
        where,
        # Log-mel statistics come from the settings; some converters drop counters.
        optional=lambda name: (
            name.startswith("features.") or name.endswith("num_batches_tracked")
        ),
    )
    checkpoint.own = {}  # the encoder has its own copy
    return encoder


def save_official(
    folder: str | Path, encoder: MuQEncoder, checkpoint: Checkpoint | None = None
) -> Path:
    """Writes an encoder in the official layout, with safetensors."""
    return save_folder(folder, *official_tensors(encoder, checkpoint))


def official_tensors(
    encoder: MuQEncoder, checkpoint: Checkpoint | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An encoder as the official class has it, and its settings.

    ``checkpoint`` is what was loaded with it, to be written again. Raises UserError if
    the official code cannot compute this encoder.
    """
    if not isinstance(encoder, MuQEncoder):
        raise UserError(
            f"The official layout cannot hold a {type(encoder).__name__}, only a "
            f"MuQEncoder: save it with muq_plugins.inference.muq.save_muq."
        )
    differences = [
        f"{key} is {encoder.config.get(key)}, there only {value}"
        for key, value in FIXED.items()
        if encoder.config.get(key) != value
    ]
    if differences:
        raise UserError(
            f"The official layout cannot hold this encoder: {'; '.join(differences)}. "
            f'layout="transformers" can.'
        )
    if checkpoint is None:
        checkpoint = Checkpoint(_official_config(encoder))
    own = {
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("features.")
    }
    config = dict(checkpoint.config)
    config["stat"] = {**config["stat"], **_statistics(encoder, config["stat"])}
    whole = Checkpoint(config, own, checkpoint.others, checkpoint.unused)
    return MUQ.write(whole), config


def _statistics(encoder: MuQEncoder, known: dict[str, float]) -> dict[str, float]:
    """The log-mel statistics; known ones that differ by rounding only are kept."""
    statistics = {}
    for key in STATISTICS:
        value = getattr(encoder.features, key.rpartition("_")[2])
        same = key in known and value == value.new_tensor(known[key])
        statistics[key] = known[key] if same else value.item()
    return statistics


def _official_config(encoder: MuQEncoder) -> dict[str, Any]:
    """The settings of the official class that give this encoder."""
    ours = encoder.config
    config, conformer = (
        {**REQUIRED[section], **USUAL[section]}
        | {theirs: ours[name] for name, theirs in names.items()}
        for section, names in SETTINGS.items()
    )
    dropouts = ("attention", "activation", "conformer_conv", "feat_proj")
    conformer |= {f"{name}_dropout": ours["dropout"] for name in dropouts}
    conformer["hidden_size"] = ours["width"]
    conformer["num_hidden_layers"] = ours["num_layers"]
    conformer["num_conv_pos_embedding_groups"] = math.gcd(16, ours["width"])
    return {**config, "stat": _statistics(encoder, {}), CONFORMER: conformer}
