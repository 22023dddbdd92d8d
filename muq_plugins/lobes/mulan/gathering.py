"""Tensors of all processes, with the gradient that they really have.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Collects the rows of all processes on each of them.

    All processes must call it, with the same number of columns; their numbers of rows
    may differ. The gradient of a process's rows is the sum of those that the losses
    of all processes give them. So if each process computes the same loss of all rows,
    the mean that DistributedDataParallel takes over the processes is the exact
    gradient of that loss.

    Arguments
    ---------
    tensor : Tensor
        This process's rows (rows, columns).

    Returns
    -------
    Tensor
        Rows of all processes in the order of their ranks; without a process group,
        the tensor itself.

    Example
    -------
    >>> gather_with_gradient(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    return _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """Gathers rows forwards, and sums their gradients backwards."""

    @staticmethod
    def forward(ctx, tensor):
        count = torch.tensor([len(tensor)], device=tensor.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        ctx.counts = torch.cat(counts).tolist()
        # Collectives want equal shapes: short ones are filled up, and cut again.
        most = max(ctx.counts)
        filled = F.pad(tensor, (0, 0, 0, most - len(tensor))).contiguous()
        parts = [torch.empty_like(filled) for _ in ctx.counts]
        dist.all_gather(parts, filled)
        return torch.cat(
            [part[:rows] for part, rows in zip(parts, ctx.counts, strict=True)]
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.split(ctx.counts)[dist.get_rank()]
