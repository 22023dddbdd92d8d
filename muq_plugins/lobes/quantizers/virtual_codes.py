"""Codes that never occur, to find out what they do to the student.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from torch import Tensor

from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import Quantizer, QuantizerOutput


@part
class VirtualCodes(Quantizer):
    """Another quantizer with entries on top that nothing is ever closest to.

    A random quantizer leaves many entries unused. The authors of MuQ (arXiv
    2501.01108) wonder whether such virtual classes help the student; here their
    number is chosen, with the codes as they are.

    Arguments
    ---------
    quantizer : Quantizer
        The one that chooses the codes.
    codebook_size : int
        Entries of each codebook V, the virtual ones included.

    Raises
    ------
    ValueError
        If that is less than the quantizer has.

    Example
    -------
    >>> from muq_plugins.lobes import RandomProjection
    >>> quantizer = VirtualCodes(RandomProjection(512, 2, 64), codebook_size=128)
    >>> quantizer.codebook_size
    128
    """

    def __init__(self, quantizer: Quantizer, codebook_size: int):
        if codebook_size < quantizer.codebook_size:
            raise ValueError(
                f"codebook_size is {codebook_size}, less than the "
                f"{quantizer.codebook_size} entries of the {type(quantizer).__name__}: "
                f"virtual codes come on top of them."
            )
        super().__init__(quantizer.input_size, quantizer.num_codebooks, codebook_size)
        self.quantizer = quantizer

    def encode(self, feats: Tensor) -> Tensor:
        """Lets the quantizer choose the codes.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        Tensor
            Codes (..., N) int64.
        """
        return self.quantizer.encode(feats)

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Quantizes.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        QuantizerOutput
            That of the quantizer.
        """
        return self.quantizer(feats)

    def after_update(self) -> None:
        """Tells the quantizer that the optimizer has made an update."""
        self.quantizer.after_update()
