"""Residual vector quantizer of MuQ (Mel-RVQ, arXiv 2501.01108).

Parameter names equal those of the official class, so that its tokenizer files
load as they are. The method is in the section on Mel-RVQ of the paper; the
factorised, L2-normalised codebooks come from DAC (arXiv 2306.06546).

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.linear import linear
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import (
    Quantizer,
    QuantizerOutput,
    check_decodable,
    nearest_entries,
    private_randomness,
)
from muq_plugins.lobes.quantizers.stale_codes import StaleCodes

HIDDEN_SIZE = 128  # width between the layers of a deeper projection


class WeightNormLinear(nn.Module):
    """Linear map whose weight is a direction times a learned length.

    It is the weight-normalised convolution of kernel 1 of the official code,
    with its parameter names and shapes (``weight_g``, ``weight_v``, ``bias``),
    applied to the last axis.

    Arguments
    ---------
    input_size : int
        Size of the input vectors.
    output_size : int
        Size of the output vectors.

    Example
    -------
    >>> layer = WeightNormLinear(512, 16)
    >>> layer(torch.randn(2, 25, 512)).shape
    torch.Size([2, 25, 16])
    """

    def __init__(self, input_size: int, output_size: int):
        super().__init__()
        convolution = nn.Conv1d(input_size, output_size, 1)  # for its initialisation
        self.weight_v = nn.Parameter(convolution.weight.detach().clone())
        self.weight_g = nn.Parameter(
            self.weight_v.detach().norm(dim=(1, 2)).view(-1, 1, 1)
        )
        self.bias = nn.Parameter(convolution.bias.detach().clone())

    def forward(self, vectors: Tensor) -> Tensor:
        """Applies the map.

        Arguments
        ---------
        vectors : Tensor
            (..., input_size).

        Returns
        -------
        Tensor
            (..., output_size).
        """
        weight = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return linear(vectors, weight.squeeze(-1), self.bias)


def in_projection(input_size: int, output_size: int, depth: int) -> nn.Module:
    """Builds the projection from features down to a codebook's space.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    output_size : int
        Size of the codebook entries.
    depth : int
        Number of linear layers; with more than one, ReLU stands between them
        and the hidden width is 128, as in the paper's ablation.

    Returns
    -------
    nn.Module
        A `WeightNormLinear`, or several with the official parameter names.

    Example
    -------
    >>> in_projection(512, 16, depth=3)(torch.randn(5, 512)).shape
    torch.Size([5, 16])
    """
    if depth < 1:
        raise ValueError(f"projection_depth must be at least 1, got {depth}.")
    if depth == 1:
        return WeightNormLinear(input_size, output_size)
    return nn.Sequential(
        WeightNormLinear(input_size, HIDDEN_SIZE),
        *(
            nn.Sequential(nn.ReLU(), WeightNormLinear(HIDDEN_SIZE, HIDDEN_SIZE))
            for _ in range(depth - 2)
        ),
        nn.ReLU(),
        WeightNormLinear(HIDDEN_SIZE, output_size),
    )


def out_projection(input_size: int, output_size: int, depth: int) -> nn.Module:
    """Builds the projection from a codebook's space back to features.

    Arguments
    ---------
    input_size : int
        Size of the codebook entries.
    output_size : int
        Size of the feature vectors.
    depth : int
        Number of linear layers, as for `in_projection`.

    Returns
    -------
    nn.Module
        A `WeightNormLinear`, or several with the official parameter names.

    Example
    -------
    >>> out_projection(16, 512, depth=2)(torch.randn(5, 16)).shape
    torch.Size([5, 512])
    """
    if depth < 1:
        raise ValueError(f"projection_depth must be at least 1, got {depth}.")
    if depth == 1:
        return WeightNormLinear(input_size, output_size)
    return nn.Sequential(
        WeightNormLinear(input_size, HIDDEN_SIZE),
        nn.ReLU(),
        *(
            nn.Sequential(WeightNormLinear(HIDDEN_SIZE, HIDDEN_SIZE), nn.ReLU())
            for _ in range(depth - 2)
        ),
        WeightNormLinear(HIDDEN_SIZE, output_size),
    )


class VectorQuantizer(nn.Module):
    """One level: project down, look up the closest entry, project up.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    codebook_size : int
        Number of entries V.
    codebook_dim : int
        Size of the projected vectors and of the entries.
    projection_depth : int
        Linear layers in each of the two projections.
    stale_tolerance : int
        Updates that an entry may go unused before it is replaced.

    Example
    -------
    >>> level = VectorQuantizer(512, codebook_size=64)
    >>> level.encode(torch.randn(3, 512)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        input_size: int,
        codebook_size: int = 1024,
        codebook_dim: int = 16,
        projection_depth: int = 1,
        stale_tolerance: int = 100,
    ):
        super().__init__()
        self.in_proj = in_projection(input_size, codebook_dim, projection_depth)
        self.out_proj = out_projection(codebook_dim, input_size, projection_depth)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)
        self.register_buffer("stale_counter", torch.zeros(codebook_size))
        self.stale_codes = StaleCodes(stale_tolerance)

    def encode(self, residual: Tensor) -> Tensor:
        """Chooses an entry for every vector.

        Arguments
        ---------
        residual : Tensor
            What the levels before left over (..., input_size).

        Returns
        -------
        Tensor
            Codes (...,) int64.
        """
        return nearest_entries(self.in_proj(residual), self.codebook.weight)

    def decode(self, codes: Tensor) -> Tensor:
        """Turns codes back into feature vectors.

        Arguments
        ---------
        codes : Tensor
            (...,) int64.

        Returns
        -------
        Tensor
            (..., input_size).
        """
        return self.out_proj(self.codebook(codes))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantizes with a straight-through gradient.

        Arguments
        ---------
        residual : Tensor
            What the levels before left over (..., input_size).

        Returns
        -------
        decoded : Tensor
            (..., input_size).
        codes : Tensor
            (...,) int64.
        commitment_loss : Tensor
            Scalar: pulls the projected vectors towards their entries.
        codebook_loss : Tensor
            Scalar: pulls the entries towards the projected vectors.
        """
        projected = self.in_proj(residual)
        codes = nearest_entries(projected, self.codebook.weight)
        if self.training:
            self.stale_codes.observe(codes, projected, self.codebook.num_embeddings)
        entries = self.codebook(codes)
        commitment_loss = F.mse_loss(projected, entries.detach())
        codebook_loss = F.mse_loss(entries, projected.detach())
        passed = projected + (entries - projected).detach()
        return self.out_proj(passed), codes, commitment_loss, codebook_loss


@part
class ResidualVQ(Quantizer):
    """Residual VQ: each level quantizes what the levels before left over.

    The residual is not detached, so the losses of later levels also train the
    earlier ones. Codes are searched in float32; entries are compared on the unit
    sphere, and decoded without normalisation. Entries that no batch used
    for ``stale_tolerance`` updates are replaced by vectors of the current batch,
    equally on every rank; call `after_update` after each optimizer step for it.

    Arguments
    ---------
    input_size : int
        Size of the feature vectors.
    num_codebooks : int
        Number of levels N.
    codebook_size : int
        Entries of each level V.
    codebook_dim : int
        Size of the projected vectors.
    projection_depth : int
        Linear layers in each projection (1 in the paper's model).
    stale_tolerance : int
        Updates that an entry may go unused before it is replaced.
    commitment_weight : float
        Weight of the commitment loss, summed over levels.
    codebook_weight : float
        Weight of the codebook loss, summed over levels.

    Example
    -------
    >>> quantizer = ResidualVQ(512, num_codebooks=8, codebook_size=1024)
    >>> out = quantizer(torch.randn(2, 25, 512))
    >>> out.codes.shape, out.quantized.shape
    (torch.Size([2, 25, 8]), torch.Size([2, 25, 512]))
    >>> sum(parameter.numel() for parameter in quantizer.parameters())
    270592
    """

    def __init__(
        self,
        input_size: int,
        num_codebooks: int = 8,
        codebook_size: int = 1024,
        codebook_dim: int = 16,
        projection_depth: int = 1,
        stale_tolerance: int = 100,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
    ):
        super().__init__(input_size, num_codebooks, codebook_size)
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        with private_randomness():
            self.quantizers = nn.ModuleList(
                VectorQuantizer(
                    input_size,
                    codebook_size,
                    codebook_dim,
                    projection_depth,
                    stale_tolerance,
                )
                for _ in range(num_codebooks)
            )

    def encode(self, feats: Tensor) -> Tensor:
        """Chooses the codes, in float32 whatever the precision around it.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        Tensor
            Codes (..., N) int64.
        """
        with torch.autocast(feats.device.type, enabled=False):
            residual = feats.float()
            codes = []
            for index, level in enumerate(self.quantizers):
                codes.append(level.encode(residual))
                if index + 1 < self.num_codebooks:
                    residual = residual - level.decode(codes[-1])
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Sums what the codes stand for.

        Arguments
        ---------
        codes : Tensor
            (..., n) int64; with n < N only the first n levels are decoded.

        Returns
        -------
        Tensor
            Feature vectors (..., input_size).

        Raises
        ------
        ValueError
            If there are more codes per frame than levels.
        """
        check_decodable(codes, self.num_codebooks)
        levels = zip(self.quantizers, codes.unbind(-1), strict=False)
        return torch.stack([level.decode(code) for level, code in levels]).sum(0)

    def forward(self, feats: Tensor) -> QuantizerOutput:
        """Quantizes and computes the training loss.

        Arguments
        ---------
        feats : Tensor
            Feature vectors (..., input_size).

        Returns
        -------
        QuantizerOutput
            Codes, reconstruction with a straight-through gradient, loss and
            error after each level.
        """
        with torch.autocast(feats.device.type, enabled=False):
            residual = feats.float()
            quantized = torch.zeros_like(residual)
            codes, errors = [], [residual.detach().abs().mean()]
            commitment = codebook = residual.new_zeros(())
            for level in self.quantizers:
                decoded, chosen, commitment_loss, codebook_loss = level(residual)
                residual = residual - decoded
                quantized = quantized + decoded
                commitment = commitment + commitment_loss
                codebook = codebook + codebook_loss
                codes.append(chosen)
                errors.append(residual.detach().abs().mean())
        return QuantizerOutput(
            codes=torch.stack(codes, dim=-1),
            quantized=quantized,
            loss=self.commitment_weight * commitment + self.codebook_weight * codebook,
            terms={
                "commitment_loss": commitment.detach(),
                "codebook_loss": codebook.detach(),
            },
            level_errors=torch.stack(errors),
        )

    def after_update(self) -> None:
        """Counts unused entries and replaces those unused for too long."""
        for level in self.quantizers:
            level.stale_codes.replace(level.codebook.weight, level.stale_counter)
