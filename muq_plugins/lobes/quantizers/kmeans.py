"""K-means, the target of HuBERT, and residual k-means."""

from __future__ import annotations

import torch
from torch import Tensor

from muq_plugins.lobes.finite import refuse_unless
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import (
    Quantizer,
    QuantizerOutput,
    check_decodable,
    decoding_errors,
    nearest_centres,
)


@part
class KMeans(Quantizer):
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

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the closest centres, in float32 whatever the precision around them.

        Raises
        ------
        ValueError
            If the centres have not been fitted.
        """
        refuse_unless(
            ~self.centres.isnan().any(),
            "These k-means centres have not been fitted: name an experiment that "
            "fits them under 'tokenizer', or the folder of its run as "
            "tokenizer_folder.",
        )
        codes, left = [], feats.float()
        for centres in self.centres.split(self.codebook_size):
            codes.append(nearest_centres(left, centres))
            left = left - centres[codes[-1]]
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Turns codes back into feature vectors.

        Arguments
        ---------
        codes : Tensor
            (..., n) int64; with n < N only the first n levels are decoded.

        Returns
        -------
        Tensor
            Sums of centres (..., input_size).

        Raises
        ------
        ValueError
            If there are more codes per frame than levels.
        """
        check_decodable(codes, self.num_codebooks)
        levels = zip(
            self.centres.split(self.codebook_size), codes.unbind(-1), strict=False
        )
        return torch.stack([centres[code] for centres, code in levels]).sum(0)

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Quantizes; there is nothing to train.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        QuantizerOutput
            Codes, sums of centres, a loss of zero and the errors of decoding.
        """
        codes = self.encode(feats)
        return QuantizerOutput(
            codes=codes,
            quantized=self.decode(codes),
            loss=feats.new_zeros(()),
            terms={},
            level_errors=decoding_errors(self, feats, codes),
        )
