"""The released size beside the official package, which runs in its own environment.

The environment is built once by ``benchmarks/environment.py`` and kept in a cache.
"""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from muq_plugins import LogMel, MelRVQ, MuQ
from muq_plugins.inference.folders import read_config
from muq_plugins.inference.official import read_official
from tests.official.parts import masked_prediction

HERE = Path(__file__).parent
SIDE = HERE / "official_side.py"

pytestmark = [pytest.mark.slow, pytest.mark.official]


@pytest.fixture(scope="module")
def official(official_python):
    """Runs `official_side.py` with the official package."""
    return partial(official_python, SIDE)


@pytest.fixture(scope="module")
def folder(official, tmp_path_factory):
    """A random official model of the released size, and what it computes."""
    folder = tmp_path_factory.mktemp("official")
    official("make", "--size", "full", "--out", folder)
    yield folder
    shutil.rmtree(folder)  # two gigabytes


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_hidden_states_and_checkpoints_at_full_size(official, folder, tmp_path):
    golden = load_file(folder / "golden.safetensors")
    wavs = golden["wavs"].float()
    model = MuQ.from_pretrained(folder)
    states = model(wavs).hidden_states
    assert len(states) == len(golden["hidden_states"]) == 13
    for state, expected in zip(states, golden["hidden_states"], strict=True):
        assert relative(state, expected) < 1e-5
    feats, _ = LogMel()(wavs)
    assert relative(feats.transpose(1, 2), golden["mel"]) < 1e-5

    checkpoint = read_official(folder, read_config(folder))
    torch.save(checkpoint.others["tokenizer"], tmp_path / "rvq.pth")
    codes = MelRVQ.from_pretrained(tmp_path / "rvq.pth")(wavs)
    assert torch.equal(codes, golden["codes"].long())

    stage = masked_prediction(folder, golden)
    with torch.no_grad():
        loss = stage(wavs, None, torch.arange(2)).loss
    assert abs(loss - golden["loss"]) < 1e-5 * golden["loss"]

    # What we save is loaded by the official class, and computes the same.
    saved = model.save_pretrained(tmp_path / "ours")
    save_file({"wavs": golden["wavs"]}, tmp_path / "wavs.safetensors")
    result = tmp_path / "result.safetensors"
    files = ["--wavs", tmp_path / "wavs.safetensors", "--out", result]
    official("run", "--model", saved, *files)
    theirs = load_file(result)["hidden_states"]
    assert torch.equal(theirs, golden["hidden_states"])
    shutil.rmtree(saved)


def test_a_model_trained_here_loads_in_the_official_class(official, tmp_path):
    from muq_plugins import MuQEncoder
    from muq_plugins.inference.muq import save_muq

    encoder = MuQEncoder(64, num_layers=2, num_heads=4, ffn_width=128, conv_channels=8)
    encoder.features.set_statistics(-3.0, 25.0)
    ours = MuQ.from_pretrained(save_muq(tmp_path / "ours", encoder))
    wavs = torch.randn(2, 24000) * 0.1
    save_file({"wavs": wavs}, tmp_path / "wavs.safetensors")
    result = tmp_path / "result.safetensors"
    files = ["--wavs", tmp_path / "wavs.safetensors", "--out", result]
    official("run", "--model", ours.save_pretrained(tmp_path / "official"), *files)
    theirs = load_file(result)["hidden_states"]
    for state, expected in zip(ours(wavs).hidden_states, theirs, strict=True):
        assert relative(state, expected) < 1e-5
