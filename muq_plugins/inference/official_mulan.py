"""The layout of the official MuQ-MuLan, read and written by one map of names.

A folder holds ``config.json`` and ``pytorch_model.bin`` or ``model.safetensors``. All
weights are in it; the settings of the MuQ and of the text model are with the two models
that ``config.json`` names. Tensors that no latent depends on are known by name and kept
for writing. Facts about the layout come from the package muq 0.1.0.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muq_plugins.errors import UserError
from muq_plugins.files import read_json, write_json
from muq_plugins.inference.folders import (
    CONFIG,
    download,
    find_weights,
    is_hub_id,
    load_strictly,
    read_config,
    read_tensors,
    save_folder,
)
from muq_plugins.inference.mulan_parts import (
    KIND,
    MUQ_PART,
    TEXT_PART,
    MuLanParts,
    Towers,
    find_part,
    write_text_files,
)
from muq_plugins.inference.official import (
    FIXED,
    MUQ,
    Checkpoint,
    KeyMap,
    build_encoder,
    is_official,
    misfits,
    official_tensors,
    save_official,
)
from muq_plugins.lobes import (
    AudioTower,
    ContrastiveLoss,
    DecoupledContrastive,
    InfoNCE,
    SigmoidContrastive,
    TextTower,
)

MULAN = KeyMap(
    kind="MuQ-MuLan",
    prefix="mulan.",
    own=(
        "audio.proj.",
        "audio.transformer.",
        "audio_to_latents.",
        "text.model.",
        "text.transformer.",
        "text_to_latents.",
    ),
    others={"muq": "audio.model.", "contrast": "contrast."},
    unused=(
        "audio.aggregator.",
        "text.model.pooler.",
        "text.model.embeddings.position_ids",
    ),
    renames=(
        ("audio.projection.", "audio.proj."),
        ("audio.to_latents.linear.", "audio_to_latents."),
        ("text.to_latents.linear.", "text_to_latents."),
        # A layer of `LatentTransformer`.
        (".attention.norm.weight", ".0.norm.learned_gamma"),
        (".attention.query.weight", ".0.to_q.weight"),
        (".attention.key_value.weight", ".0.to_kv.weight"),
        (".attention.query_scale", ".0.q_scale"),
        (".attention.key_scale", ".0.k_scale"),
        (".attention.out.weight", ".0.to_out.0.weight"),
        (".feed_forward.norm.weight", ".1.0.learned_gamma"),
        (".feed_forward.expand.weight", ".1.1.weight"),
        (".feed_forward.contract.weight", ".1.4.weight"),
    ),
)
# The parameters of the loss, by their names in ours.
CONTRAST = {"log_temperature": "temperatures", "bias": "bias"}
# What the lobes compute in one way only.
REQUIRED = {
    "mulan": {"sr": FIXED["sample_rate"], "hierarchical_contrastive_loss": False},
    "text_transformer": {"ff_mult": 4},
}
REQUIRED_AUDIO_LAYERS = {"heads": 8, "dim_head": 64, "ff_mult": 4}
NEEDED = {
    "mulan": ("clip_secs", "dim_latent"),
    "audio_model": ("name", "model_dim"),
    "text_model": ("name",),
    "audio_transformer": ("dim", "tf_depth"),
    "text_transformer": ("dim", "tf_depth", "heads", "dim_head"),
}
INITIAL_TEMPERATURE = 10.0
TEMPERATURE_LIMIT = 100.0
TOKENIZER_CONFIG = "tokenizer_config.json"
# What every release of transformers has, for a tokenizer.json of any kind.
PLAIN_TOKENIZER = "PreTrainedTokenizerFast"
# Newer releases have one class for all of those, which older ones do not know.
NEW_TOKENIZERS = ("TokenizersBackend",)


def is_official_mulan(config: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is one of the official MuQ-MuLan."""
    return all(isinstance(config.get(section), dict) for section in NEEDED)


