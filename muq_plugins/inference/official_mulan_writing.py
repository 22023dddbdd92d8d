"""MuQ-MuLan checkpoints in the layout of the official package, written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muq_plugins.data.jsonio import write_json
from muq_plugins.inference.folders import CONFIG, save_folder
from muq_plugins.inference.mulan_folders import MuLanParts, write_text_files
from muq_plugins.inference.mulan_sources import MUQ_PART, TEXT_PART
from muq_plugins.inference.official_mulan import OfficialMuLan
from muq_plugins.inference.official_mulan_names import (
    CONTRAST,
    MUQ,
    PREFIX,
    official_name,
)
from muq_plugins.inference.official_writing import official_tensors, save_official
from muq_plugins.lobes import InfoNCE, SigmoidContrastive

TOKENIZER_CONFIG = "tokenizer_config.json"
# What every release of transformers has, for a tokenizer.json of any kind.
PLAIN_TOKENIZER = "PreTrainedTokenizerFast"
# Newer releases have one class for all of those, which older ones do not know.
NEW_TOKENIZERS = ("TokenizersBackend",)
INITIAL_TEMPERATURE = 10.0


def save_official_mulan(
    folder: str | Path,
    parts: MuLanParts,
    checkpoint: OfficialMuLan | None = None,
    audio_model: str | None = None,
    text_model: str | None = None,
) -> Path:
    """Writes a MuQ-MuLan in the official layout, with safetensors.

    The official class loads a MuQ and a text model by name before it loads the
    checkpoint itself. Where no name is given and none is known, the folder gets a
    ``muq`` or ``xlm-roberta`` with weights, named by its path; then it must stay where
    it is for the official class. It always gets their settings and the tokenizer, with
    which it is loaded here, from anywhere and without a network.
    """
    folder = Path(folder)
    _check(parts, audio_model, text_model)
    muq = None if checkpoint is None else checkpoint.muq
    encoder, muq_config = official_tensors(parts.audio.encoder, muq)
    config = _config(parts) if checkpoint is None else dict(checkpoint.config)
    for section, name, part in (
        ("audio_model", audio_model, MUQ_PART),
        ("text_model", text_model, TEXT_PART),
    ):
        known = config[section].get("name")
        if known is not None and os.path.isabs(known):
            known = None  # beside another copy, which may not stay where it is
        name = name or known or str(folder.resolve() / part)
        config[section] = {**config[section], "name": name}

    def write_more(unfinished: Path) -> None:
        if _names(config["audio_model"], folder / MUQ_PART):
            save_official(unfinished / MUQ_PART, parts.audio.encoder, muq)
        else:
            (unfinished / MUQ_PART).mkdir()
            write_json(unfinished / MUQ_PART / CONFIG, muq_config)
        with_weights = _names(config["text_model"], folder / TEXT_PART)
        _write_text_model(parts, unfinished / TEXT_PART, with_weights)

    tensors = {MUQ + name: tensor for name, tensor in encoder.items()}
    towers = {"audio": parts.audio, "text": parts.text}
    tensors |= {
        official_name(name): tensor
        for name, tensor in torch.nn.ModuleDict(towers).state_dict().items()
        if not name.startswith("audio.encoder.")
    }
    tensors |= _contrast(parts)
    tensors |= {} if checkpoint is None else checkpoint.unused
    tensors = {PREFIX + name: tensor for name, tensor in tensors.items()}
    return save_folder(folder, tensors, config, write_more=write_more)


def _check(parts: MuLanParts, audio_model: str | None, text_model: str | None) -> None:
    """Refuses what the official class would compute in another way, or not at all."""
    problems = []
    if parts.clip_seconds != int(parts.clip_seconds):
        problems.append(f"clips of {parts.clip_seconds} seconds, only of whole ones")
    # The class decides by words in the names what it builds.
    if audio_model is not None and "muq" not in audio_model.lower():
        problems.append(f"an audio_model {audio_model!r} without 'muq' in its name")
    if text_model is not None and TEXT_PART not in text_model:
        problems.append(
            f"a text_model {text_model!r} without '{TEXT_PART}' in its name"
        )
    if problems:
        raise ValueError(f"The official class cannot have {'; nor '.join(problems)}.")


def _names(section: dict[str, Any], folder: Path) -> bool:
    """Whether a model of the settings is the one in a folder."""
    return section["name"] == str(folder.resolve())


def _contrast(parts: MuLanParts) -> dict[str, Tensor]:
    """The parameters of the loss, which the official class always has."""
    if parts.loss is None:
        state = {"log_temperature": torch.tensor(math.log(INITIAL_TEMPERATURE))}
    else:
        state = parts.loss.state_dict()
    return {CONTRAST[name]: tensor.reshape(1, 1, 1) for name, tensor in state.items()}


def _config(parts: MuLanParts) -> dict[str, Any]:
    """The settings of the official class that give this model, without names."""
    audio, text = parts.audio.config, parts.text.config
    layers = {"heads": 8, "dim_head": 64, "ff_mult": 4}
    dropouts = {"attn_dropout": 0.0, "ff_dropout": 0.0}
    return {
        "mulan": {
            "sr": parts.audio.sample_rate,
            "clip_secs": int(parts.clip_seconds),
            "dim_latent": parts.audio.latent_width,
            "decoupled_contrastive_learning": not isinstance(parts.loss, InfoNCE),
            "hierarchical_contrastive_loss": False,
            "hierarchical_contrastive_loss_layers": None,
            "sigmoid_contrastive_loss": isinstance(parts.loss, SigmoidContrastive),
            "rank_contrast": True,
        },
        "audio_model": {
            "model_dim": parts.audio.encoder.width,
            "use_layer_idx": parts.audio.layer,
        },
        "text_model": {"model_dim": None, "use_layer_idx": -1},
        "audio_transformer": {
            "dim": audio["width"],
            "tf_depth": audio["num_layers"],
            **layers,
            **dropouts,
        },
        "text_transformer": {
            "dim": parts.text.model.config.hidden_size,
            "tf_depth": text["num_layers"],
            "max_seq_len": text["max_tokens"],
            **layers,
            "heads": text["num_heads"],
            "dim_head": text["head_width"],
            **dropouts,
        },
    }


def _write_text_model(parts: MuLanParts, folder: Path, with_weights: bool) -> None:
    """Writes the text model so that older releases of transformers load it."""
    model = parts.text.model
    if with_weights:
        tensors = dict(model.state_dict())
        save_folder(folder, tensors, {})
    write_text_files(parts.text, folder)
    # The official class builds an XLM-R, which computes what RoBERTa does.
    _edit(folder / CONFIG, {"model_type": TEXT_PART, "architectures": None})
    tokenizer = folder / TOKENIZER_CONFIG
    kind = json.loads(tokenizer.read_text("utf-8")).get("tokenizer_class")
    if kind in NEW_TOKENIZERS:
        _edit(tokenizer, {"tokenizer_class": PLAIN_TOKENIZER})


def _edit(path: Path, changes: dict[str, Any]) -> None:
    """Changes keys of a JSON file; None takes one out."""
    content = {**json.loads(path.read_text("utf-8")), **changes}
    removed = [key for key, value in changes.items() if value is None]
    write_json(path, {k: v for k, v in content.items() if k not in removed})
