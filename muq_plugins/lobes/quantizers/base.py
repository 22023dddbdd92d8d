"""What every quantizer offers, and the search that all of them share.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.linear import linear

# Similarities of this many vectors with all entries are held at a time: 32 MB
# for 1024 entries, whatever the length of the audio.
SEARCH_CHUNK = 8192


@dataclass
class QuantizerOutput:
    """What a quantizer says about a batch of feature vectors.

    Arguments
    ---------
    codes : Tensor
        Chosen entries (..., N) int64.
    quantized : Tensor
        The vectors that the codes stand for (..., size).
    loss : Tensor
        Scalar that trains the codebooks; zero for a fixed quantizer.
    terms : dict
        Named scalars that the loss is made of, detached, for the log.
    level_errors : Tensor
        Mean absolute error (N + 1,) when the first 0..N levels are decoded.

    Example
    -------
    >>> zero = torch.zeros(())
    >>> out = QuantizerOutput(torch.zeros(3, 8), torch.zeros(3, 512), zero, {}, zero)
    >>> out.codes.shape
    torch.Size([3, 8])
    """

    codes: Tensor
    quantized: Tensor
    loss: Tensor
    terms: dict[str, Tensor]
    level_errors: Tensor


class Quantizer(nn.Module):
    """The Quantizer contract.

    A quantizer maps feature vectors (..., size) to codes (..., N): one entry of
    each of ``num_codebooks`` codebooks with ``codebook_size`` entries. It works
    on any leading shape, because each vector is quantized on its own.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    num_codebooks : int
        Number of codebooks N.
    codebook_size : int
        Entries of each codebook V.

    Example
    -------
    >>> Quantizer(512, 8, 1024).num_codebooks
    8
    """

    def __init__(self, input_size: int, num_codebooks: int, codebook_size: int):
        super().__init__()
        for name, value in (
            ("input_size", input_size),
            ("num_codebooks", num_codebooks),
            ("codebook_size", codebook_size),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.input_size = input_size
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the codes.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        Tensor
            Codes (..., N) int64.
        """
        raise NotImplementedError

    def after_update(self) -> None:
        """Called once after each optimizer update; nothing to do by default."""


def nearest_entries(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Finds the most similar codebook entry by cosine, in float32.

    This is the search of factorised, L2-normalised codebooks (ViT-VQGAN,
    arXiv 2110.04627), which DAC and MuQ use: the closest entry on the unit
    sphere. It is a matrix product, so no (vectors, entries, size) tensor is
    ever made.

    Arguments
    ---------
    vectors : Tensor
        (..., size).
    codebook : Tensor
        (entries, size); it need not be normalised.

    Returns
    -------
    Tensor
        Index of the closest entry (...,) int64.

    Example
    -------
    >>> codebook = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    >>> nearest_entries(torch.tensor([[0.1, 0.2], [3.0, 1.0]]), codebook)
    tensor([1, 0])
    """
    with torch.autocast(vectors.device.type, enabled=False):
        directions = F.normalize(codebook.float(), dim=-1)
        # The length of a vector does not change which entry is closest, but
        # normalising keeps ties and rounding equal to the published search.
        flat = F.normalize(vectors.float(), dim=-1).reshape(-1, vectors.shape[-1])
        found = [
            linear(chunk, directions).argmax(dim=-1)
            for chunk in flat.split(SEARCH_CHUNK)
        ]
    return torch.cat(found).reshape(vectors.shape[:-1])
