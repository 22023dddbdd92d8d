"""Tokenizers of every kind from their folders, with the codes that they had."""

import json

import pytest
import torch

from muq_plugins.inference.any_tokenizer import any_tokenizer
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import (
    FiniteScalarQuantization,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
)


def fitted():
    quantizer = KMeans(39, 5)
    quantizer.set_centres(torch.randn(5, 39))
    return quantizer


@pytest.mark.parametrize(
    ("features", "make"),
    [
        (StackedFrames(LogMel(n_mels=64), 2), lambda: ResidualVQ(128, 3, 8, 4, 2)),
        (
            StackedFrames(LogMel(), 4),
            lambda: FiniteScalarQuantization(512, 3, levels=(4, 3)),
        ),
        (KeptFrames(Mfcc(), 4), fitted),
    ],
)
def test_codes_are_the_same_again(features, make, tmp_path):
    torch.manual_seed(0)
    target = Target(features, make())
    save_tokenizer(tmp_path / "run" / "inference", target, "seed: 1")
    torch.manual_seed(1)
    loaded = any_tokenizer(tmp_path / "run")
    wavs = torch.randn(2, 24000)
    codes = loaded(wavs)
    assert torch.equal(codes, target(wavs)) and codes.unique().numel() > 1
    assert (loaded.frame_rate, loaded.codebook_size) == (
        target.frame_rate,
        target.codebook_size,
    )


def test_what_cannot_be_loaded_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No trained tokenizer in .*nowhere"):
        any_tokenizer(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="No tokenizer file .*x.pth"):
        any_tokenizer(tmp_path / "x.pth")
    target = Target(StackedFrames(LogMel()), RandomProjection(512, 2, 16))
    folder = save_tokenizer(tmp_path / "inference", target, "")
    with pytest.raises(ValueError, match="quantizer RandomProjection, which cannot"):
        any_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantizer"], config["features"] = "KMeans", "TeacherFeatures"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="features TeacherFeatures, which cannot"):
        any_tokenizer(folder)
    (folder / "config.json").write_text('{"kind": "muq"}')
    with pytest.raises(ValueError, match="holds a muq with no quantizer"):
        any_tokenizer(folder)
