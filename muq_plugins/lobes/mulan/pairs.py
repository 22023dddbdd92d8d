"""Which clips and texts belong together, and which must be told apart.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
from torch import Tensor


def own_pairs(logits: Tensor) -> Tensor:
    """Marks each clip's own text.

    Arguments
    ---------
    logits : Tensor
        (pairs, pairs).

    Returns
    -------
    Tensor
        Boolean (pairs, pairs), the diagonal.

    Example
    -------
    >>> own_pairs(torch.zeros(2, 2))
    tensor([[ True, False],
            [False,  True]])
    """
    return torch.eye(len(logits), dtype=torch.bool, device=logits.device)


def negative_pairs(
    pairs: int, identities: Tensor | None, device: torch.device | str
) -> Tensor:
    """Marks which texts are negatives of which clips.

    Arguments
    ---------
    pairs : int
        Number of pairs.
    identities : Tensor or None
        (pairs, kinds) int64; None if all pairs differ.
    device : torch.device or str
        Where the result lies.

    Returns
    -------
    Tensor
        Boolean (pairs, pairs), symmetric: not the own pair, and none that shares the
        value of a column with it.

    Example
    -------
    >>> negative_pairs(3, torch.tensor([[5, 1], [5, 2], [6, 3]]), "cpu")
    tensor([[False, False,  True],
            [False, False,  True],
            [ True,  True, False]])
    """
    same = torch.eye(pairs, dtype=torch.bool, device=device)
    if identities is not None:
        for column in identities.to(device).T:
            same |= column[:, None] == column
    return ~same


def check_pairs(audio: Tensor, text: Tensor, identities: Tensor | None) -> None:
    """Refuses what are not pairs.

    Arguments
    ---------
    audio : Tensor
        Latents of the clips.
    text : Tensor
        Latents of their texts.
    identities : Tensor or None
        Identities of the pairs.

    Raises
    ------
    ValueError
        If shapes do not fit together.

    Example
    -------
    >>> check_pairs(torch.zeros(2, 8), torch.zeros(2, 8), torch.zeros(2, 1).long())
    """
    if audio.shape != text.shape or audio.dim() != 2 or len(audio) == 0:
        raise ValueError(
            f"Latents of audio and text have the shapes {tuple(audio.shape)} and "
            f"{tuple(text.shape)}: pairs need one row of the same size in each."
        )
    if identities is not None and (
        identities.dim() != 2 or len(identities) != len(audio)
    ):
        raise ValueError(
            f"identities have the shape {tuple(identities.shape)}: {len(audio)} pairs "
            f"need {len(audio)} rows of one number for each kind of identity."
        )
