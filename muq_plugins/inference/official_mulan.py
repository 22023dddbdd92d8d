"""MuQ-MuLan checkpoints in the layout of the official package, read.

A folder holds ``config.json`` and ``pytorch_model.bin`` or ``model.safetensors``. All
weights are in it; the settings of the MuQ and of the text model are with the two models
that ``config.json`` names, see `muq_plugins.inference.mulan_sources`. Tensors that no
latent depends on are known by name and kept for writing. Facts about the layout come
from the package muq 0.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muq_plugins.inference.folders import CONFIG, read_config
from muq_plugins.inference.mulan_folders import MuLanParts
from muq_plugins.inference.mulan_sources import MUQ_PART, TEXT_PART, find_part
from muq_plugins.inference.official import (
    FIXED,
    OfficialCheckpoint,
    build_encoder,
    find_weights,
    is_official,
    sort_tensors,
)
from muq_plugins.inference.official_mulan_names import (
    CONTRAST,
    MUQ,
    PREFIX,
    UNUSED,
    official_name,
)
from muq_plugins.inference.weights import read_tensors
from muq_plugins.lobes import (
    AudioTower,
    ContrastiveLoss,
    DecoupledContrastive,
    InfoNCE,
    SigmoidContrastive,
    TextTower,
)

SECTIONS = (
    "mulan",
    "audio_model",
    "text_model",
    "audio_transformer",
    "text_transformer",
)
# What the lobes compute in one way only.
REQUIRED = {
    "mulan": {"sr": FIXED["sample_rate"], "hierarchical_contrastive_loss": False},
    "text_transformer": {"ff_mult": 4},
}
REQUIRED_AUDIO_LAYERS = {"heads": 8, "dim_head": 64, "ff_mult": 4}
TEMPERATURE_LIMIT = 100.0


@dataclass
class OfficialMuLan:
    """What an official checkpoint holds beside what the towers compute with."""

    config: dict[str, Any]  # the content of its ``config.json``
    muq: OfficialCheckpoint  # the MuQ in it, without the tensors of its encoder
    # tensors that are kept only to be saved again, by their names there
    unused: dict[str, Tensor] = field(default_factory=dict)


def is_official_mulan(config: dict[str, Any]) -> bool:
    """Tells whether a ``config.json`` is one of the official MuQ-MuLan."""
    return all(isinstance(config.get(section), dict) for section in SECTIONS)


def read_official_mulan(
    folder: Path,
    config: dict[str, Any],
    audio_model: str | Path | None = None,
    text_model: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[MuLanParts, OfficialMuLan]:
    """Reads a checkpoint in the official layout, strictly."""
    _check_settings(config, folder)
    path = find_weights(folder)
    names = {
        "audio": config["audio_model"]["name"],
        "text": config["text_model"]["name"],
    }
    muq = find_part(names["audio"], folder, MUQ_PART, audio_model, cache_dir)
    text = find_part(names["text"], folder, TEXT_PART, text_model, cache_dir)

    # The converter of the published training code leaves the prefix out.
    tensors = {k.removeprefix(PREFIX): t for k, t in read_tensors(path).items()}
    inner = {k.removeprefix(MUQ): tensors.pop(k) for k in list(tensors) if _is_muq(k)}
    audio_tower, rest = _audio_tower(config, inner, muq, path)
    text_tower = _text_tower(config, text)
    loss = _loss(config, tensors)
    clip_seconds = config["mulan"]["clip_secs"]
    parts = MuLanParts(audio_tower, text_tower, clip_seconds, loss)
    unused = {k: tensors.pop(k) for k in list(tensors) if k.startswith(UNUSED)}
    _load(parts, tensors, path, text)
    return parts, OfficialMuLan(config, rest, unused)


def _is_muq(name: str) -> bool:
    """Whether a tensor belongs to the MuQ inside."""
    return name.startswith(MUQ)


def _check_settings(config: dict[str, Any], folder: Path) -> None:
    """Refuses settings that the lobes cannot follow."""
    required = dict(REQUIRED)
    if config["audio_transformer"].get("tf_depth", 8):
        required["audio_transformer"] = REQUIRED_AUDIO_LAYERS
    problems = [
        f"{section}.{key} is {found!r}, only {value!r} is known"
        for section, settings in required.items()
        for key, value in settings.items()
        if (found := config[section].get(key, value)) != value
    ]
    needed = {
        "mulan": ("clip_secs", "dim_latent"),
        "audio_model": ("name", "model_dim"),
        "text_model": ("name",),
        "audio_transformer": ("dim", "tf_depth"),
        "text_transformer": ("dim", "tf_depth", "heads", "dim_head"),
    }
    problems += [
        f"{section}.{key} is missing"
        for section, keys in needed.items()
        for key in keys
        if key not in config[section]
    ]
    text, width = config["text_model"].get("model_dim"), config["text_transformer"]
    if text is not None and text != width.get("dim"):
        problems.append(
            f"text_model.model_dim is {text}, but text_transformer.dim "
            f"{width.get('dim')}: a projection between them is not known"
        )
    if problems:
        raise ValueError(f"{folder / CONFIG}: {'; '.join(problems)}.")


def _audio_tower(
    config: dict[str, Any], tensors: dict[str, Tensor], muq: Path, path: Path
) -> tuple[AudioTower, OfficialCheckpoint]:
    """The audio tower with a loaded encoder, and what else its MuQ holds."""
    settings = read_config(muq)
    if not is_official(settings):
        raise ValueError(
            f"{muq / CONFIG} is not the config.json of an official MuQ checkpoint: "
            f"give the folder of {config['audio_model']['name']} with audio_model=..."
        )
    checkpoint = sort_tensors(tensors, settings, path)
    # What does not fit may be the fault of either.
    encoder = build_encoder(checkpoint, f"{path}, with the settings of {muq},")
    checkpoint.encoder.clear()  # the encoder has its own copy
    if encoder.width != config["audio_model"]["model_dim"]:
        raise ValueError(
            f"The MuQ of {muq} has hidden states of {encoder.width}, the checkpoint "
            f"wants {config['audio_model']['model_dim']}: give another one with "
            f"audio_model=..."
        )
    tower = AudioTower(
        encoder,
        latent_width=config["mulan"]["dim_latent"],
        width=config["audio_transformer"]["dim"],
        num_layers=config["audio_transformer"]["tf_depth"],
        layer=config["audio_model"].get("use_layer_idx", -1),
    )
    return tower, checkpoint


def _text_tower(config: dict[str, Any], folder: Path) -> TextTower:
    """The text tower, not loaded yet."""
    transformer = config["text_transformer"]
    settings = {
        "latent_width": config["mulan"]["dim_latent"],
        "num_layers": transformer["tf_depth"],
        "num_heads": transformer["heads"],
        "head_width": transformer["dim_head"],
        "trainable": "none",  # the paper trains what is on top of the model
    }
    tower = TextTower.from_folder(folder, pretrained=False, **settings)
    # The published setting is more than the text model can read.
    max_tokens = transformer.get("max_seq_len", tower.max_tokens)
    if max_tokens < tower.max_tokens:
        settings["max_tokens"] = max_tokens
        tower = TextTower(tower.model, tower.tokenizer, **settings)
    width = tower.model.config.hidden_size
    if width != transformer["dim"]:
        raise ValueError(
            f"The text model of {folder} has hidden states of {width}, the checkpoint "
            f"wants {transformer['dim']}: give another one with text_model=..."
        )
    return tower


def _loss(config: dict[str, Any], tensors: dict[str, Tensor]) -> ContrastiveLoss | None:
    """The loss with its trained temperature, if the checkpoint has one."""
    found = {k: tensors.pop(name) for k, name in CONTRAST.items() if name in tensors}
    if "log_temperature" not in found:
        return None
    temperature = found["log_temperature"].float().exp().item()
    limit = max(TEMPERATURE_LIMIT, temperature)
    if config["mulan"].get("sigmoid_contrastive_loss", False):
        loss: ContrastiveLoss = SigmoidContrastive(temperature, limit)
    elif config["mulan"].get("decoupled_contrastive_learning", True):
        loss = DecoupledContrastive(temperature, limit)
    else:
        loss = InfoNCE(temperature, limit)
    loss.load_state_dict({k: tensor.reshape(()) for k, tensor in found.items()})
    return loss


def _load(
    parts: MuLanParts, tensors: dict[str, Tensor], path: Path, text: Path
) -> None:
    """Loads all but the encoder and the loss; differences have their names there."""
    towers = torch.nn.ModuleDict({"audio": parts.audio, "text": parts.text})
    expected = {
        name: tensor
        for name, tensor in towers.state_dict().items()
        if not name.startswith("audio.encoder.")
    }
    names = {name: official_name(name) for name in expected}
    problems = [f"missing: {PREFIX}{t}" for t in names.values() if t not in tensors]
    unknown = tensors.keys() - set(names.values())
    problems += [f"unknown: {PREFIX}{name}" for name in sorted(unknown)]
    problems += [
        f"{PREFIX}{theirs}: shape {tuple(tensors[theirs].shape)}, expected "
        f"{tuple(expected[ours].shape)}"
        for ours, theirs in names.items()
        if theirs in tensors and tensors[theirs].shape != expected[ours].shape
    ]
    if problems:
        raise ValueError(
            f"{path} does not fit its {CONFIG} and the text model of {text}:\n  "
            + "\n  ".join(problems)
        )
    found = {ours: tensors[theirs] for ours, theirs in names.items()}
    towers.load_state_dict(found, strict=False)  # the encoder is loaded already
