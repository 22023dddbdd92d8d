"""Inference folders of MuQ-MuLan: both towers, and the files of the text model.

A folder holds ``config.json`` (plain numbers), ``model.safetensors`` (weights), and
``text_model`` with the config and the tokenizer of the text model. Reading one
executes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from muq_plugins.inference.folders import CONFIG, load_weights, save_folder
from muq_plugins.inference.mulan_sources import TEXT_MODEL
from muq_plugins.lobes import (
    AudioTower,
    ContrastiveLoss,
    DecoupledContrastive,
    InfoNCE,
    SigmoidContrastive,
    TextTower,
)
from muq_plugins.lobes.parts import build, describe

KIND = "muq_mulan"
LOSSES = {
    loss.__name__: loss for loss in (DecoupledContrastive, InfoNCE, SigmoidContrastive)
}


@dataclass
class MuLanParts:
    """What a MuQ-MuLan consists of."""

    audio: AudioTower  # clips to latents
    text: TextTower  # texts to latents
    clip_seconds: float  # length of the clips that the audio tower was trained on
    # what both were trained with, for its temperature
    loss: ContrastiveLoss | None = None

    def __post_init__(self):
        if not isinstance(self.audio, AudioTower) or not isinstance(
            self.text, TextTower
        ):
            raise ValueError(
                f"A MuQ-MuLan needs an AudioTower and a TextTower, got "
                f"{type(self.audio).__name__} and {type(self.text).__name__}."
            )
        if self.audio.latent_width != self.text.latent_width:
            raise ValueError(
                f"The audio tower has latents of {self.audio.latent_width}, the text "
                f"tower of {self.text.latent_width}: both must share one space."
            )
        samples = self.clip_seconds * self.audio.sample_rate
        least = getattr(self.audio.encoder, "min_samples", 1)
        if not math.isfinite(samples) or samples < least:
            raise ValueError(
                f"clip_seconds is {self.clip_seconds}: the encoder needs at least "
                f"{least / self.audio.sample_rate:.3f} seconds."
            )

    def module(self) -> nn.ModuleDict:
        """All parts with weights, under the names they are saved by."""
        parts = {"audio": self.audio, "text": self.text, "loss": self.loss}
        return nn.ModuleDict({k: v for k, v in parts.items() if v is not None})


def save_mulan(
    folder: str | Path,
    audio_tower: AudioTower,
    text_tower: TextTower,
    clip_seconds: float,
    loss: ContrastiveLoss | None = None,
) -> Path:
    """Writes an inference folder for `MuQMuLan.from_pretrained`."""
    parts = MuLanParts(audio_tower, text_tower, clip_seconds, loss)
    config = {
        "kind": KIND,
        "clip_seconds": clip_seconds,
        "audio": {
            "encoder": describe(audio_tower.encoder),
            "tower": audio_tower.config,
        },
        "text": text_tower.config,
        "loss": None if loss is None else _describe_loss(loss),
    }
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
        write_more=lambda unfinished: write_text_files(
            text_tower, unfinished / TEXT_MODEL
        ),
    )


def load_mulan(
    folder: Path, config: dict[str, Any], text_model: str | Path | None = None
) -> MuLanParts:
    """Builds the parts of an inference folder and loads their weights."""
    if config.get("kind") != KIND:
        raise ValueError(
            f"{folder} holds a {config.get('kind') or 'model of unknown kind'}, not a "
            f"{KIND}: give the folder of a run of train_mulan.py, or a MuQ-MuLan of "
            f"the official MuQ package."
        )
    texts = folder / TEXT_MODEL if text_model is None else Path(text_model)
    if not (texts / CONFIG).is_file():
        raise FileNotFoundError(
            f"{texts} holds no {CONFIG}: copy the whole folder {folder}, with "
            f"{TEXT_MODEL} in it."
        )
    try:
        audio = config["audio"]
        audio_tower = AudioTower(build(audio["encoder"]), **audio["tower"])
        text_tower = TextTower.from_folder(texts, pretrained=False, **config["text"])
        loss = None if config["loss"] is None else _build_loss(config["loss"])
        parts = MuLanParts(audio_tower, text_tower, config["clip_seconds"], loss)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / CONFIG} is damaged or of another version ({error!r}): make "
            f"the folder again from its run."
        ) from error
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    load_weights(parts.module(), folder)
    return parts


def write_text_files(tower: TextTower, folder: Path) -> None:
    """Writes the config and the tokenizer of a text model."""
    tower.model.config.save_pretrained(folder)
    tower.tokenizer.save_pretrained(folder)


def _describe_loss(loss: ContrastiveLoss) -> dict[str, Any]:
    """A loss as data; its parameters are among the weights."""
    if type(loss).__name__ not in LOSSES:
        raise TypeError(
            f"A {type(loss).__name__} cannot be saved: use one of {', '.join(LOSSES)}, "
            f"or leave loss out."
        )
    limit = round(math.exp(loss.max_log_temperature), 6)
    return {"class": type(loss).__name__, "max_temperature": limit}


def _build_loss(description: dict[str, Any]) -> ContrastiveLoss:
    """A loss from its description."""
    name = description["class"]
    if name not in LOSSES:
        raise ValueError(f"loss is {name!r}, not one of {', '.join(LOSSES)}.")
    limit = description["max_temperature"]
    return LOSSES[name](min(10.0, limit), limit)
