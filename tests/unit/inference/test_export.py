"""ONNX files: the model's own numbers at any length, in files that can be moved."""

import copy
import shutil

import numpy as np
import pytest
import torch

from muq_plugins import LogMel, MuQ, MuQEncoder, MuQMuLan
from muq_plugins.inference import export
from muq_plugins.inference.export import export_onnx
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import AudioTower
from tests.unit.inference.tiny_mulan import tiny_mulan
from tests.unit.processor import needs_int8

onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5  # of the largest value


@pytest.fixture(scope="module")
def encoder():
    return make_encoder(num_layers=2)


def make_encoder(num_layers):
    """A tiny encoder whose batch normalisation has something to do."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers, num_heads=4, ffn_width=64, conv_channels=4)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return encoder.eval()


@pytest.fixture(scope="module")
def exported(encoder, tmp_path_factory):
    """All hidden states, with lengths."""
    path = tmp_path_factory.mktemp("all") / "muq.onnx"
    return export_onnx(encoder, path, hidden_states="all", wav_lens=True)


def run(path, *inputs):
    """The only output of a file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    arrays = [tensor.numpy() for tensor in inputs]
    (output,) = session.run(None, dict(zip(names, arrays, strict=True)))
    return output


def assert_close(found, expected):
    expected = expected.numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize(
    ("batch", "samples"), [(1, 24000), (2, 24077), (2, 50001), (1, 1025)]
)
@torch.no_grad()
def test_all_hidden_states_at_any_length(encoder, exported, batch, samples):
    wavs = torch.randn(batch, samples) * 0.1
    expected = torch.stack(encoder(wavs).hidden_states)
    assert_close(run(exported, wavs, torch.ones(batch)), expected)


@torch.no_grad()
def test_padding_never_influences_a_clip(encoder, exported):
    """As the model with lengths, whatever lies in the padding."""
    wavs, lens = torch.randn(3, 30011) * 0.1, torch.tensor([1.0, 0.71, 0.3])
    expected = encoder(wavs, lens).last_hidden_state
    assert_close(run(exported, wavs, lens)[-1], expected)
    beyond = torch.arange(30011) >= torch.round(lens.double() * 30011)[:, None]
    found = run(exported, torch.where(beyond, 1.0, wavs), lens)
    assert_close(found[-1], expected)


@pytest.mark.parametrize("floor", [None, -20.0])
def test_the_spectrogram_equals_the_features(floor):
    """Music has no silent bands: noise under tones, and a statistic of its own."""
    features = LogMel(mean=2.0, std=9.0, floor=floor)
    time = torch.arange(48000) / 24000
    wavs = torch.sin(2 * torch.pi * 440 * time) * 0.5 + torch.randn(2, 48000) * 0.001
    expected, _ = features(wavs)
    assert floor is None or expected.min() == (floor - 2.0) / 9.0
    found = export._FactoredLogMel(features)(wavs, None)
    assert (found - expected).norm() <= 1e-4 * expected.norm()


@torch.no_grad()
def test_a_served_model_and_large_weights(tmp_path, monkeypatch):
    """A MuQ as it is loaded; weights in a second file, which can be moved."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(export, "MAX_EMBEDDED_BYTES", 0)
    model = MuQ.from_pretrained(save_muq(tmp_path / "model", make_encoder(1)))
    path = export_onnx(model, tmp_path / "new" / "muq.onnx")
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == ["muq.onnx", "muq.onnx.data"]
    assert path.stat().st_size < 5e5 < (tmp_path / "new/muq.onnx.data").stat().st_size
    moved = shutil.move(path.parent, tmp_path / "moved") / path.name
    onnx.checker.check_model(moved)
    for shape in ((1, 12000), (2, 24077)):
        wavs = torch.randn(shape) * 0.1
        assert_close(run(moved, wavs), model(wavs).last_hidden_state)
    (value,) = onnxruntime.InferenceSession(moved).get_inputs()
    assert (value.name, value.shape) == ("wavs", ["batch", "samples"])


@needs_int8
def test_int8(encoder, exported, tmp_path, monkeypatch):
    """Smaller, near, in operators of the standard alone, and it says so."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(export, "MAX_EMBEDDED_BYTES", 0)
    path = export_onnx(encoder, tmp_path / "muq.onnx", "all", wav_lens=True, int8=True)
    assert {file.name for file in tmp_path.iterdir()} == {"muq.onnx", "muq.onnx.data"}
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert session.get_modelmeta().custom_metadata_map == {
        "sample_rate": "24000",
        "frame_rate": "25.0",
        "layers": "2",
        "width": "32",
        "precision": "int8",
    }
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    counts = [node.op_type for node in model.graph.node].count
    # In a layer: four in attention, four in feed-forward parts, two pointwise; and one
    # behind the convolutions.
    assert counts("MatMulInteger") == 2 * 10 + 1
    whole = [node.op_type for node in onnx.load(exported).graph.node].count
    assert counts("MatMul") == whole("MatMul") - counts("MatMulInteger")
    wavs, lens = torch.randn(2, 24077) * 0.1, torch.tensor([1.0, 0.6])
    expected, found = run(exported, wavs, lens), run(path, wavs, lens)
    for one, other in zip(found, expected, strict=True):
        assert 1e-4 < np.linalg.norm(one - other) < 0.04 * np.linalg.norm(other)


