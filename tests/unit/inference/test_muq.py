"""Every encoder is saved, comes back, embeds long audio, teaches; nothing else does."""

import json

import pytest
import torch
import yaml
from torch import nn

from muq_plugins import MuQ, PretrainedMuQ
from muq_plugins.data.windows import EDGE_SECONDS
from muq_plugins.inference.export import export_onnx
from muq_plugins.inference.muq import save_muq, teacher_features
from muq_plugins.inference.tokenizer import load_tokenizer, save_tokenizer
from muq_plugins.lobes import (
    MuQEncoder,
    PretrainedSpeechEncoder,
    ResampledEncoder,
    ResidualVQ,
    Target,
)
from muq_plugins.lobes.parts import build
from tests.unit.inference.edits import edit_config, edit_tensors, old_weight_norm
from tests.unit.tiny_encoders import TINY, save_speech_model, tiny_encoder


@pytest.fixture(scope="module", params=TINY)
def saved(request, tmp_path_factory):
    """An encoder and its folder."""
    encoder = tiny_encoder(request.param).eval()
    run = tmp_path_factory.mktemp(request.param) / "run"
    return encoder, save_muq(run / "inference", encoder)


@torch.no_grad()
def test_a_saved_encoder_comes_back(saved, tmp_path):
    encoder, folder = saved
    wavs, lens = torch.randn(2, 24000), torch.tensor([1.0, 0.6])
    expected = encoder(wavs, lens)
    for model in (
        MuQ.from_pretrained(folder.parent),
        MuQ.from_hparams(source=str(folder), savedir=str(tmp_path / "cache")),
    ):
        again = model.mods.encoder
        assert type(again) is type(encoder)
        assert again.config == encoder.config
        assert not again.training
        out = model(wavs, lens)
        assert torch.equal(out.lens, expected.lens)
        for found, state in zip(out.hidden_states, expected.hidden_states, strict=True):
            # Ten roundings of numbers around 1: sums may take another order each time.
            torch.testing.assert_close(found, state, rtol=1e-5, atol=5e-6)


def test_a_folder_holds_plain_numbers(saved):
    encoder, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "encoder.ckpt",
        "hyperparams.yaml",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    if type(encoder).__name__ == "MuQEncoder":
        assert config == {"kind": "muq_encoder", "encoder": encoder.config}
    else:
        assert config["kind"] == "encoder"
        assert build(config["encoder"]).config == encoder.config


@torch.no_grad()
def test_long_audio(saved):
    encoder, folder = saved
    model = MuQ.from_pretrained(folder)
    blocks = list(torch.randn(7, 24000))
    chunks = list(model.embed_long(blocks, window=2.0, overlap=0.4, layer=1))
    hidden = torch.cat([chunk.hidden for chunk in chunks])
    assert hidden.shape == (round(7 * encoder.frame_rate), 32)
    heard = round((2.0 + EDGE_SECONDS) * 24000)  # with what is beside the window
    start = encoder(torch.cat(blocks)[None, :heard]).hidden_states[1][0]
    ours = round(1.6 * encoder.frame_rate)  # before the first overlap
    torch.testing.assert_close(hidden[:ours], start[:ours], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="There is no layer 3"):
        list(model.embed_long(blocks, layer=3))


def test_arrays_will_do(saved):
    model = MuQ.from_pretrained(saved[1])
    wavs, lens = torch.randn(2, 24000) / 9, torch.tensor([1.0, 0.5])
    expected = model(wavs, lens).last_hidden_state
    assert torch.equal(model(wavs.numpy(), [1.0, 0.5]).last_hidden_state, expected)
    blocks = [block for wav in wavs for block in wav.split(12000)]
    chunks = model.embed_long(block.numpy() for block in blocks)
    expected = [chunk.hidden for chunk in model.embed_long(blocks)]
    assert torch.equal(torch.cat([chunk.hidden for chunk in chunks]), *expected)


def test_a_pretrained_encoder_needs_its_source_no_more(tmp_path):
    source = save_speech_model(tmp_path / "hubert")
    encoder = ResampledEncoder(PretrainedSpeechEncoder(source), 25.0).eval()
    folder = save_muq(tmp_path / "inference", encoder)
    for path in source.iterdir():
        path.unlink()
    for name in ("config.json", "hyperparams.yaml"):
        assert str(tmp_path) not in (folder / name).read_text()
    wavs = torch.randn(1, 24000)
    with torch.no_grad():
        expected = encoder(wavs).last_hidden_state
    assert torch.equal(MuQ.from_pretrained(folder)(wavs).last_hidden_state, expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("class", "torch.nn.Linear", "config.json: There is no part 'torch.nn.Linear'"),
        ("arguments.num_layers", 3, "transformer.layers.2"),
    ],
)
def test_a_file_cannot_ask_for_what_its_weights_are_not(tmp_path, key, value, message):
    folder = save_muq(tmp_path / "x", tiny_encoder("WaveformTransformer"))
    edit_config(folder, {f"encoder.{key}": value})
    with pytest.raises(ValueError, match=message):
        MuQ.from_pretrained(folder)


