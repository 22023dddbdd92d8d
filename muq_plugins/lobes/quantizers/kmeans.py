"""K-means, the target of HuBERT, and residual k-means."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from muq_plugins.lobes.finite import refuse_unless
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import ResidualCentres


@part
class KMeans(ResidualCentres):
    """The closest of some centres (HuBERT, arXiv 2106.07447), level after level.

    Each level quantizes what the ones before it have left over. Centres are fitted to a
    corpus once, not trained by gradients. Until then there are none, and quantizing is
    an error.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    codebook_size : int
        Number of centres V of each level.
    num_codebooks : int
        Number of levels N.

    Example
    -------
    >>> quantizer = KMeans(2, codebook_size=2)
    >>> quantizer.set_centres(torch.tensor([[0.0, 0.0], [4.0, 4.0]]))
    >>> quantizer.encode(torch.tensor([[3.0, 5.0], [1.0, 0.0]]))
    tensor([[1],
            [0]])
    """

    def __init__(self, input_size: int, codebook_size: int, num_codebooks: int = 1):
        super().__init__(input_size, num_codebooks, codebook_size)
        nothing = torch.full((num_codebooks * codebook_size, input_size), float("nan"))
        self.register_buffer("centres", nothing)  # one level below the other

    def set_centres(self, centres: Tensor) -> None:
        """Sets the centres.

        Arguments
        ---------
        centres : Tensor
            (N * V, input_size), one level after the other.

        Raises
        ------
        ValueError
            If there are more or fewer, or they have another size.

        Example
        -------
        >>> KMeans(39, codebook_size=100).set_centres(torch.zeros(50, 39))
        Traceback (most recent call last):
        ...
        ValueError: Centres have the shape (50, 39), expected (100, 39).
        """
        if centres.shape != self.centres.shape:
            raise ValueError(
                f"Centres have the shape {tuple(centres.shape)}, expected "
                f"{tuple(self.centres.shape)}."
            )
        self.centres.copy_(centres)

    def levels(self) -> Iterable[Tensor]:
        return self.centres.split(self.codebook_size)

    def encode(self, feats: Tensor) -> Tensor:
        refuse_unless(
            ~self.centres.isnan().any(),
            "These k-means centres have not been fitted: name an experiment that "
            "fits them under 'tokenizer', or the folder of its run as "
            "tokenizer_folder.",
        )
        return super().encode(feats)
