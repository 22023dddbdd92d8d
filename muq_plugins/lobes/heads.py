"""Prediction heads and their loss.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from muq_plugins.lobes.linear import Linear


class MultiCodebookHead(nn.Module):
    """One linear layer that predicts an entry of each codebook.

    Arguments
    ---------
    width : int
        Size of the hidden states.
    num_codebooks : int
        Number of codebooks N.
    codebook_size : int
        Entries of each codebook V.

    Example
    -------
    >>> import torch
    >>> head = MultiCodebookHead(32, num_codebooks=8, codebook_size=1024)
    >>> head(torch.randn(7, 32)).shape
    torch.Size([7, 8, 1024])
    """

    def __init__(self, width: int, num_codebooks: int, codebook_size: int):
        super().__init__()
        self.width = width
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.linear = Linear(width, num_codebooks * codebook_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Predicts.

        Arguments
        ---------
        hidden : Tensor
            Hidden states (..., width), of the masked frames only.

        Returns
        -------
        Tensor
            Logits (..., N, V).
        """
        logits = self.linear(hidden)
        return logits.unflatten(-1, (self.num_codebooks, self.codebook_size))


def codebook_cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of each codebook at each frame, in nats.

    Arguments
    ---------
    logits : Tensor
        (frames, N, V).
    codes : Tensor
        (frames, N) int64.

    Returns
    -------
    Tensor
        (frames, N) float32.

    Example
    -------
    >>> import torch
    >>> codebook_cross_entropy(torch.zeros(2, 1, 4), torch.zeros(2, 1).long())
    tensor([[1.3863],
            [1.3863]])
    """
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), codes.flatten(), reduction="none"
    )
    return losses.view(codes.shape)


def codebook_hits(logits: Tensor, codes: Tensor) -> Tensor:
    """Tells where the most likely entry is the right one.

    Arguments
    ---------
    logits : Tensor
        (frames, N, V).
    codes : Tensor
        (frames, N) int64.

    Returns
    -------
    Tensor
        Boolean (frames, N).

    Example
    -------
    >>> import torch
    >>> logits = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    >>> codebook_hits(logits, torch.tensor([[1], [1]]))
    tensor([[ True],
            [False]])
    """
    return logits.argmax(dim=-1) == codes
