"""Replacement of codebook entries that nothing uses any more.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class StaleCodes:
    """Watches which entries are used and revives the unused ones.

    An entry that went unused for ``tolerance`` updates in a row takes the place
    of a random normalised vector of the current batch, as in the official
    code. Unlike there, an update is counted once however many micro-batches
    and processes it is made of: usage is shared by all ranks, and all of them
    copy the vectors of the first one, so the codebooks stay equal everywhere.

    Arguments
    ---------
    tolerance : int
        Updates in a row that an entry may go unused.

    Example
    -------
    >>> stale = StaleCodes(tolerance=1)
    >>> codebook, counter = torch.zeros(4, 2), torch.zeros(4)
    >>> stale.observe(torch.tensor([0, 1]), torch.ones(2, 2), 4)
    >>> stale.replace(codebook, counter)
    >>> codebook[:, 0]
    tensor([0.0000, 0.0000, 0.7071, 0.7071])
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
        """Notes what one micro-batch used.

        Arguments
        ---------
        codes : Tensor
            Chosen entries (...,) int64.
        vectors : Tensor
            The projected vectors (..., size) that chose them.
        entries : int
            Number of entries V of the codebook.
        """
        used = torch.bincount(codes.flatten(), minlength=entries) > 0
        self._used = used if self._used is None else self._used | used
        if self._candidates is None:
            # Rows of the first micro-batch, evenly spread: the same ones
            # whether later micro-batches run here or on other ranks.
            flat = vectors.detach().flatten(0, -2)
            rows = torch.arange(entries, device=flat.device) * len(flat) // entries
            self._candidates = F.normalize(flat[rows], dim=-1)

    @torch.no_grad()
    def replace(self, codebook: Tensor, counter: Tensor) -> None:
        """Ends an update: counts, and replaces what is stale, in place.

        Arguments
        ---------
        codebook : Tensor
            Entries (V, size).
        counter : Tensor
            Updates (V,) since each entry was last used.
        """
        if self._used is None or self._candidates is None:
            return  # nothing was quantized in training mode since the last update
        used, candidates = self._used.to(counter.dtype), self._candidates
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
            dist.broadcast(candidates, src=0)
        counter.add_(1).mul_(1 - used)
        stale = counter >= self.tolerance
        codebook[stale] = candidates[stale].to(codebook.dtype)
        counter[stale] = 0
        self._used = self._candidates = None
