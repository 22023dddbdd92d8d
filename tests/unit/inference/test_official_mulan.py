"""Official MuQ-MuLan: golden outputs of the official package, strictness, round trip.

`tests/data/official_mulan_small` was written by `tests.official.make_mulan_data` with
the package muq 0.1.0 and transformers 4.46.3.
"""

import json

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from muq_plugins.inference.mulan import MuQMuLan, save_mulan
from muq_plugins.inference.official_mulan import MULAN
from muq_plugins.lobes import InfoNCE, LatentTransformer, SigmoidContrastive
from tests.official.seeded import TEXTS, seeded_wavs
from tests.unit.inference.edits import (
    REMOVED,
    Evil,
    edit_config,
    old_weight_norm,
    pickled,
    relative,
)
from tests.unit.inference.tiny_mulan import (
    OFFICIAL,
    another_text_model,
    official_mulan,
    tiny_mulan,
)


@pytest.fixture(scope="module")
def golden():
    """What the official package computed."""
    return load_file(OFFICIAL / "golden.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The official checkpoint; not to be changed."""
    return official_mulan(tmp_path_factory.mktemp("official") / "mulan")


@pytest.fixture(scope="module")
def model(folder):
    return MuQMuLan.from_pretrained(folder)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("length", ["long", "short", "clips"])
def test_audio_latents_equal_the_official_ones(model, golden, length):
    latents = model.embed_audio(seeded_wavs(length))
    expected = golden[f"audio_{length}"]
    assert relative(latents, expected) < 1e-5
    # The comparison tells recordings, and so what is heard of them, apart.
    assert relative(expected[0], expected[1]) > 1e-3


def test_tokens_and_text_latents_equal_the_official_ones(model, golden):
    assert torch.equal(model.mods.text.tokenize(TEXTS)[0], golden["tokens"])
    assert relative(model.embed_text(TEXTS), golden["text_alone"]) < 1e-5
    for text, expected in zip(TEXTS, golden["text_alone"], strict=True):
        assert relative(model.embed_text([text])[0], expected) < 1e-5


def test_official_averages_over_padding_can_be_selected(model, golden, monkeypatch):
    monkeypatch.setattr(model.mods.text, "average_padding", True)
    assert relative(model.embed_text(TEXTS), golden["text_batch"]) < 1e-5
    assert relative(golden["text_batch"], golden["text_alone"]) > 0.1


def test_similarities_equal_the_official_ones(model, golden):
    audio = model.embed_audio(seeded_wavs("long"))
    found = model.similarity(audio, model.embed_text(TEXTS))
    assert relative(found, golden["similarity"]) < 1e-5


def test_losses_equal_the_official_ones(model, golden):
    assert abs(model.loss.temperature().item() - 14.0) < 1e-4
    audio = golden["audio_clips"]
    loss = model.loss(audio, golden["text_batch"])
    assert abs(loss - golden["loss"]) < 1e-5 * golden["loss"]
    for name, contrast in (
        ("info_nce", InfoNCE(10.0)),
        ("sigmoid", SigmoidContrastive(10.0, bias=-10.0)),
    ):
        loss = contrast(audio, golden["text_alone"])
        assert abs(loss - golden[name]) < 1e-5 * golden[name], name


def without_prefix(tensors):
    return {name.removeprefix("mulan."): tensor for name, tensor in tensors.items()}


def with_positions(tensors):
    """As releases of transformers before 4.31 have saved."""
    positions = torch.arange(130)[None]
    return {**tensors, "mulan.text.model.embeddings.position_ids": positions}


@pytest.mark.parametrize("as_pickle", [False, True])
@pytest.mark.parametrize("edit", [old_weight_norm, without_prefix, with_positions])
def test_all_spellings_of_a_checkpoint(golden, tmp_path, edit, as_pickle):
    folder = official_mulan(tmp_path / "x", pickled=as_pickle, edit=edit)
    latents = MuQMuLan.from_pretrained(folder).embed_audio(seeded_wavs("short"))
    assert relative(latents, golden["audio_short"]) < 1e-5


def test_names_go_both_ways(model, folder):
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    checkpoint = MULAN.sort(tensors, config, folder)
    again = MULAN.sort(MULAN.write(checkpoint), config, folder)
    assert MULAN.write(again) == tensors and again.own == checkpoint.own
    towers = {"audio": model.mods.audio, "text": model.mods.text}
    ours = torch.nn.ModuleDict(towers).state_dict().keys()
    assert checkpoint.own.keys() == {k for k in ours if "audio.encoder." not in k}


def test_a_saved_checkpoint_keeps_every_tensor(model, folder, tmp_path):
    again = model.save_pretrained(tmp_path / "again")
    before = old_weight_norm(load_file(folder / "model.safetensors"))
    after = load_file(again / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after)
    read = [json.loads((f / "config.json").read_text()) for f in (folder, again)]
    assert read[0] == read[1]
    loaded = MuQMuLan.from_pretrained(again)
    assert loaded.fingerprint == model.fingerprint
    # The names are on the hub: nothing is written twice.
    assert len(list(again.rglob("*.safetensors"))) == 1


def test_fingerprints_are_equal_in_both_layouts(model, tmp_path):
    mods = model.mods
    ours = save_mulan(tmp_path / "x", mods.audio, mods.text, 2, model.loss)
    loaded = MuQMuLan.from_pretrained(ours)
    assert loaded.fingerprint == model.fingerprint
    assert torch.equal(loaded.embed_text(TEXTS), model.embed_text(TEXTS))


def test_a_model_of_ours_goes_through_the_official_layout(tmp_path):
    ours = MuQMuLan.from_pretrained(tiny_mulan(tmp_path / "ours", max_tokens=30))
    folder = ours.save_pretrained(tmp_path / "official")
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "official")
    again = MuQMuLan.from_pretrained(moved)
    assert again.fingerprint == ours.fingerprint
    wavs = 0.1 * torch.randn(2, 60000)
    assert torch.equal(again.embed_audio(wavs), ours.embed_audio(wavs))
    assert torch.equal(again.embed_text(TEXTS), ours.embed_text(TEXTS))
    assert torch.equal(again.loss.log_temperature, ours.loss.log_temperature)
    # A copy stands on its own: it names its own parts, with their weights.
    copy = again.save_pretrained(tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    for section, part in (("audio_model", "muq"), ("text_model", "xlm-roberta")):
        assert config[section]["name"] == str(copy.resolve() / part)
        assert (copy / part / "model.safetensors").is_file()
    named = ours.save_pretrained(tmp_path / "named", "me/my-MuQ", "me/xlm-roberta-x")
    assert len(list(named.rglob("*.safetensors"))) == 1
    names = json.loads((named / "config.json").read_text())
    assert names["audio_model"]["name"] == "me/my-MuQ"


def test_what_the_official_class_cannot_be_is_not_saved(tmp_path):
    ours = MuQMuLan.from_pretrained(tiny_mulan(tmp_path, clip_seconds=1.5))
    with pytest.raises(ValueError) as error:
        ours.save_pretrained(tmp_path / "x", "me/encoder", "me/bert")
    for part in ("clips of 1.5 seconds", "'me/encoder'", "'me/bert'"):
        assert part in str(error.value)
    assert not (tmp_path / "x").exists()


INSIDE = "audio.model.model."


def having(name, *shape):
    """Adds a tensor, or replaces it."""
    return {"edit": lambda old: {**old, f"mulan.{name}": torch.zeros(shape)}}


def without(name):
    return {"edit": lambda old: {k: t for k, t in old.items() if k != f"mulan.{name}"}}


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            without("text.transformer.layers.1.0.to_q.weight"),
            "missing: mulan.text.transformer.layers.1.0.to_q.weight",
        ),
        (
            having("text.model.encoder.layer.9.output.dense.bias", 1),
            "unknown: mulan.text.model.encoder.layer.9.output.dense.bias",
        ),
        (
            having("audio_to_latents.bias", 7),
            r"mulan.audio_to_latents.bias: shape \(7,\), expected \(16,\)",
        ),
        (having(f"{INSIDE}conv.linear.bias", 3), r"conv.linear.bias: shape \(3,\)"),
        (having(f"{INSIDE}stranger", 1), "no MuQ checkpoint has: model.stranger"),
        (without(f"{INSIDE}conv.linear.bias"), "missing: conv.linear.bias"),
        # The loss
        (
            having("contrast.temperatures", 2, 1, 1),
            r"mulan.contrast.temperatures: shape \(2,\), expected \(\)",
        ),
        (having("contrast.stranger", 1), "unknown: mulan.contrast.stranger"),
        ({"mulan.sr": 44100}, "mulan.sr is 44100, only 24000 is known"),
        ({"mulan.hierarchical_contrastive_loss": True}, "only False is known"),
        ({"text_transformer.ff_mult": 2}, "text_transformer.ff_mult is 2"),
        ({"audio_transformer.heads": 4}, "audio_transformer.heads is 4, only 8"),
        ({"text_model.model_dim": 48}, "a projection between them is not known"),
        ({"audio_model.model_dim": 48}, "hidden states of 32, the checkpoint wants 48"),
        ({"mulan.dim_latent": REMOVED}, "mulan.dim_latent is missing"),
        ({"mulan.dim_latent": 17}, r"shape \(16, 24\), expected \(17, 24\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, damage, message):
    settings = {} if "edit" in damage else damage
    folder = official_mulan(tmp_path / "x", **({} if settings else damage))
    edit_config(folder, settings)
    with pytest.raises(ValueError, match=message):
        MuQMuLan.from_pretrained(folder)


def test_a_pickle_that_executes_is_refused(tmp_path):
    folder = official_mulan(tmp_path / "x")
    pickled(folder, {"mulan.evil": Evil()})
    with pytest.raises(ValueError, match="Files that would execute code are refused"):
        MuQMuLan.from_pretrained(folder)


def test_code_in_the_text_model_is_not_executed(tmp_path):
    folder = official_mulan(tmp_path / "x")
    auto_map = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    edit_config(folder / "xlm-roberta", {"auto_map": auto_map})
    evil = f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: pass\n"
    (folder / "xlm-roberta" / "evil.py").write_text(evil)
    MuQMuLan.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "part, argument, name",
    [
        ("muq", "audio_model", "OpenMuQ/MuQ-large-msd-iter"),
        ("xlm-roberta", "text_model", "xlm-roberta-base"),
    ],
)
def test_without_a_network_the_remedy_is_named(
    golden, offline, tmp_path, part, argument, name
):
    folder = official_mulan(tmp_path / "x")
    elsewhere = (folder / part).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as error:
        MuQMuLan.from_pretrained(folder, cache_dir=tmp_path / "cache")
    message = str(error.value)
    assert f"{name} is no folder here and could not be downloaded" in message
    assert str(folder / part) in message and f"{argument}=..." in message
    model = MuQMuLan.from_pretrained(folder, **{argument: elsewhere})
    assert (
        relative(model.embed_audio(seeded_wavs("short")), golden["audio_short"]) < 1e-5
    )
    with pytest.raises(FileNotFoundError, match="holds no config.json. Its weights"):
        MuQMuLan.from_pretrained(folder, **{argument: tmp_path})


def test_a_checkpoint_of_the_hub_without_a_network(offline, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        MuQMuLan.from_pretrained("no-one/MuQ-MuLan", cache_dir=tmp_path)
    for part in ("no-one/MuQ-MuLan", "could not be", "muq/config.json", "xlm-roberta"):
        assert part in str(error.value)


def test_the_transformer_of_the_released_size():
    with torch.device("meta"):
        transformer = LatentTransformer(768, num_layers=8)
    # What the official class has on its text model.
    assert sum(p.numel() for p in transformer.parameters()) == 50_344_960


def test_parts_of_another_size_are_refused(tmp_path):
    folder = official_mulan(tmp_path / "x")
    wide = another_text_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(ValueError, match=r"text_model .*wide\) does not fit"):
        MuQMuLan.from_pretrained(folder, text_model=wide)
    deep = another_text_model(tmp_path / "deep", num_hidden_layers=3)
    with pytest.raises(ValueError, match="missing: mulan.text.model.encoder.layer.2"):
        MuQMuLan.from_pretrained(folder, text_model=deep)
    with pytest.raises(ValueError, match="not the config.json of an official MuQ"):
        MuQMuLan.from_pretrained(folder, audio_model=wide)
