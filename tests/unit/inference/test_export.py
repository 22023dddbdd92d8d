"""ONNX files: the model's own numbers at any length, in files that can be moved."""

import shutil

import numpy as np
import pytest
import torch

from muq_plugins import LogMel, MuQ, MuQEncoder
from muq_plugins.inference import export
from muq_plugins.inference.export import export_onnx
from muq_plugins.inference.muq import save_muq

onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5  # of the largest value


@pytest.fixture(scope="module")
def encoder():
    """A tiny encoder whose batch normalisation has something to do."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return encoder.eval()


@pytest.fixture(scope="module")
def with_all_states(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("all") / "muq.onnx"
    return export_onnx(encoder, path, hidden_states="all")


@pytest.fixture(scope="module")
def with_lengths(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("lengths") / "muq.onnx"
    return export_onnx(encoder, path, wav_lens=True)


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
def test_all_hidden_states_at_any_length(encoder, with_all_states, batch, samples):
    wavs = torch.randn(batch, samples) * 0.1
    expected = torch.stack(encoder(wavs).hidden_states)
    assert_close(run(with_all_states, wavs), expected)


@torch.no_grad()
def test_padding_never_influences_a_clip(encoder, with_lengths):
    """A length input: as the model with lengths, whatever lies in the padding."""
    wavs, lens = torch.randn(3, 30011) * 0.1, torch.tensor([1.0, 0.71, 0.3])
    expected = encoder(wavs, lens).last_hidden_state
    assert_close(run(with_lengths, wavs, lens), expected)
    beyond = torch.arange(30011) >= torch.round(lens.double() * 30011)[:, None]
    found = run(with_lengths, torch.where(beyond, 1.0, wavs), lens)
    assert_close(found, expected)
    assert_close(
        run(with_lengths, wavs, torch.ones(3)), encoder(wavs).last_hidden_state
    )


def test_the_spectrogram_equals_the_features():
    """Music has no silent bands: noise under tones, and a statistic of its own."""
    features = LogMel(mean=2.0, std=9.0)
    time = torch.arange(48000) / 24000
    wavs = torch.sin(2 * torch.pi * 440 * time) * 0.5 + torch.randn(2, 48000) * 0.001
    expected, _ = features(wavs)
    found = export._ConvolutionLogMel(features)(wavs, None)
    assert (found - expected).norm() <= 1e-4 * expected.norm()


@torch.no_grad()
def test_a_served_model_and_large_weights(encoder, tmp_path, monkeypatch):
    """A MuQ as it is loaded; weights in a second file, which can be moved."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(export, "MAX_EMBEDDED_BYTES", 0)
    model = MuQ.from_pretrained(save_muq(tmp_path / "model", encoder))
    path = export_onnx(model, tmp_path / "new" / "muq.onnx")
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == ["muq.onnx", "muq.onnx.data"]
    assert path.stat().st_size < 1e6 < (tmp_path / "new/muq.onnx.data").stat().st_size
    moved = shutil.move(path.parent, tmp_path / "moved") / path.name
    onnx.checker.check_model(moved)
    wavs = torch.randn(1, 12000)
    assert_close(run(moved, wavs), model(wavs).last_hidden_state)


def test_the_file_describes_itself(with_all_states, with_lengths):
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(with_all_states, full_check=True)
    session = onnxruntime.InferenceSession(with_all_states)
    assert session.get_modelmeta().custom_metadata_map == {
        "sample_rate": "24000",
        "frame_rate": "25.0",
        "layers": "2",
        "width": "32",
    }
    assert [(v.name, v.shape) for v in session.get_inputs()] == [
        ("wavs", ["batch", "samples"])
    ]
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("hidden_states", [3, "batch", "frames", 32])
    # The exporter's notes hold paths of the machine that it ran on.
    assert not any(
        node.metadata_props for node in onnx.load(with_all_states).graph.node
    )
    inputs = onnxruntime.InferenceSession(with_lengths).get_inputs()
    assert [value.name for value in inputs] == ["wavs", "wav_lens"]


def test_what_cannot_be_exported_is_refused(encoder, tmp_path, monkeypatch):
    path = tmp_path / "muq.onnx"
    for arguments, message in (
        ((encoder, tmp_path / "muq.pt"), "must end in .onnx"),
        ((encoder, path, "first"), "one of last, all, got 'first'"),
        ((encoder, path, "last", False, 17), "between 18 and 22, got 17"),
    ):
        with pytest.raises(ValueError, match=message):
            export_onnx(*arguments)
    with pytest.raises(ValueError, match="not a Linear"):
        export_onnx(torch.nn.Linear(1, 1), path)
    small = MuQEncoder(8, num_layers=1, num_heads=2, ffn_width=8, conv_channels=2)
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(small, path)
    with pytest.raises(ValueError, match="must be float32, but has torch.bfloat16"):
        export_onnx(small.eval().bfloat16(), path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        export_onnx(encoder, path)
    assert not list(tmp_path.iterdir())
