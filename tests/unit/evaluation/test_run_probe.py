"""The probe and the examples that end a run."""

import numpy as np
import soundfile
import torch

from muq_plugins.evaluation.inspection import reconstruction_examples
from muq_plugins.evaluation.probe_result import load_probe
from muq_plugins.evaluation.run_probe import probe_run
from muq_plugins.lobes import (
    LogMel,
    MuQEncoder,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
)


def tones(folder, pieces, family_of):
    """Clips of low tones and of high tones."""
    manifest = {}
    for piece in range(pieces):
        family = family_of(piece)
        pitch = (200 if family == "low" else 3000) + 20 * piece
        path = folder / f"{family}{piece}.wav"
        soundfile.write(path, 0.3 * np.sin(np.arange(24000) * pitch / 3820), 24000)
        manifest[path.stem] = {
            "wav": str(path),
            "duration": 1.0,
            "piece": str(piece),
            "family": family,
        }
    return manifest


def encoder():
    return MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)


def test_the_probe_compares_an_encoder_with_itself_untrained(tmp_path):
    manifest = tones(tmp_path, 12, lambda piece: ("low", "high")[piece % 2])
    trained = encoder().train()
    assert probe_run(tmp_path, encoder(), trained, manifest, manifest)
    results = load_probe(tmp_path)
    names = ["log-mel statistics", "untrained encoder", "trained encoder"]
    assert [result.name for result in results] == names
    assert results[0].balanced_accuracy == 1.0
    assert [result.feature_size for result in results] == [256, 16, 16]


def test_without_labels_there_is_no_probe(tmp_path):
    manifest = {"a": {"wav": "a.wav", "duration": 1.0}}
    assert not probe_run(tmp_path, encoder(), encoder(), manifest, manifest)
    assert load_probe(tmp_path) == []


def test_too_small_a_corpus_does_not_end_the_run_with_an_error(tmp_path):
    manifest = tones(tmp_path, 4, lambda piece: "low")
    assert not probe_run(tmp_path, encoder(), encoder(), manifest, manifest)


def test_reconstructions_are_those_of_the_first_levels():
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 4, 16))
    wavs = torch.randn(1, 24000)
    examples = reconstruction_examples(target, wavs)
    assert examples["reconstruction_levels"].tolist() == [1, 2, 4]
    codes = target(wavs)
    for image, level in zip(examples["reconstructions"], (1, 2, 4), strict=True):
        decoded = target.quantizer.decode(codes[..., :level])[0]
        assert torch.equal(image, decoded.detach().reshape(100, 128))
    torch.testing.assert_close(examples["mel"], LogMel()(wavs)[0][0])


def test_what_cannot_be_decoded_has_no_examples():
    target = Target(StackedFrames(LogMel()), RandomProjection(512, 4, 16))
    assert reconstruction_examples(target, torch.randn(1, 24000)) == {}
