"""Telling MuQ-MuLans apart by what they compute."""

from __future__ import annotations

import hashlib
import json

from torch import nn

from muq_plugins.lobes import AudioTower, TextTower
from muq_plugins.lobes.parts import TRAINING_ONLY, fingerprint

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


def mulan_fingerprint(audio: AudioTower, text: TextTower, clip_seconds: float) -> str:
    """A short hash of all weights, settings and words that a latent depends on."""
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
