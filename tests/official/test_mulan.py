"""MuQ-MuLan beside the official package, which runs in its own environment.

The golden outputs in the repository show one model; here are others, and what we save
is loaded by the official class.
"""

import pytest
import torch
from safetensors.torch import load_file

from muq_plugins.inference.mulan import MuQMuLan, save_mulan
from muq_plugins.inference.text_models import make_text_model
from muq_plugins.lobes import AudioTower, DecoupledContrastive, MuQEncoder, TextTower
from tests.official.seeded import TEXTS, seeded_wavs
from tests.official.text_model import make_xlm_roberta

pytestmark = [pytest.mark.slow, pytest.mark.official]


@pytest.fixture
def official(official_python):
    def run(*arguments):
        official_python("official_mulan_side.py", *arguments)

    return run


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def assert_same(model, golden):
    """Everything that the official side writes, from our model."""
    found = {
        f"audio_{length}": model.embed_audio(seeded_wavs(length))
        for length in ("long", "short", "clips")
    }
    found["text_alone"] = model.embed_text(TEXTS)
    found["similarity"] = model.similarity(found["audio_long"], found["text_alone"])
    model.mods.text.average_padding = True
    found["text_batch"] = model.embed_text(TEXTS)
    found["loss"] = model.loss(found["audio_clips"], found["text_batch"])
    for name, value in found.items():
        assert relative(value, golden[name]) < 1e-5, name
    assert torch.equal(model.mods.text.tokenize(TEXTS)[0], golden["tokens"])


@pytest.mark.parametrize("audio_layers, layer", [(0, -1), (2, 1)])
def test_an_official_model_and_back(official, tmp_path, audio_layers, layer):
    text = make_xlm_roberta(tmp_path / "text")
    made = tmp_path / "official"
    settings = ["--audio-layers", str(audio_layers), "--layer", str(layer)]
    official("make", "--text", text, "--out", made, *settings)
    golden = load_file(made / "golden.safetensors")
    model = MuQMuLan.from_pretrained(made)
    saved = model.save_pretrained(tmp_path / "saved")
    assert_same(model, golden)

    official("run", "--model", saved, "--out", tmp_path / "result.safetensors")
    theirs = load_file(tmp_path / "result.safetensors")
    assert all(torch.equal(theirs[name], golden[name]) for name in golden)


def test_a_model_trained_here_loads_in_the_official_class(official, tmp_path):
    texts = make_text_model(tmp_path / "texts", TEXTS * 20, 400, 32, 2, 4, 48)
    text = TextTower.from_folder(
        texts, pretrained=False, latent_width=16, num_layers=2, num_heads=4
    )
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    encoder.features.set_statistics(-3.0, 25.0)
    audio = AudioTower(encoder, latent_width=16, width=24)
    loss = DecoupledContrastive(temperature=20.0)
    save_mulan(tmp_path / "run" / "inference", audio, text, 2, loss)
    model = MuQMuLan.from_pretrained(tmp_path / "run")
    saved = model.save_pretrained(tmp_path / "saved")
    official("run", "--model", saved, "--out", tmp_path / "result.safetensors")
    assert_same(model, load_file(tmp_path / "result.safetensors"))
