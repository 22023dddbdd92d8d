"""Any trained encoder by its name: ours, the official ones, and speech models."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.inference.folders import (
    CONFIG,
    NoModel,
    download,
    is_hub_id,
    read_config,
)
from muq_plugins.inference.muq import MuQ
from muq_plugins.lobes import PretrainedSpeechEncoder
from muq_plugins.lobes.encoders.pretrained_speech import KINDS


def load_encoder(source: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """A frozen encoder, of what `MuQ.from_pretrained` takes or of a speech model.

    Speech models are HuBERT, wav2vec 2.0 and WavLM in the layout of transformers; no
    other kind is known, and no code that comes with a model is run.
    """
    place = download(str(source), [CONFIG]) if is_hub_id(source) else Path(source)
    config = read_config(place) if (place / CONFIG).is_file() else {}
    kind = config.get("model_type")
    if kind is None:
        return MuQ.from_pretrained(source, device).mods.encoder
    if kind not in KINDS:
        raise UserError(
            f"{source} is a {kind!r} model. An encoder is a MuQ or BEST-RQ model (a "
            f"run, a folder or a hub id) or one of {', '.join(KINDS)}."
        )
    try:
        with given_by_user():
            encoder = PretrainedSpeechEncoder(source, sample_rate=16000)
    except OSError as error:
        raise NoModel(str(error)) from error
    return encoder.requires_grad_(False).eval().to(device)