@torch.no_grad()
def test_a_tower_gives_latents_of_clips(tmp_path):
    """Of any layer, with or without a transformer above it, whatever is padded."""
    model = MuQMuLan.from_pretrained(tiny_mulan(tmp_path), "cpu")
    model.mods.audio = AudioTower(make_encoder(2), 16, 24, 1, layer=1).eval()
    path = export_onnx(model, tmp_path / "tower.onnx", wav_lens=True)
    wavs, lens = torch.randn(3, 30011) * 0.1, torch.tensor([1.0, 0.71, 0.3])
    expected = model.mods.audio(wavs, lens)
    assert_close(run(path, wavs, lens), expected)
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["latent_width"], facts["clip_seconds"]) == ("16", "1.0")
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("latents", ["batch", 16])
    with pytest.raises(ValueError, match="'all', but a MuQ-MuLan gives one vector"):
        export_onnx(model, tmp_path / "all.onnx", "all")


@torch.no_grad()
@needs_int8
def test_a_tower_in_int8_is_near(tmp_path):
    model = MuQMuLan.from_pretrained(tiny_mulan(tmp_path), "cpu")
    model.mods.audio = AudioTower(make_encoder(2), 16, 24, 1, layer=1).eval()
    path = export_onnx(model, tmp_path / "int8.onnx", wav_lens=True, int8=True)
    wavs, lens = torch.randn(3, 30011) * 0.1, torch.tensor([1.0, 0.71, 0.3])
    expected = model.mods.audio(wavs, lens)
    cosines = (torch.from_numpy(run(path, wavs, lens)) * expected).sum(1)
    assert 0.99 < cosines.min() < cosines.max() < 1 - 1e-6


def test_the_file_describes_itself(exported):
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(exported, full_check=True)
    session = onnxruntime.InferenceSession(exported)
    assert session.get_modelmeta().custom_metadata_map == {
        "sample_rate": "24000",
        "frame_rate": "25.0",
        "layers": "2",
        "width": "32",
    }
    assert [(v.name, v.shape) for v in session.get_inputs()] == [
        ("wavs", ["batch", "samples"]),
        ("wav_lens", ["batch"]),
    ]
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("hidden_states", [3, "batch", "frames", 32])
    # The exporter's notes hold paths of the machine that it ran on.
    assert not any(node.metadata_props for node in onnx.load(exported).graph.node)


def test_what_cannot_be_exported_is_refused(encoder, tmp_path, monkeypatch):
    path = tmp_path / "muq.onnx"
    small = MuQEncoder(8, num_layers=1, num_heads=2, ffn_width=8, conv_channels=2)
    for arguments, message in (
        ((encoder, tmp_path / "muq.pt"), "must end in .onnx"),
        ((encoder, path, "first"), "one of last, all, got 'first'"),
        ((torch.nn.Linear(1, 1), path), "not a Linear"),
        ((small, path), "training mode"),
        ((copy.deepcopy(encoder).bfloat16(), path), "must be float32, but has torch.b"),
    ):
        with pytest.raises(ValueError, match=message):
            export_onnx(*arguments)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        export_onnx(encoder, path)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name != "onnxruntime" or None
    )
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        export_onnx(encoder, path, int8=True)
    assert not list(tmp_path.iterdir())
