"""Centres and labels are those of scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin

from muq_plugins.brains import fit_centres
from muq_plugins.lobes import KMeans


def test_centres_and_labels_equal_those_of_scikit_learn():
    torch.manual_seed(0)
    frames = 20 * torch.randn(8, 39)[torch.randint(8, (3000,))] + torch.randn(3000, 39)
    quantizer = KMeans(39, codebook_size=12)
    fit_centres(quantizer, frames, seed=5, batch_size=500, iterations=30, restarts=3)
    reference = MiniBatchKMeans(
        12, max_iter=30, batch_size=500, n_init=3, random_state=5
    ).fit(frames.numpy())
    assert np.array_equal(quantizer.centres.numpy(), reference.cluster_centers_)
    labels = quantizer.encode(frames)[:, 0].numpy()
    # A frame or two of 3000 are nearly as far from two centres.
    assert np.mean(labels != reference.predict(frames.numpy())) < 0.002
    # Far from zero, as the loudness is, scikit-learn's float32 distances lose digits
    # that ours keep.
    offset = torch.zeros(39)
    offset[0] = -400
    quantizer.set_centres(quantizer.centres + offset)
    labels = quantizer.encode(frames + offset)[:, 0].numpy()
    exact = pairwise_distances_argmin(
        (frames + offset).double().numpy(), quantizer.centres.double().numpy()
    )
    assert np.mean(labels != exact) < 0.002


def test_each_level_is_fitted_to_what_is_left():
    frames = 20 * torch.randn(8, 9)[torch.randint(8, (900,))] + torch.randn(900, 9)
    options = {"seed": 5, "batch_size": 300, "iterations": 9, "restarts": 2}
    one, three = KMeans(9, 6), KMeans(9, 6, num_codebooks=3)
    for quantizer in (one, three):
        fit_centres(quantizer, frames, **options)
    assert torch.equal(three.centres[:6], one.centres)
    second = KMeans(9, 6)
    fit_centres(second, frames - one(frames).quantized, **options)
    assert torch.equal(three.centres[6:12], second.centres)
    errors = three(frames).level_errors
    assert len(errors) == 4 and (errors.diff() < 0).all()
    few = torch.arange(2.0)[:, None].expand(2, 9)
    with pytest.raises(ValueError, match="only 1 of the 2 .* after 1 levels"):
        fit_centres(KMeans(9, 2, num_codebooks=2), few, seed=1)


def test_fewer_frames_than_centres_are_refused():
    with pytest.raises(ValueError, match="is 12, but there are only 11 training"):
        fit_centres(KMeans(39, 12), torch.randn(11, 39), seed=1)
    with pytest.raises(ValueError, match="only 5 of the 50 .* silent"):
        fit_centres(KMeans(39, 12), torch.randn(5, 39).repeat(10, 1), seed=1)
