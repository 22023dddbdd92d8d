"""Fitting a quantizer's centres to frames, by scikit-learn.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def fit_centres(
    quantizer: nn.Module,
    frames: Tensor,
    seed: int,
    batch_size: int = 4096,
    iterations: int = 100,
    restarts: int = 5,
) -> None:
    """Sets a quantizer's centres by mini-batch k-means.

    The method of HuBERT's recipe (arXiv 2106.07447), scikit-learn's
    ``MiniBatchKMeans`` started by k-means++.

    Arguments
    ---------
    quantizer : nn.Module
        Has ``codebook_size`` and ``set_centres``.
    frames : Tensor
        Feature vectors (frames, size).
    seed : int
        Of the start and of the mini-batches.
    batch_size : int
        Frames in a mini-batch.
    iterations : int
        Passes over all frames at most.
    restarts : int
        Starts that are tried; the best one is used.

    Raises
    ------
    ValueError
        If there are fewer frames, or fewer different ones, than centres.

    Example
    -------
    >>> from muq_plugins.lobes import KMeans
    >>> quantizer = KMeans(1, codebook_size=2)
    >>> frames = torch.tensor([[0.0], [0.0], [8.0], [8.0], [8.0], [8.0]])
    >>> fit_centres(quantizer, frames, seed=1)
    >>> quantizer.centres.flatten().sort().values.round()
    tensor([0., 8.])
    """
    from sklearn.cluster import MiniBatchKMeans

    clusters = quantizer.codebook_size
    vectors = frames.cpu().numpy()
    if len(vectors) < clusters:
        raise ValueError(
            f"codebook_size is {clusters}, but there are only {len(vectors)} training "
            f"frames: raise optimizer_step_limit or clips_per_update, or lower "
            f"codebook_size."
        )
    different = len(np.unique(vectors, axis=0))
    if different < clusters:
        raise ValueError(
            f"codebook_size is {clusters}, but only {different} of the {len(vectors)} "
            f"training frames differ from each other: is the audio silent?"
        )
    kmeans = MiniBatchKMeans(
        n_clusters=clusters,
        init="k-means++",
        n_init=restarts,
        max_iter=iterations,
        batch_size=batch_size,
        random_state=seed,
    )
    kmeans.fit(vectors)
    quantizer.set_centres(torch.from_numpy(kmeans.cluster_centers_))
