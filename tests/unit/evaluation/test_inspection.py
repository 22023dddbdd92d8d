"""Inspecting a tokenizer: equal to a plain count, whole and by parts; the report."""

import json

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.evaluation.inspection import (
    inspect_tokenizer,
    own_errors,
    reconstruction_examples,
)
from muq_plugins.evaluation.pages.tokenizer import inspection_report
from muq_plugins.evaluation.probing.clips import Clip
from muq_plugins.evaluation.run_files import MetricsLog, load_diagnostics
from muq_plugins.lobes import (
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three recordings of unequal length; each is one window."""
    folder, found = tmp_path_factory.mktemp("clips"), []
    for index, seconds in enumerate((1.0, 2.0, 1.52)):
        wav = np.random.default_rng(index).normal(0, 0.1, round(24000 * seconds))
        path = folder / f"{index}.wav"
        soundfile.write(path, wav, 24000, subtype="FLOAT")
        found.append(Clip(path.name, str(path), seconds))
    return found


@pytest.fixture(scope="module")
def target():
    torch.manual_seed(0)
    return Target(StackedFrames(LogMel()), ResidualVQ(512, 3, 8))


def test_statistics_are_those_of_a_plain_count(clips, target):
    found = inspect_tokenizer(target, clips, batch_size=2)
    codes, feats = [], []
    for clip in clips:
        wav = torch.from_numpy(soundfile.read(clip.wav, dtype="float32")[0])[None]
        codes.append(target(wav)[0])
        feats.append(target.features(wav)[0][0])
    codes, feats = torch.cat(codes), torch.cat(feats)
    assert (found["clips"], found["frames"]) == (3, len(codes)) == (3, 25 + 50 + 38)
    assert found["seconds"] == pytest.approx(4.52)
    for book in range(3):
        shares = np.unique(codes[:, book], return_counts=True)[1] / len(codes)
        entropy = -(shares * np.log(shares)).sum()
        assert found["usage"][book] == pytest.approx(len(shares) / 8)
        assert found["dead_codes"][book] == 8 - len(shares)
        assert found["entropy"][book] == pytest.approx(entropy)
        assert found["perplexity"][book] == pytest.approx(np.exp(entropy))
        assert found["most_frequent_share"][book] == pytest.approx(shares.max())
    errors = [feats.abs().mean().item()] + [
        (feats - target.quantizer.decode(codes[:, :level])).abs().mean().item()
        for level in (1, 2, 3)
    ]
    assert found["reconstruction_error_per_level"] == pytest.approx(errors, rel=1e-5)


def test_windows_are_spread_over_a_clip(clips, target):
    found = inspect_tokenizer(target, clips[1:2], window_seconds=0.48, max_windows=3)
    assert (found["clips"], found["frames"]) == (1, 3 * 12)


def test_the_report_is_made_from_the_folder_alone(clips, target, tmp_path):
    found = inspect_tokenizer(target, clips, tmp_path)
    assert json.loads((tmp_path / "inspection.json").read_text()) == found
    assert load_diagnostics(tmp_path)["code_counts"].sum() == 3 * found["frames"]
    own = [0.8, 0.5, 0.4, 0.3]
    page = inspection_report(tmp_path, "a tokenizer", own).read_text("utf-8")
    text = (tmp_path / "report.md").read_text("utf-8")
    assert page.count("<img") == 3
    for words in ("a tokenizer", "test part of its own training", "frames of this aud"):
        assert words in text
    assert f"only {found['frames']} frames" not in text


@pytest.mark.parametrize(
    ("features", "quantizer", "images"),
    [
        (KeptFrames(Mfcc(), 4), KMeans(39, 5), 2),
        (StackedFrames(LogMel()), RandomProjection(512, 2, 16), 1),
    ],
)
def test_other_tokenizers(clips, features, quantizer, images, tmp_path):
    if isinstance(quantizer, KMeans):
        quantizer.set_centres(torch.randn(5, 39))
    found = inspect_tokenizer(Target(features, quantizer), clips, tmp_path)
    can_decode = hasattr(quantizer, "decode")
    assert (found["reconstruction_error_per_level"] is not None) == can_decode
    page = inspection_report(tmp_path).read_text("utf-8")
    assert page.count("<img") == images


def test_unreadable_clips_are_named(clips, target, tmp_path):
    lost = Clip("lost", str(tmp_path / "lost.wav"), 1.0)
    found = inspect_tokenizer(target, [clips[0], lost], tmp_path)
    assert found["clips"] == 1 and "lost.wav" in found["skipped"][0]
    inspection_report(tmp_path)
    assert "lost.wav" in (tmp_path / "report.md").read_text("utf-8")
    with pytest.raises(ValueError, match="None of the 1 clips could be read: .*lost"):
        inspect_tokenizer(target, [lost])


def test_its_own_test_is_found_beside_a_tokenizer(tmp_path):
    assert own_errors(tmp_path) == []
    row = {"kind": "valid", "stage": "tokenizer", "step": 1}
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({**row, "reconstruction_error_per_level": [9.0, 9.0]})
    assert own_errors(tmp_path) == []
    log.write({**row, "kind": "test", "reconstruction_error_per_level": [0.8, 0.4]})
    assert own_errors(tmp_path) == [0.8, 0.4]


def test_nothing_inspected(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was inspected"):
        inspection_report(tmp_path)


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
