"""Residual vector quantizer of MuQ (Mel-RVQ, arXiv 2501.01108).

Parameter names equal those of the official class, so that its tokenizer files
load as they are. The method is in the section on Mel-RVQ of the paper; the
factorised, L2-normalised codebooks come from DAC (arXiv 2306.06546).
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.linear import linear
from muq_plugins.lobes.parts import part
from muq_plugins.lobes.quantizers.base import (
    DecodableQuantizer,
    QuantizerOutput,
    nearest_entries,
    private_randomness,
)

HIDDEN_SIZE = 128  # width between the layers of a deeper projection


@part
class ResidualVQ(DecodableQuantizer):
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
        """Chooses the codes, in float32 whatever the precision around it."""
        with torch.autocast(feats.device.type, enabled=False):
            residual = feats.float()
            codes = []
            for index, level in enumerate(self.quantizers):
                codes.append(level.encode(residual))
                if index + 1 < self.num_codebooks:
                    residual = residual - level.decode(codes[-1])
        return torch.stack(codes, dim=-1)

    def _decode(self, codes: Tensor) -> Tensor:
        levels = zip(self.quantizers, codes.unbind(-1), strict=False)
        return torch.stack([level.decode(code) for level, code in levels]).sum(0)

    def forward(self, feats: Tensor) -> QuantizerOutput:
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


class VectorQuantizer(nn.Module):
    """One level: project down, look up the closest entry, project up."""

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
        """Chooses an entry for every vector."""
        return nearest_entries(self.in_proj(residual), self.codebook.weight)

    def decode(self, codes: Tensor) -> Tensor:
        """Turns codes back into feature vectors."""
        return self.out_proj(self.codebook(codes))

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantizes with a straight-through gradient."""
        projected = self.in_proj(residual)
        codes = nearest_entries(projected, self.codebook.weight)
        if self.training:
            self.stale_codes.observe(codes, projected, self.codebook.num_embeddings)
        entries = self.codebook(codes)
        commitment_loss = F.mse_loss(projected, entries.detach())
        codebook_loss = F.mse_loss(entries, projected.detach())
        passed = projected + (entries - projected).detach()
        return self.out_proj(passed), codes, commitment_loss, codebook_loss


class StaleCodes:
    """Watches which entries are used and revives the unused ones.

    An entry that went unused for ``tolerance`` updates in a row takes the place
    of a random normalised vector of the current batch, as in the official
    code. Unlike there, an update is counted once however many micro-batches
    and processes it is made of: usage is shared by all ranks, and all of them
    copy the vectors of the first one, so the codebooks stay equal everywhere. Of fewer
    vectors than entries, each is for one entry; others wait for the next update.
    """

    def __init__(self, tolerance: int):
        if tolerance < 1:
            raise ValueError(
                f"stale_tolerance must be at least 1 update, got {tolerance}."
            )
        self.tolerance = tolerance
        self._used: Tensor | None = None
        self._candidates: Tensor | None = None

    def observe(self, codes: Tensor, vectors: Tensor, entries: int) -> None:
        """Notes what one micro-batch used."""
        used = torch.bincount(codes.flatten(), minlength=entries) > 0
        self._used = used if self._used is None else self._used | used
        if self._candidates is None:
            # Rows of the first micro-batch, evenly spread: the same ones
            # whether later micro-batches run here or on other ranks.
            flat = vectors.detach().flatten(0, -2)
            rows = torch.arange(entries, device=flat.device) * len(flat) // entries
            if len(flat) < entries:  # and nothing, behind them
                flat = F.pad(flat, (0, 0, 0, entries - len(flat)), value=math.nan)
                rows = torch.arange(entries, device=flat.device)
            self._candidates = F.normalize(flat[rows], dim=-1)

    @torch.no_grad()
    def replace(self, codebook: Tensor, counter: Tensor) -> None:
        """Ends an update: counts, and replaces what is stale, in place."""
        if self._used is None or self._candidates is None:
            return  # nothing was quantized in training mode since the last update
        used, candidates = self._used.to(counter.dtype), self._candidates
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
            dist.broadcast(candidates, src=0)
        counter.add_(1).mul_(1 - used)
        stale = counter >= self.tolerance
        few = candidates[-1].isnan().any()  # then to the first ones that are stale
        places = torch.arange(len(stale), device=stale.device)
        candidates = candidates[torch.where(few, stale.cumsum(0) - 1, places)]
        stale &= candidates.isfinite().all(dim=-1)  # of an update that was left out
        codebook[stale] = candidates[stale].to(codebook.dtype)
        counter[stale] = 0
        self._used = self._candidates = None


class WeightNormLinear(nn.Module):
    """Linear map whose weight is a direction times a learned length.

    It is the weight-normalised convolution of kernel 1 of the official code,
    with its parameter names and shapes (``weight_g``, ``weight_v``, ``bias``),
    applied to the last axis.
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
        """Applies the map."""
        weight = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return linear(vectors, weight.squeeze(-1), self.bias)


def in_projection(input_size: int, output_size: int, depth: int) -> nn.Module:
    """Builds the projection from features down to a codebook's space."""
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
    """Builds the projection from a codebook's space back to features."""
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
