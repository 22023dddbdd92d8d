"""Statistics of how a quantizer uses its codes.

Everything is computed from counts (N, V): how often each of the V entries of each of
the N codebooks was chosen. Counts of several batches or processes are simply added.
"""

import numpy as np
import torch
from torch import Tensor

Counts = Tensor | np.ndarray


def count_codes(
    codes: Tensor, codebook_size: int, counted: Tensor | None = None
) -> Tensor:
    """How often each entry of each codebook occurs in codes (..., N): (N, V) int64.

    Boolean ``counted`` (...) says which frames count; the codes of others may be -1.
    """
    flat = codes.reshape(-1, codes.shape[-1]).T
    each = torch.ones_like(flat)
    if counted is not None:
        each, flat = each * counted.flatten(), flat.clamp(min=0)
    # Not `bincount`: a device is waited for, because it may have to count further.
    return each.new_zeros(len(flat), codebook_size).scatter_add_(1, flat, each)


def usage(counts: Counts) -> Tensor:
    """Share of the codes that were chosen at least once."""
    return (_checked(counts) > 0).double().mean(dim=1)


def dead_codes(counts: Counts) -> Tensor:
    """Number of codes that were never chosen."""
    return (_checked(counts) == 0).sum(dim=1)


def entropy(counts: Counts) -> Tensor:
    """Entropy in nats of the codes' own frequencies: the loss of a model that
    counts.
    """
    return torch.special.entr(_frequencies(counts)).sum(dim=1)


def entropy_bias(counts: Counts) -> Tensor:
    """How much lower than the truth `entropy` is on average, in nats, to first order.

    Of N vectors with K different codes: (K - 1) / 2N (Miller and Madow, 1955). Where a
    codebook has more entries than vectors were counted, the truth is higher still.
    """
    counts = _checked(counts)
    return ((counts > 0).sum(dim=1) - 1) / (2.0 * counts.sum(dim=1))


def perplexity(counts: Counts) -> Tensor:
    """Effective number of codes: the exponential of the entropy."""
    return entropy(counts).exp()


def most_frequent_share(counts: Counts) -> Tensor:
    """Share of the most frequent code: the accuracy of always guessing it."""
    return _frequencies(counts).max(dim=1).values


def use_of_codes(counts: Counts) -> dict[str, list]:
    """How each codebook is used, by the names that rows of metrics have."""
    return {
        "usage": usage(counts).tolist(),
        "perplexity": perplexity(counts).tolist(),
        "dead_codes": dead_codes(counts).tolist(),
    }


def _frequencies(counts: Counts) -> Tensor:
    """Relative frequencies (N, V), each row adds up to 1."""
    counts = _checked(counts).double()
    return counts / counts.sum(dim=1, keepdim=True)


def _checked(counts: Counts) -> Tensor:
    """The counts as a tensor, after the checks that every statistic needs."""
    counts = torch.as_tensor(counts)
    if counts.dim() != 2 or counts.shape[1] == 0:
        raise ValueError(f"counts must be (N, V), got shape {tuple(counts.shape)}")
    empty = torch.nonzero(counts.sum(dim=1) == 0).flatten().tolist()
    if empty:
        raise ValueError(
            f"no codes were counted in rows {empty} of the counts: there is nothing "
            "to take statistics of"
        )
    return counts
