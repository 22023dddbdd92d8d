"""Trained models as teachers of smaller ones, and what a student owes to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn

from muq_plugins.errors import UserError, shown
from muq_plugins.inference.encoders import load_encoder
from muq_plugins.inference.folders import (
    CONFIG,
    UNKNOWN,
    download,
    is_hub_id,
    packaged,
    read_config,
    trained_on,
)
from muq_plugins.inference.mulan import MuQMuLan, save_mulan
from muq_plugins.inference.official_mulan import is_mulan
from muq_plugins.lobes import (
    ResampledEncoder,
    TeacherFeatures,
    TowerFeatures,
    TowerHead,
)
from muq_plugins.lobes.parts import encoder_fingerprint

CARD = "README.md"
# In the front matter of a model card.
LICENCE = re.compile(r"\A---\n(?:(?!---).*\n)*?license:[ \t]*([^\n]+)")


def teacher_states(
    source: str | Path,
    layers: Sequence[int] | None = None,
    frame_rate: float | None = None,
) -> TeacherFeatures:
    """The mean over layers of any encoder that `load_encoder` takes, for a student.

    Layers are counted from 1; None is the last one. At another frame rate, frames are
    averaged or interpolated (`ResampledEncoder`).
    """
    if is_mulan(source):
        raise UserError(
            f"The teacher {source} is a MuQ-MuLan, which gives one vector to a clip "
            f"and has no layers: use hparams/distil_mulan.yaml."
        )
    encoder = load_encoder(source)
    fingerprint = encoder_fingerprint(encoder)
    layers = [encoder.num_layers] if layers is None else layers
    if frame_rate is not None and frame_rate != encoder.frame_rate:
        encoder = ResampledEncoder(encoder, frame_rate)
    try:
        features = TeacherFeatures(encoder, layers, fingerprint)
    except ValueError as error:
        raise UserError(f"The teacher {source} does not fit. {error}") from error
    return _described(features, source, encoder)


def teacher_vectors(source: str | Path, clip_seconds: float) -> TowerFeatures:
    """The vectors of a MuQ-MuLan's audio tower, for clips of the length it knows."""
    if not is_mulan(source):
        raise UserError(
            f"The teacher {source} is no MuQ-MuLan, so it has no vectors of clips: use "
            f"hparams/distil.yaml."
        )
    model = MuQMuLan.from_pretrained(source, "cpu")
    if model.clip_seconds != clip_seconds:
        raise UserError(
            f"clip_seconds is {clip_seconds:g}, but the teacher {source} gives vectors "
            f"to clips of {model.clip_seconds:g} s: give --clip_seconds "
            f"{model.clip_seconds:g}."
        )
    features = TowerFeatures(model.mods.audio, model.fingerprint)
    return _described(features, source, model.mods.audio)


def _described(features: nn.Module, source: str | Path, model: nn.Module) -> nn.Module:
    """Notes what a student's card and table say of its teacher."""
    features.credit = credit(source)
    features.weights = sum(parameter.numel() for parameter in model.parameters())
    return features


def credit(source: str | Path) -> str:
    """Whom a student has learned from, in words: the model, what it heard, its licence.

    The licence is what its model card states, if it has one.
    """
    place = download(str(source), [CARD, CONFIG]) if is_hub_id(source) else None
    place = packaged(source) if place is None else place
    found = [x for x in (place, place / "inference") if (x / CONFIG).is_file()]
    heard = trained_on(read_config(found[0])) if found else UNKNOWN
    licence = "not stated"
    if found and (found[0] / CARD).is_file():
        text = (found[0] / CARD).read_text(encoding="utf-8", errors="replace")
        if stated := LICENCE.match(text):
            licence = shown(stated[1].strip().strip("\"'"))
    return f"taught by {source} (licence: {licence}; trained on: {heard})"


def credits_of(stage: nn.Module) -> Iterator[str]:
    """Those of all teachers in a stage, each once."""
    found = (getattr(part, "credit", None) for part in stage.modules())
    yield from dict.fromkeys(filter(None, found))


def check_head(head: nn.Module) -> None:
    """Refuses a head that `save_vectors` could not make an audio tower of."""
    if type(head) is not TowerHead:
        raise UserError(
            f"modules.pretrain.objectives.distillation.head is a "
            f"{type(head).__name__}, but an audio tower can be made of a TowerHead "
            f"alone: take that, or set save_vectors to null."
        )


def save_vectors(
    folder: str | Path,
    encoder: nn.Module,
    head: TowerHead,
    source: str | Path,
    heard: str,
) -> Path:
    """Writes a MuQ-MuLan of a student's audio tower and its teacher's text tower."""
    teacher = MuQMuLan.from_pretrained(source, "cpu")
    towers = head.tower(encoder), teacher.mods.text
    return save_mulan(folder, *towers, teacher.clip_seconds, teacher.loss, heard)