@pytest.mark.parametrize("name", ["WaveformTransformer", "HuBERT"])
def test_both_spellings_of_weight_normalisation_are_read(name, tmp_path):
    """Transformers and torch have used two, and folders outlive versions."""
    encoder = tiny_encoder(name).eval()
    folder = save_muq(tmp_path / "x", encoder)
    edit_tensors(folder, old_weight_norm)
    wavs = torch.randn(1, 24000)
    with torch.no_grad():
        expected = encoder(wavs).last_hidden_state
    found = MuQ.from_pretrained(folder)(wavs).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_what_nobody_could_build_again_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="A Linear cannot be saved"):
        save_muq(tmp_path / "x", nn.Linear(1, 1))
    assert not (tmp_path / "x").exists()


def test_the_yaml_of_speechbrain_names_the_class_once(tmp_path):
    """Nothing in it depends on who reads it: no path, no import of our making."""
    encoder = tiny_encoder("averaged")
    folder = save_muq(tmp_path / "x", encoder)
    lines = (folder / "hyperparams.yaml").read_text().splitlines()
    start = lines.index("encoder: !apply:muq_plugins.lobes.encoders.build_encoder")
    block = "\n".join(lines[start + 1 : lines.index("modules:")])
    assert yaml.safe_load(block)["description"] == {
        "class": "ResampledEncoder",
        "arguments": encoder.config,
    }


def test_what_only_muqs_own_encoder_can_do_is_refused_by_name(tmp_path):
    folder = save_muq(tmp_path / "x", tiny_encoder("SpeechBrainConformer"))
    model = MuQ.from_pretrained(folder)
    with pytest.raises(ValueError, match="holds a SpeechBrainConformer: load it with"):
        PretrainedMuQ(folder)
    with pytest.raises(ValueError, match="cannot hold a SpeechBrainConformer"):
        model.save_pretrained(tmp_path / "official")
    with pytest.raises(ValueError, match="not a SpeechBrainConformer"):
        export_onnx(model, tmp_path / "x.onnx")


# Teachers


def save_teacher(folder, seed=0, dropout=0.1):
    torch.manual_seed(seed)
    encoder = MuQEncoder(
        32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4, dropout=dropout
    )
    return save_muq(folder / "inference", encoder)


def test_a_copy_is_the_same_teacher_and_another_one_is_not(tmp_path):
    first, copied, other = (
        teacher_features(save_teacher(tmp_path / name, seed, dropout), 1).config
        for name, seed, dropout in (("a", 0, 0.1), ("b", 0, 0.0), ("c", 1, 0.1))
    )
    assert first == copied
    assert first["teacher"] != other["teacher"]


def test_a_layer_or_a_teacher_that_does_not_exist(tmp_path):
    save_teacher(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}.* no layer 10: .* blocks 1 to 2"):
        teacher_features(tmp_path, 10)
    with pytest.raises(FileNotFoundError, match="No trained MuQ model in"):
        teacher_features(tmp_path / "x", 1)


def target_of(folder, layer=1):
    return Target(teacher_features(folder, layer), ResidualVQ(32, 2, 16))


def test_a_tokenizer_is_loaded_for_its_own_teacher_and_layer_only(tmp_path):
    teacher, other = save_teacher(tmp_path / "a"), save_teacher(tmp_path / "b", 1)
    made = target_of(teacher)
    folder = save_tokenizer(tmp_path / "tokenizer", made, "")
    assert (folder / "model.safetensors").stat().st_size < 50_000  # no teacher in it
    torch.manual_seed(1)
    loaded, wavs = target_of(tmp_path / "a"), torch.randn(1, 24000)
    load_tokenizer(loaded, folder)
    assert torch.equal(loaded(wavs), made(wavs))
    for wrong in (target_of(other), target_of(teacher, layer=2)):
        with pytest.raises(
            ValueError, match="does not fit .* features_config"
        ) as error:
            load_tokenizer(wrong, folder)
        assert str(folder) in str(error.value)
