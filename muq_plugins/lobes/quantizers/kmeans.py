"""K-means: the target of HuBERT."""

from __future__ import annotations

import torch
from torch import Tensor

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
    """The closest of some centres (HuBERT, arXiv 2106.07447).

    Centres are fitted to a corpus once, not trained by gradients. Until then
    there are none, and quantizing is an error.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    codebook_size : int
        Number of centres V.

    Example
    -------
    >>> quantizer = KMeans(2, codebook_size=2)
    >>> quantizer.set_centres(torch.tensor([[0.0, 0.0], [4.0, 4.0]]))
    >>> quantizer.encode(torch.tensor([[3.0, 5.0], [1.0, 0.0]]))
    tensor([[1],
            [0]])
    """

    def __init__(self, input_size: int, codebook_size: int):
        super().__init__(input_size, num_codebooks=1, codebook_size=codebook_size)
        nothing = torch.full((codebook_size, input_size), float("nan"))
        self.register_buffer("centres", nothing)

    def set_centres(self, centres: Tensor) -> None:
        """Sets the centres.

        Arguments
        ---------
        centres : Tensor
            (V, input_size).

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
        """Chooses the closest centre, in float32 whatever the precision around it.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        Tensor
            Codes (..., 1) int64.

        Raises
        ------
        ValueError
            If the centres have not been fitted.
        """
        if bool(self.centres.isnan().any()):
            raise ValueError(
                "These k-means centres have not been fitted: name an experiment that "
                "fits them under 'tokenizer', or the folder of its run as "
                "tokenizer_folder."
            )
        return nearest_centres(feats, self.centres)[..., None]

    def decode(self, codes: Tensor) -> Tensor:
        """Turns codes back into feature vectors.

        Arguments
        ---------
        codes : Tensor
            (..., 1) int64.

        Returns
        -------
        Tensor
            The centres (..., input_size).

        Raises
        ------
        ValueError
            If there is more than one code per frame.
        """
        check_decodable(codes, self.num_codebooks)
        return self.centres[codes[..., 0]]

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Quantizes; there is nothing to train.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        QuantizerOutput
            Codes, centres, a loss of zero and the error of decoding.
        """
        codes = self.encode(feats)
        return QuantizerOutput(
            codes=codes,
            quantized=self.decode(codes),
            loss=feats.new_zeros(()),
            terms={},
            level_errors=decoding_errors(self, feats, codes),
        )
