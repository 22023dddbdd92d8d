"""Random-projection quantizer: the target of BEST-RQ and MusicFM."""

from __future__ import annotations

import torch
from torch import Tensor

from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import (
    Quantizer,
    QuantizerOutput,
    nearest_entries,
)


@part
class RandomProjection(Quantizer):
    """Codes from fixed random projections (BEST-RQ, arXiv 2202.01855).

    Each codebook has a Xavier-normal projection and standard-normal entries of
    its own; the code is the entry closest to the projected vector on the unit
    sphere. Nothing is trained and the loss is zero. The random numbers come
    from a private generator, so building the module leaves the global random
    state alone, and codebook k is the same however many follow it.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    num_codebooks : int
        Number of codebooks N.
    codebook_size : int
        Entries of each codebook V.
    codebook_dim : int
        Size of the projected vectors.
    seed : int
        Chooses the projections and the codebooks, and nothing else.

    Example
    -------
    >>> quantizer = RandomProjection(512, num_codebooks=8, codebook_size=1024)
    >>> quantizer.encode(torch.randn(2, 25, 512)).shape
    torch.Size([2, 25, 8])
    """

    def __init__(
        self,
        input_size: int,
        num_codebooks: int = 1,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        seed: int = 142,
    ):
        super().__init__(input_size, num_codebooks, codebook_size)
        projections, codebooks = [], []
        # One stream for all codebooks: with seed + k for codebook k, neighbouring
        # seeds would share all codebooks but one.
        generator = torch.Generator().manual_seed(seed)
        for _ in range(num_codebooks):
            projection = torch.empty(codebook_dim, input_size)
            torch.nn.init.xavier_normal_(projection, generator=generator)
            projections.append(projection)
            codebooks.append(
                torch.randn(codebook_size, codebook_dim, generator=generator)
            )
        self.register_buffer("projections", torch.stack(projections))
        self.register_buffer("codebooks", torch.stack(codebooks))

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the codes."""
        with torch.autocast(feats.device.type, enabled=False):
            projected = feats.float() @ self.projections.flatten(0, 1).t()
        projected = projected.unflatten(-1, (self.num_codebooks, -1))
        codes = [
            nearest_entries(vectors, codebook)
            for vectors, codebook in zip(
                projected.unbind(-2), self.codebooks, strict=True
            )
        ]
        return torch.stack(codes, dim=-1)

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Quantizes; it cannot be decoded or trained, so zeros stand for vectors."""
        error = feats.abs().mean()
        return QuantizerOutput(
            codes=self.encode(feats),
            quantized=torch.zeros_like(feats),
            loss=feats.new_zeros(()),
            terms={},
            level_errors=error.expand(self.num_codebooks + 1),
        )
