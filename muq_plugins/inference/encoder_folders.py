"""Inference folders of encoders: their settings, and what SpeechBrain reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from muq_plugins.inference.folders import load_weights, save_folder
from muq_plugins.lobes.encoders.muq import MuQEncoder
from muq_plugins.lobes.parts import build, describe

# MuQ's own encoder, whose folders hold its arguments only; any other names its class.
MUQ_ENCODER = "muq_encoder"
ENCODER = "encoder"

# What SpeechBrain's from_hparams needs to build the same model from the folder.
HYPERPARAMETERS = """\
# Inference with SpeechBrain: muq_plugins.MuQ.from_hparams(source="this folder")
sample_rate: {sample_rate}
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
encoder: {encoder}
{arguments}
modules:
    encoder: !ref <encoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        encoder: !ref <encoder>
    custom_hooks:
        encoder: !name:muq_plugins.inference.folders.pretrainer_hook
"""


def save_encoder(folder: str | Path, encoder: nn.Module) -> Path:
    """Writes the inference folder of an encoder."""
    description = describe(encoder)
    if isinstance(encoder, MuQEncoder):
        config = {"kind": MUQ_ENCODER, "encoder": encoder.config}
        call, arguments = "!new:muq_plugins.lobes.MuQEncoder", encoder.config
    else:
        config = {"kind": ENCODER, "encoder": description}
        call = "!apply:muq_plugins.lobes.encoders.build_encoder"
        arguments = {"description": description}
    text = yaml.safe_dump(arguments, sort_keys=False)
    hyperparameters = HYPERPARAMETERS.format(
        sample_rate=encoder.sample_rate,
        encoder=call,
        arguments="".join(f"    {line}\n" for line in text.splitlines()).rstrip(),
    )
    return save_folder(
        folder, encoder.state_dict(), config, hyperparameters, loadable="encoder"
    )


def load_encoder(folder: str | Path, config: dict[str, Any]) -> nn.Module:
    """Builds the encoder of an inference folder and loads its weights."""
    kind = config.get("kind")
    if kind == MUQ_ENCODER:
        description = {"class": MuQEncoder.__name__, "arguments": config["encoder"]}
    elif kind == ENCODER:
        description = config["encoder"]
    else:
        raise ValueError(
            f"{folder} holds a {kind or 'model of unknown kind'}, not a {MUQ_ENCODER} "
            f"or other {ENCODER}: give the folder of a pre-training run, or a "
            f"checkpoint of the official MuQ package."
        )
    try:
        encoder = build(description)
    except ValueError as error:
        raise ValueError(f"{Path(folder) / 'config.json'}: {error}") from error
    load_weights(encoder, folder)
    return encoder
