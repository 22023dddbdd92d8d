"""The folder of a MuQ-MuLan: two towers, the files of the text model, and their hash.

The parts of an official checkpoint are found here too: it holds all weights, but
neither the settings of the MuQ in it nor the config and the tokenizer of its text
model, which it names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.inference.folders import (
    CONFIG,
    TRAINED_ON,
    NoModel,
    download,
    find_model,
    load_weights,
    other_kind,
    save_folder,
)
from muq_plugins.lobes import AudioTower, ContrastiveLoss, TextTower
from muq_plugins.lobes.parts import (
    TRAINING_ONLY,
    build,
    check_clips,
    describe,
    fingerprint,
)

KIND = "muq_mulan"
# The text model in a folder of ours, and both parts beside an official checkpoint. The
# official class tells kinds of models by these words in their names.
TEXT_MODEL = "text_model"
MUQ_PART = "muq"
TEXT_PART = "xlm-roberta"
# All that a tokenizer can consist of; weights are not among it, and no code.
TEXT_FILES = (
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)
# Settings of the towers and of a text model that latents depend on, and that the
# weights do not show.
AUDIO_SETTINGS = ("layer", "num_layers")
TEXT_SETTINGS = ("num_layers", "num_heads", "head_width", "max_tokens")
TEXT_MODEL_SETTINGS = (
    "hidden_act",
    "layer_norm_eps",
    "num_attention_heads",
    "pad_token_id",
)


class Towers(nn.ModuleDict):
    """All parts with weights, under the names they are saved by."""


def check_towers(audio: type, text: type) -> None:
    """Refuses towers that a folder could not name, which would be others once loaded.

    What one of them inherits is no help: the class above it computes something else.
    """
    if audio is not AudioTower or text is not TextTower:
        raise UserError(
            f"A MuQ-MuLan needs an AudioTower and a TextTower, got {audio.__name__} "
            f"and {text.__name__}: a folder holds no other towers. Put what is your "
            f"own into the encoder, or train ContrastiveTraining in a loop of your own."
        )


@dataclass
class MuLanParts:
    """What a MuQ-MuLan consists of; both towers must fit together."""

    audio: AudioTower
    text: TextTower
    clip_seconds: float
    loss: ContrastiveLoss | None = None

    def __post_init__(self):
        check_towers(type(self.audio), type(self.text))
        if self.audio.latent_width != self.text.latent_width:
            raise UserError(
                f"The audio tower has latents of {self.audio.latent_width}, the text "
                f"tower of {self.text.latent_width}: both must share one space."
            )
        with given_by_user():
            check_clips(self.audio, self.clip_seconds, "clip_seconds")

    def describe(self) -> dict[str, Any]:
        """What is needed to build them again, apart from weights and text model.

        Raises TypeError if the encoder or the loss is no part.
        """
        return {
            "kind": KIND,
            "clip_seconds": self.clip_seconds,
            "audio": {
                "encoder": describe(self.audio.encoder),
                "tower": self.audio.config,
            },
            "text": self.text.config,
            "loss": None if self.loss is None else describe(self.loss),
        }

    def module(self) -> Towers:
        """``audio``, ``text`` and, where there is one, ``loss``."""
        parts = {"audio": self.audio, "text": self.text, "loss": self.loss}
        return Towers({k: v for k, v in parts.items() if v is not None})


def save_mulan(
    folder: str | Path,
    audio_tower: AudioTower,
    text_tower: TextTower,
    clip_seconds: float,
    loss: ContrastiveLoss | None = None,
    heard: str = "",
) -> Path:
    """Writes an inference folder for `MuQMuLan.from_pretrained`.

    ``clip_seconds`` is the length of the clips that the audio tower was trained on; the
    temperature of the loss is kept for further training; ``heard`` is what both were
    trained on, for those who use them. Raises TypeError if the
    encoder or the loss is no part, which nobody could build again.
    """
    parts = MuLanParts(audio_tower, text_tower, clip_seconds, loss)
    config = parts.describe()
    if heard:
        config[TRAINED_ON] = heard
    tensors = {
        name: tensor
        for name, tensor in parts.module().state_dict().items()
        # What pools for other tasks computes nothing here.
        if not name.startswith("text.model.pooler.")
    }
    return save_folder(
        folder,
        tensors,
        config,
        write_more=lambda folder: write_text_files(text_tower, folder / TEXT_MODEL),
    )


def load_mulan(
    folder: Path, config: dict[str, Any], text_model: str | Path | None = None
) -> MuLanParts:
    """Builds the parts of a folder from `save_mulan` and loads their weights.

    ``text_model`` is a folder with the config and the tokenizer of the text model,
    instead of the one that comes along.
    """
    if config.get("kind") != KIND:
        raise other_kind(
            folder,
            config,
            f"{KIND}: give the folder of a run of train_mulan.py, or a MuQ-MuLan of "
            f"the official MuQ package",
        )
    texts = folder / TEXT_MODEL if text_model is None else Path(text_model)
    if not (texts / CONFIG).is_file():
        raise NoModel(
            f"{texts} holds no {CONFIG}: copy the whole folder {folder}, with "
            f"{TEXT_MODEL} in it."
        )
    try:
        audio = config["audio"]
        audio_tower = AudioTower(build(audio["encoder"]), **audio["tower"])
        text_tower = TextTower.from_folder(texts, pretrained=False, **config["text"])
        loss = None
        if (kept := config["loss"]) is not None:
            if "arguments" not in kept:  # before folders described all of them
                limit = kept["max_temperature"]  # the temperature is among the weights
                arguments = {"temperature": min(10.0, limit), "max_temperature": limit}
                kept = {"class": kept["class"], "arguments": arguments}
            loss = build(kept)
        parts = MuLanParts(audio_tower, text_tower, config["clip_seconds"], loss)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / CONFIG} is damaged or of another version ({error!r}): make "
            f"the folder again from its run."
        ) from error
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error
    load_weights(parts.module(), folder)
    return parts


def write_text_files(tower: TextTower, folder: Path) -> None:
    """Writes the config and the tokenizer of a text model."""
    tower.model.config.save_pretrained(folder)
    tower.tokenizer.save_pretrained(folder)


def mulan_fingerprint(audio: AudioTower, text: TextTower, clip_seconds: float) -> str:
    """A short hash of all weights, settings and words that a latent depends on.

    It is equal for copies of a model, also in another layout. Indexes carry it.
    """
    encoder = audio.encoder.config
    words = json.dumps(sorted(text.tokenizer.get_vocab().items()))
    model = text.model.config
    settings = {
        "clip_seconds": float(clip_seconds),
        "encoder": {k: v for k, v in encoder.items() if k not in TRAINING_ONLY},
        "audio": {key: audio.config[key] for key in AUDIO_SETTINGS},
        "text": {key: text.config[key] for key in TEXT_SETTINGS},
        "average_padding": text.average_padding,
        "text_model": {key: getattr(model, key) for key in TEXT_MODEL_SETTINGS},
        "vocabulary": hashlib.sha256(words.encode()).hexdigest(),
    }
    return fingerprint(nn.ModuleDict({"audio": audio, "text": text}), settings)


def find_mulan(
    source: str | Path, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """The folder of a model and of the parts that come along, downloaded if need be."""
    more = [f"{part}/{name}" for part in (TEXT_MODEL, TEXT_PART) for name in TEXT_FILES]
    return find_model(source, revision, cache_dir, [*more, f"{MUQ_PART}/{CONFIG}"])


def find_part(
    name: str,
    folder: Path,
    part: str,
    given: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """The settings of the model that an official checkpoint names as `MUQ_PART` or
    `TEXT_PART`.

    A folder ``part`` beside the checkpoint wins over the name, and what the user has
    ``given``, a folder or a hub id, over both.
    """
    if given is None and (folder / part / CONFIG).is_file():
        return folder / part
    wanted = Path(name if given is None else given)
    argument = "audio_model" if part == MUQ_PART else "text_model"
    remedy = (
        f"Its weights are in the checkpoint, only its config.json and the files of a "
        f"tokenizer are needed: put them into {folder / part}, or give their folder "
        f"with {argument}=..."
    )
    files = [CONFIG] if part == MUQ_PART else list(TEXT_FILES)
    if not wanted.is_dir():
        try:
            wanted = download(str(wanted), files, None, cache_dir)
        except NoModel as error:
            raise NoModel(f"{error} {remedy}") from error
    if not (wanted / CONFIG).is_file():
        raise NoModel(f"{wanted} holds no {CONFIG}. {remedy}")
    return wanted
