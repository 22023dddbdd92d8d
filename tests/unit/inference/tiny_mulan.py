"""Tiny MuQ-MuLan models, and the official one of the golden tensors."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import RobertaConfig, RobertaModel

from muq_plugins.inference.mulan import save_mulan
from muq_plugins.inference.text_models import make_text_model
from muq_plugins.lobes import AudioTower, DecoupledContrastive, MuQEncoder, TextTower
from tests.official.seeded import TEXTS, seeded_state

OFFICIAL = Path(__file__).parents[2] / "data" / "official_mulan_small"


def tiny_encoder():
    return MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)


def tiny_text(folder, **settings):
    """A text tower on a small text model of ours."""
    texts = make_text_model(folder, TEXTS * 20, 400, 32, 1, 4, 48, max_tokens=60)
    settings = {"latent_width": 16, "num_layers": 1, **settings}
    return TextTower.from_folder(texts, pretrained=False, **settings)


def tiny_mulan(folder, encoder=None, clip_seconds=1.0, **settings):
    """An inference folder of a tiny model."""
    text = tiny_text(Path(folder) / "texts", **settings)
    audio = AudioTower(encoder or tiny_encoder(), latent_width=16)
    loss = DecoupledContrastive(temperature=14.0)
    return save_mulan(Path(folder) / "inference", audio, text, clip_seconds, loss)


def official_mulan(folder, pickled=False, edit=None):
    """The official checkpoint whose outputs are in the repository.

    ``edit`` changes its tensors before they are written.
    """
    shutil.copytree(OFFICIAL, folder)
    shapes = json.loads((folder / "tensors.json").read_text())
    tensors = seeded_state(shapes)
    if edit is not None:
        tensors = edit(tensors) or tensors
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


def another_text_model(folder, **settings):
    """Config and tokenizer of the official checkpoint, with other settings."""
    shutil.copytree(OFFICIAL / "xlm-roberta", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def roberta_with_pooler(tower):
    """The same text model with a part that pools for other tasks."""
    config = RobertaConfig(**tower.model.config.to_dict())
    return RobertaModel(config, add_pooling_layer=True)
