"""Any encoder by its name: ours, the official ones, MERT, and those of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import CONFIG_MAPPING

from muq_plugins.errors import UserError, given_by_user
from muq_plugins.inference.folders import (
    CONFIG,
    PICKLE,
    WEIGHTS,
    NoModel,
    download,
    is_hub_id,
    read_config,
)
from muq_plugins.inference.muq import MuQ
from muq_plugins.inference.transformers_models import (
    EXTRACTOR,
    MERT,
    load_mert,
    load_transformers,
)
from muq_plugins.lobes import PretrainedSpeechEncoder
from muq_plugins.lobes.encoders.pretrained_speech import KINDS


def load_encoder(
    source: str | Path, device: str | torch.device = "cpu", trained: bool = True
) -> nn.Module:
    """A frozen encoder, of what `MuQ.from_pretrained` takes or of other audio models.

    Those are MERT, CLAP's audio tower, and models of transformers that turn audio into
    hidden states frame by frame. No code that comes with a model is run. Not trained, a
    model of transformers needs nothing but its files of settings.
    """
    place = download(str(source), [CONFIG]) if is_hub_id(source) else Path(source)
    config = read_config(place) if (place / CONFIG).is_file() else {}
    kind = config.get("model_type")
    if kind is None:
        return MuQ.from_pretrained(source, device).mods.encoder
    if kind not in MERT and kind not in CONFIG_MAPPING:
        raise UserError(
            f"{source} is a {kind!r} model, which transformers does not know, and code "
            "that comes with a model is not run. An encoder is a MuQ or BEST-RQ model "
            "(a run, a folder or a hub id), MERT, or an audio model of transformers."
        )
    if is_hub_id(source):
        weights = [WEIGHTS, "model-*.safetensors", f"{WEIGHTS}.index.json"] * trained
        place = download(str(source), [CONFIG, EXTRACTOR, *weights])
        if trained and not list(place.glob("*.safetensors")):
            place = download(str(source), [CONFIG, EXTRACTOR, PICKLE])
    with given_by_user():
        if kind in MERT:
            encoder = load_mert(place, config, trained)
        elif kind in KINDS and trained:
            try:
                encoder = PretrainedSpeechEncoder(place, sample_rate=16000)
            except OSError as error:
                raise NoModel(str(error)) from error
        else:
            encoder = load_transformers(place, device, trained)
    return encoder.requires_grad_(False).eval().to(device)
