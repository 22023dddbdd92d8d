"""An encoder by its name: what kind it is follows from its folder."""

import json

import pytest
import torch

from muq_plugins.errors import UserError
from muq_plugins.inference.encoders import load_encoder
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.unit.tiny_encoders import save_speech_model


def test_ours_speech_models_and_others(tmp_path):
    ours = MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(tmp_path / "ours", ours)
    assert load_encoder(tmp_path / "ours").config == ours.config

    hubert = save_speech_model(tmp_path / "hubert")
    speech = load_encoder(str(hubert))
    assert (speech.sample_rate, speech.training) == (16000, False)
    assert not speech(torch.randn(1, 16000)).last_hidden_state.requires_grad

    settings = json.loads((tmp_path / "hubert/config.json").read_text())
    settings["model_type"] = "mert_model"
    (tmp_path / "hubert/config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="hubert is a 'mert_model' model"):
        load_encoder(tmp_path / "hubert")
    with pytest.raises(UserError, match="No trained MuQ model in"):
        load_encoder(tmp_path)
