"""Official checkpoints: golden tensors of the official package, strictness, round trip.

`tests/data/official_small` was written by `tests/official/official_side.py` (``make``)
in an environment with the package muq 0.1.0, transformers 4.46.3 and random weights.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from muq_plugins import LogMel, MelRVQ, MuQ
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.official import MUQ, read_official
from muq_plugins.lobes import MuQEncoder
from tests.official.parts import masked_prediction
from tests.unit.inference.edits import (
    REMOVED,
    Evil,
    edit_config,
    edit_tensors,
    old_weight_norm,
    pickled,
    relative,
)

OFFICIAL = Path(__file__).parents[2] / "data" / "official_small"


@pytest.fixture(scope="module")
def golden():
    """What the official package computed."""
    return load_file(OFFICIAL / "golden.safetensors")


@pytest.fixture
def copied(tmp_path):
    """A copy of the checkpoint, to be damaged."""
    return shutil.copytree(OFFICIAL, tmp_path / "official")


def test_log_mel_equals_the_official_one(golden):
    feats, _ = LogMel()(golden["wavs"].float())
    assert relative(feats.transpose(1, 2), golden["mel"]) < 1e-5


@pytest.mark.parametrize("weights", ["safetensors", "pickle", "half precision"])
def test_hidden_states_equal_the_official_ones(golden, copied, weights):
    half = weights == "half precision"
    if half:
        edit_tensors(copied, lambda tensors: {k: t.half() for k, t in tensors.items()})
    if weights != "safetensors":
        pickled(copied)
    model = MuQ.from_pretrained(copied)
    states = model(golden["wavs"].float()).hidden_states
    assert len(states) == len(golden["hidden_states"]) == 4
    for state, expected in zip(states, golden["hidden_states"], strict=True):
        assert relative(state, expected) < (1e-2 if half else 1e-5)


def test_the_official_behaviour_with_padding_can_be_selected(golden):
    model = MuQ.from_pretrained(OFFICIAL)
    wavs, lens = golden["wavs"].float(), torch.tensor([1.0, 0.5])
    wavs[1, 12000:] = 0
    own = model(wavs, lens).hidden_states[-1]
    official = model(wavs, lens, mask_padding=False)
    assert torch.equal(official.last_hidden_state, model(wavs).last_hidden_state)
    assert torch.equal(official.lens, lens)
    alone = model(wavs[1:, :12000]).last_hidden_state[0]
    frames = len(alone)
    assert torch.allclose(own[1, :frames], alone, atol=1e-4)
    # The official frames near the end hear the padding.
    assert not torch.allclose(official.last_hidden_state[1, :frames], alone, atol=1e-2)


def test_codes_and_masked_loss_equal_the_official_ones(golden):
    stage = masked_prediction(OFFICIAL, golden)
    wavs = golden["wavs"].float()
    assert torch.equal(stage.objectives["codes"].target(wavs), golden["codes"].long())
    out = stage(wavs, None, torch.arange(2))
    assert abs(out.loss - golden["loss"]) < 1e-5 * golden["loss"]


def new_weight_norm(tensors):
    new = ".parametrizations.weight.original"
    return {
        name.replace(".weight_g", f"{new}0").replace(".weight_v", f"{new}1"): tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("spelling", [dict, new_weight_norm])
def test_both_spellings_of_weight_norm(golden, tmp_path, spelling):
    tensors = spelling(read_official(OFFICIAL, {}).others["tokenizer"])
    torch.save(tensors, tmp_path / "RVQ_4000.pth")
    mel_rvq = MelRVQ.from_pretrained(tmp_path / "RVQ_4000.pth")
    assert torch.equal(mel_rvq(golden["wavs"].float()), golden["codes"].long())


def test_names_go_both_ways():
    checkpoint = read_official(OFFICIAL, {})
    tensors = MUQ.write(checkpoint)
    assert len(tensors) > 100 and len(checkpoint.unused) > 3
    assert all(map(len, checkpoint.others.values()))
    again = MUQ.sort(tensors, {}, "x")
    assert again.own == checkpoint.own and again.others == checkpoint.others
    assert again.unused == checkpoint.unused
    assert all(MUQ.ours(MUQ.theirs(name)) == name for name in again.own)


def test_a_saved_checkpoint_keeps_every_tensor(tmp_path):
    folder = MuQ.from_pretrained(OFFICIAL).save_pretrained(tmp_path / "again")
    before = load_file(OFFICIAL / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    normalised = old_weight_norm(before)
    assert after.keys() == normalised.keys()
    assert all(torch.equal(after[name], normalised[name]) for name in after)
    read = [json.loads((f / "config.json").read_text()) for f in (OFFICIAL, folder)]
    assert read[0] == read[1]


def test_a_model_of_ours_goes_through_the_official_layout(tmp_path):
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    encoder.features.set_statistics(1.5, 20.0)
    ours = MuQ.from_pretrained(save_muq(tmp_path / "ours", encoder))
    again = MuQ.from_pretrained(ours.save_pretrained(tmp_path / "official"))
    wavs = torch.randn(1, 24000)
    assert torch.equal(ours(wavs).last_hidden_state, again(wavs).last_hidden_state)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_mels": 64}, "n_mels is 64, there only 128"),
        ({"mel_floor": -20.0}, "mel_floor is -20.0, there only None"),
    ],
)
def test_what_the_official_code_cannot_compute_is_not_saved(tmp_path, setting, message):
    encoder = MuQEncoder(
        32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4, **setting
    )
    ours = MuQ.from_pretrained(save_muq(tmp_path / "ours", encoder))
    assert ours.mods.encoder.features.floor == setting.get("mel_floor")
    with pytest.raises(ValueError, match=message):
        ours.save_pretrained(tmp_path / "official")


LAYER = "conformer.layers.{}.ffn1.output_dense.weight"


def having(name, *shape):
    """Adds a tensor, or replaces it."""
    return lambda folder: edit_tensors(
        folder, lambda tensors: {**tensors, name: torch.zeros(shape)}
    )


def without(name):
    return lambda folder: edit_tensors(
        folder, lambda tensors: {k: t for k, t in tensors.items() if k != name}
    )


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def setting(key, value):
    return lambda folder: edit_config(folder, {key: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without(f"model.{LAYER.format(1)}"), f"missing: {LAYER.format(1)}"),
        (having("model.conv.linear.bias", 7), r"bias: shape \(7,\), expected \(32,\)"),
        (having("model.adapter.w", 1), "no MuQ checkpoint has: model.adapter.w"),
        (having(f"model.{LAYER.format(3)}", 32), f"unknown: {LAYER.format(3)}"),
        (cut, "model.safetensors is not a readable file"),
        (lambda f: pickled(f, {"model.x": Evil()}), "execute code are refused"),
        (lambda f: (f / "model.safetensors").unlink(), "neither it nor .* holds"),
        (setting("label_rate", 50), "label_rate is 50, only 25 is known"),
        (
            setting("w2v2_config.position_embeddings_type", "relative"),
            "only 'rotary' is known",
        ),
        (setting("w2v2_config.hidden_act", "gelu"), "is 'gelu', only 'swish' is known"),
        (setting("stat", {}), "stat.melspec_2048_mean is missing; stat.mel"),
        (setting("encoder_depth", REMOVED), "encoder_depth is missing"),
    ],
)
def test_what_does_not_fit_is_named(copied, damage, message):
    damage(copied)
    with pytest.raises(ValueError, match=message):
        MuQ.from_pretrained(copied)


def test_tensors_that_nothing_reads_may_be_missing(copied, golden):
    unread = ("model.rvq", "model.linear", "model.cls_token")
    more = ("pos_conv_embed", "num_batches_tracked")
    edit_tensors(
        copied,
        lambda tensors: {
            name: tensor
            for name, tensor in tensors.items()
            if not name.startswith(unread) and not any(x in name for x in more)
        },
    )
    state = MuQ.from_pretrained(copied)(golden["wavs"].float()).last_hidden_state
    assert relative(state, golden["hidden_states"][-1]) < 1e-5


def test_a_hub_id_is_downloaded(monkeypatch, golden, copied, tmp_path):
    from huggingface_hub.errors import LocalEntryNotFoundError

    from muq_plugins.inference import folders

    asked = []

    def download(hub_id, revision, cache_dir, allow_patterns):
        asked.append((hub_id, allow_patterns, revision, cache_dir))
        return str(copied)

    monkeypatch.setattr(folders, "snapshot_download", download)
    model = MuQ.from_pretrained("OpenMuQ/MuQ-x", revision="v1", cache_dir=tmp_path)
    files = ["config.json", "model.safetensors"]
    assert asked == [("OpenMuQ/MuQ-x", files, "v1", tmp_path)]
    assert len(model(golden["wavs"].float()).hidden_states) == 4
    # Only a model without safetensors is asked for its pickle.
    pickled(copied)
    weights = (copied / "pytorch_model.bin").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="neither it nor .* holds"):
        MuQ.from_pretrained("OpenMuQ/MuQ-x")
    weights.rename(copied / "pytorch_model.bin")
    MuQ.from_pretrained("OpenMuQ/MuQ-x")
    assert [names for _, names, *_ in asked[3:]] == [files, ["pytorch_model.bin"]]

    def offline(*where, **files):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(folders, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match="OpenMuQ/MuQ-x is no folder here"):
        MuQ.from_pretrained("OpenMuQ/MuQ-x")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (OFFICIAL, "is a MuQ model"),
        ("OpenMuQ/MuQ-large-msd-iter", r"would be a MuQ model \(all of OpenMuQ\)"),
    ],
)
def test_a_model_is_not_a_tokenizer(source, what):
    with pytest.raises(ValueError, match=f"{what}, not a tokenizer"):
        MelRVQ.from_pretrained(source)
