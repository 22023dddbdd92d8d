"""Statistics of how a quantizer uses its codes.

Everything here is computed from counts, a table (N, V) that says how often each of
the V codes of each of the N codebooks was chosen. Counts can be added up over batches
and over processes, the statistics cannot: an average of perplexities is not the
perplexity of the whole.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import numpy as np
import torch

from muq_plugins.lobes.stages import count_codes

__all__ = [
    "count_codes",
    "dead_codes",
    "entropy",
    "most_frequent_share",
    "perplexity",
    "usage",
]


def usage(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Share of the codes that were chosen at least once.

    Arguments
    ---------
    counts : torch.Tensor or numpy.ndarray
        Counts (N, V).

    Returns
    -------
    torch.Tensor
        Usage (N,), 0..1, float64.

    Example
    -------
    >>> usage(torch.tensor([[5, 5, 0, 0], [4, 3, 2, 1]]))
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return (_checked(counts) > 0).double().mean(dim=1)


def dead_codes(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Number of codes that were never chosen.

    Arguments
    ---------
    counts : torch.Tensor or numpy.ndarray
        Counts (N, V).

    Returns
    -------
    torch.Tensor
        Number of dead codes (N,), int64.

    Example
    -------
    >>> dead_codes(torch.tensor([[5, 5, 0, 0], [4, 3, 2, 1]]))
    tensor([2, 0])
    """
    return (_checked(counts) == 0).sum(dim=1)


def entropy(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Entropy of the codes' own frequencies.

    This is the cross-entropy of a model that has counted the codes and knows nothing
    else: what a model must get below to have learned anything about the music.

    Arguments
    ---------
    counts : torch.Tensor or numpy.ndarray
        Counts (N, V).

    Returns
    -------
    torch.Tensor
        Entropy (N,) in nats, from 0 to ln V, float64.

    Example
    -------
    >>> entropy(torch.tensor([[5, 5, 0, 0], [7, 0, 0, 0]]))
    tensor([0.6931, 0.0000], dtype=torch.float64)
    """
    return torch.special.entr(_frequencies(counts)).sum(dim=1)


def perplexity(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Effective number of codes: the exponential of the entropy.

    Arguments
    ---------
    counts : torch.Tensor or numpy.ndarray
        Counts (N, V).

    Returns
    -------
    torch.Tensor
        Perplexity (N,), from 1 (always the same code) to V (all equally often).

    Example
    -------
    >>> perplexity(torch.tensor([[5, 5, 0, 0], [7, 0, 0, 0]]))
    tensor([2., 1.], dtype=torch.float64)
    """
    return entropy(counts).exp()


def most_frequent_share(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Share of the most frequent code: the accuracy of always guessing it.

    Arguments
    ---------
    counts : torch.Tensor or numpy.ndarray
        Counts (N, V).

    Returns
    -------
    torch.Tensor
        Share (N,), 0..1, float64.

    Example
    -------
    >>> most_frequent_share(torch.tensor([[5, 5, 0, 0], [1, 7, 1, 1]]))
    tensor([0.5000, 0.7000], dtype=torch.float64)
    """
    return _frequencies(counts).max(dim=1).values


def _frequencies(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Relative frequencies (N, V), each row adds up to 1."""
    counts = _checked(counts).double()
    return counts / counts.sum(dim=1, keepdim=True)


def _checked(counts: torch.Tensor | np.ndarray) -> torch.Tensor:
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
