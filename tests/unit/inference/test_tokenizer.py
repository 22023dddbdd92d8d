"""Saved tokenizers of every kind find their way into a target, or say why not."""

import pytest
import torch

from muq_plugins.inference.tokenizer import load_tokenizer, save_tokenizer
from muq_plugins.lobes import (
    FiniteScalarQuantization,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    MultiViewTarget,
    RandomProjection,
    ResidualVQ,
    StackedFrames,
    Target,
)


def kmeans_target(every=4, centres=4):
    return Target(KeptFrames(Mfcc(), every=every), KMeans(39, centres))


def fsq_target(levels):
    quantizer = FiniteScalarQuantization(512, 2, levels)
    return Target(StackedFrames(LogMel()), quantizer)


def vq_target():
    return Target(StackedFrames(LogMel()), ResidualVQ(512, 2, 64))


@pytest.fixture
def kmeans_folder(tmp_path):
    target = kmeans_target()
    target.quantizer.set_centres(100 * torch.randn(4, 39))
    save_tokenizer(tmp_path / "inference", target, "")
    return tmp_path, target


@pytest.mark.parametrize("make", [lambda: fsq_target([8, 8]), vq_target])
def test_a_trained_tokenizer_gives_the_same_codes(make, tmp_path):
    torch.manual_seed(1)
    target = make()
    torch.manual_seed(2)  # else it would draw the same weights
    other = make()
    wavs = torch.linspace(0, 1, 24000) * torch.randn(1, 24000)
    assert not torch.equal(target(wavs), other(wavs))
    save_tokenizer(tmp_path / "inference", target, "")
    load_tokenizer(other, tmp_path)
    assert torch.equal(target(wavs), other(wavs))


def test_fitted_centres_give_the_same_codes(kmeans_folder):
    folder, target = kmeans_folder
    other = kmeans_target()
    load_tokenizer(other, folder)
    wavs = torch.randn(1, 24000)
    assert torch.equal(target(wavs), other(wavs))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (kmeans_target(every=2), "frame_rate is 25.0 there, 50.0 here"),
        (kmeans_target(centres=5), "codebook_size is 4 there, 5 here"),
        (vq_target(), "quantizer is KMeans there, ResidualVQ here"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(kmeans_folder, target, message):
    with pytest.raises(ValueError, match=message):
        load_tokenizer(target, kmeans_folder[0])


def test_other_levels_with_the_same_product_are_refused(tmp_path):
    save_tokenizer(tmp_path / "inference", fsq_target([8, 8]), "")
    with pytest.raises(ValueError, match=r"levels is \[8, 8\] there, \[4, 16\] here"):
        load_tokenizer(fsq_target([4, 16]), tmp_path)


def test_a_target_of_several_views_takes_no_tokenizer(tmp_path):
    target = MultiViewTarget([Target(LogMel(), RandomProjection(128, 1, 4))])
    with pytest.raises(ValueError, match="MultiViewTarget takes no trained tokenizer"):
        load_tokenizer(target, tmp_path)
