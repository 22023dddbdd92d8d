"""Inference folders: strict, complete or not there, and only data."""

import os

import pytest
import torch
from speechbrain.inference.encoders import WaveformEncoder

from muq_plugins import MuQ, MuQEncoder
from muq_plugins.errors import UserError
from muq_plugins.inference.folders import load_weights, read_config, save_folder
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, Target
from tests.unit.inference.edits import edit_tensors


@pytest.fixture
def encoder():
    return MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)


def test_a_saved_model_comes_back(encoder, tmp_path):
    encoder.features.set_statistics(1.0, 3.0)
    folder = save_muq(tmp_path / "run" / "inference", encoder)
    encoder.eval()
    wavs, lens = torch.randn(2, 48000), torch.tensor([1.0, 0.6])
    with torch.no_grad():
        expected = encoder(wavs, lens)
    for model in (
        MuQ.from_pretrained(tmp_path / "run"),
        MuQ.from_hparams(source=str(folder), savedir=str(tmp_path / "cache")),
    ):
        out = model(wavs, lens)
        assert torch.equal(out.last_hidden_state, expected.last_hidden_state)
        assert len(out.hidden_states) == 3
        assert not out.last_hidden_state.requires_grad


def test_other_interfaces_of_speechbrain_find_the_weights(encoder, tmp_path):
    folder = save_muq(tmp_path / "inference", encoder)

    class Any(WaveformEncoder):
        MODULES_NEEDED = []

    model = Any.from_hparams(source=str(folder), savedir=str(tmp_path / "cache"))
    state = model.mods.encoder.state_dict()
    assert all(torch.equal(state[k], v) for k, v in encoder.state_dict().items())


def test_a_tokenizer_is_not_a_model(tmp_path):
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 8))
    save_tokenizer(tmp_path / "inference", target, "")
    with pytest.raises(ValueError, match="holds a tokenizer, not a muq_encoder"):
        MuQ.from_pretrained(tmp_path)


def test_the_nearest_run_is_named(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_muq("results/muq/1234/inference", encoder)
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 8))
    save_tokenizer("results/muq/1234/tokenizer/inference", target, "")
    for wrong in ("results/muq/1243", "results/mug/1234", "resluts/muq/1234"):
        with pytest.raises(UserError, match="Do you mean results/muq/1234\\?$"):
            MuQ.from_pretrained(wrong)
    with pytest.raises(UserError, match="Do you mean small\\?$"):
        MuQ.from_pretrained("smal")
    for unlike in ("nothing", "results/muq/1234/tokenizers"):
        with pytest.raises(UserError) as error:
            MuQ.from_pretrained(unlike)
        assert "tokenizer?" not in str(error.value)


def test_all_weights_that_do_not_fit_are_named_at_once(encoder, tmp_path):
    folder = save_muq(tmp_path / "inference", encoder)

    def edit(tensors):
        tensors["conv.linear.bias"] = torch.zeros(5)
        tensors["stranger"] = tensors.pop("conformer.layer_norm.weight")

    edit_tensors(folder, edit)
    with pytest.raises(ValueError) as error:
        load_weights(encoder, folder)
    for words in (
        str(folder / "model.safetensors"),
        "missing: conformer.layer_norm.weight",
        "unknown: stranger",
        "conv.linear.bias: shape (5,), expected (32,)",
    ):
        assert words in str(error.value)


def test_an_interrupted_save_keeps_the_folder_of_before(encoder, tmp_path, monkeypatch):
    folder = save_muq(tmp_path / "inference", encoder)
    monkeypatch.setattr("os.rename", lambda *args: 1 / 0)
    monkeypatch.setattr("os.link", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_muq(folder, encoder)
    monkeypatch.undo()
    MuQ.from_pretrained(folder)


def test_a_damaged_config_is_an_error(encoder, tmp_path):
    folder = save_muq(tmp_path / "inference", encoder)
    (folder / "config.json").write_text('{"kind": ')
    with pytest.raises(ValueError, match="config.json is damaged"):
        MuQ.from_pretrained(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        read_config(folder)


def test_only_numbers_and_tensors_are_read(encoder, tmp_path):
    """The YAML of the folder is for SpeechBrain; from_pretrained never opens it."""
    folder = save_muq(tmp_path / "inference", encoder)
    marker = tmp_path / "executed"
    (folder / "hyperparams.yaml").write_text(f"x: !apply:os.mkdir [{marker}]\n")
    MuQ.from_pretrained(folder)
    assert not marker.exists()


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    module = torch.nn.Linear(1, 1)
    folder = save_folder(tmp_path / "x", module.state_dict(), {})
    (folder / "left over.ckpt").write_text("")
    save_folder(folder, module.state_dict(), {})
    assert not (folder / "left over.ckpt").exists()
    (folder / "my notes.txt").write_text("precious")
    with pytest.raises(UserError, match="my notes.txt"):
        save_folder(folder, module.state_dict(), {})
    assert (folder / "my notes.txt").read_text() == "precious"


def test_weights_may_be_read_by_those_who_may_read_the_config(tmp_path):
    before = os.umask(0o027)
    try:
        folder = save_folder(tmp_path / "x", {"a": torch.zeros(1)}, {}, "", "encoder")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o640"}