def is_mulan(source: str | Path) -> bool:
    """Whether a run, a folder or a hub id holds a model of music and text."""
    place = download(str(source), [CONFIG]) if is_hub_id(source) else Path(source)
    inside = place if (place / CONFIG).is_file() else place / "inference"
    config = read_config(inside) if (inside / CONFIG).is_file() else {}
    return config.get("kind") == KIND or is_official_mulan(config)


def read_official_mulan(
    folder: Path,
    config: dict[str, Any],
    audio_model: str | Path | None = None,
    text_model: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[MuLanParts, Checkpoint]:
    """Reads a checkpoint in the official layout, strictly.

    ``audio_model`` and ``text_model`` are folders or hub ids with the settings of the
    two models, instead of those it names. Raises NoModel if they are neither here nor
    on the hub, UserError if a setting asks for something else than is computed here, or
    a tensor is missing, unknown or of another shape; all are named.
    """
    _check_settings(config, folder)
    path = find_weights(folder)
    names = {key: config[f"{key}_model"]["name"] for key in ("audio", "text")}
    muq = find_part(names["audio"], folder, MUQ_PART, audio_model, cache_dir)
    text = find_part(names["text"], folder, TEXT_PART, text_model, cache_dir)

    checkpoint = MULAN.sort(read_tensors(path), config, path)
    inner = checkpoint.others.pop("muq")
    audio_tower, checkpoint.muq = _audio_tower(config, inner, muq, path)
    loss = _loss(config, checkpoint.others.pop("contrast"), path)
    clip_seconds = config["mulan"]["clip_secs"]
    parts = MuLanParts(audio_tower, _text_tower(config, text), clip_seconds, loss)
    load_strictly(
        Towers({"audio": parts.audio, "text": parts.text}),
        checkpoint.own,
        f"{path} (with its {CONFIG} and the text_model {text})",
        optional=lambda name: name.startswith("audio.encoder."),  # loaded already
        shown_as=MULAN.theirs,
    )
    checkpoint.own = {}  # the towers have their own copies
    return parts, checkpoint


def _check_settings(config: dict[str, Any], folder: Path) -> None:
    """Refuses settings that the lobes cannot follow."""
    required = dict(REQUIRED)
    if config["audio_transformer"].get("tf_depth", 8):
        required["audio_transformer"] = REQUIRED_AUDIO_LAYERS
    problems = misfits(config, required, NEEDED)
    text, width = config["text_model"].get("model_dim"), config["text_transformer"]
    if text is not None and text != width.get("dim"):
        problems.append(
            f"text_model.model_dim is {text}, but text_transformer.dim "
            f"{width.get('dim')}: a projection between them is not known"
        )
    if problems:
        raise UserError(f"{folder / CONFIG}: {'; '.join(problems)}.")


def _audio_tower(
    config: dict[str, Any], tensors: dict[str, Tensor], muq: Path, path: Path
) -> tuple[AudioTower, Checkpoint]:
    """The audio tower with a loaded encoder, and what else its MuQ holds."""
    settings = read_config(muq)
    if not is_official(settings):
        raise UserError(
            f"{muq / CONFIG} is not the config.json of an official MuQ checkpoint: "
            f"give the folder of {config['audio_model']['name']} with audio_model=..."
        )
    checkpoint = MUQ.sort(tensors, settings, path)
    # What does not fit may be the fault of either.
    encoder = build_encoder(checkpoint, f"{path} (with the settings of {muq})")
    if encoder.width != config["audio_model"]["model_dim"]:
        raise UserError(
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
    return tower


def _loss(
    config: dict[str, Any], tensors: dict[str, Tensor], path: Path
) -> ContrastiveLoss | None:
    """The loss with its trained temperature, if the checkpoint has one."""
    if not tensors:
        return None
    kind: type[ContrastiveLoss] = InfoNCE
    if config["mulan"].get("sigmoid_contrastive_loss", False):
        kind = SigmoidContrastive
    elif config["mulan"].get("decoupled_contrastive_learning", True):
        kind = DecoupledContrastive
    loss = kind(INITIAL_TEMPERATURE, TEMPERATURE_LIMIT)
    ours = {theirs: name for name, theirs in CONTRAST.items()}
    state = {ours.get(name, name): tensor.squeeze() for name, tensor in tensors.items()}
    load_strictly(
        loss,
        state,
        path,
        shown_as=lambda name: f"mulan.contrast.{CONTRAST.get(name, name)}",
    )
    found = loss.log_temperature.item()
    if found > loss.max_log_temperature:
        loss.max_log_temperature = found
        loss.arguments["max_temperature"] = math.exp(found)  # as it is built again
    return loss


def save_official_mulan(
    folder: str | Path,
    parts: MuLanParts,
    checkpoint: Checkpoint | None = None,
    audio_model: str | None = None,
    text_model: str | None = None,
) -> Path:
    """Writes a MuQ-MuLan in the official layout, with safetensors.

    ``checkpoint`` is what was loaded with it. The models are named as they were, or by
    the two arguments; without a name they are written into the folder.
    """
    folder = Path(folder)
    _check(parts, audio_model, text_model)
    muq = None if checkpoint is None else checkpoint.muq
    encoder, muq_config = official_tensors(parts.audio.encoder, muq)
    config = _config(parts) if checkpoint is None else dict(checkpoint.config)
    inside = set()
    for section, name, part in (
        ("audio_model", audio_model, MUQ_PART),
        ("text_model", text_model, TEXT_PART),
    ):
        here, known = str(folder.resolve() / part), config[section].get("name")
        if known is None or os.path.isabs(known):
            known = here  # not beside another copy, which may not stay where it is
        config[section] = {**config[section], "name": name or known}
        if config[section]["name"] == here:
            inside.add(part)

    def write_more(unfinished: Path) -> None:
        if MUQ_PART in inside:
            save_official(unfinished / MUQ_PART, parts.audio.encoder, muq)
        else:
            (unfinished / MUQ_PART).mkdir()
            write_json(unfinished / MUQ_PART / CONFIG, muq_config)
        _write_text_model(parts, unfinished / TEXT_PART, TEXT_PART in inside)

    own = {
        name: tensor
        for name, tensor in parts.module().state_dict().items()
        if not name.startswith(("audio.encoder.", "loss."))
    }
    others = {"muq": encoder, "contrast": _contrast(parts)}
    unused = {} if checkpoint is None else checkpoint.unused
    tensors = MULAN.write(Checkpoint(config, own, others, unused))
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
        raise UserError(f"The official class cannot have {'; nor '.join(problems)}.")


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
    layers = {**REQUIRED_AUDIO_LAYERS, "attn_dropout": 0.0, "ff_dropout": 0.0}
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
        },
        "text_transformer": {
            "dim": parts.text.model.config.hidden_size,
            "tf_depth": text["num_layers"],
            "max_seq_len": text["max_tokens"],
            **layers,
            "heads": text["num_heads"],
            "dim_head": text["head_width"],
        },
    }


def _write_text_model(parts: MuLanParts, folder: Path, with_weights: bool) -> None:
    """Writes the text model so that older releases of transformers load it."""
    if with_weights:
        save_folder(folder, dict(parts.text.model.state_dict()), {})
    write_text_files(parts.text, folder)
    # The official class builds an XLM-R, which computes what RoBERTa does.
    config = {**read_config(folder), "model_type": TEXT_PART}
    config.pop("architectures", None)
    write_json(folder / CONFIG, config)
    tokenizer = read_json(folder / TOKENIZER_CONFIG)
    if tokenizer.get("tokenizer_class") in NEW_TOKENIZERS:
        tokenizer["tokenizer_class"] = PLAIN_TOKENIZER
        write_json(folder / TOKENIZER_CONFIG, tokenizer)
