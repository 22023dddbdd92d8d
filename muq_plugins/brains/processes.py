"""What several processes that train together need to agree on.

Each function does the obvious thing when there is only one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def is_distributed() -> bool:
    """Tells whether several processes train together."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def gather(value: Any) -> list[Any]:
    """Collects a small object of every process on all of them."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_of(*flags: bool, device: str | torch.device = "cpu") -> list[bool]:
    """Makes all processes take the same decisions: those that any of them wants."""
    if not is_distributed():
        return list(flags)
    wanted = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(wanted, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in wanted]


def average_batch_norms(module: nn.Module) -> None:
    """Gives all processes the mean of their running statistics, in place."""
    if not is_distributed():
        return
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for buffer in (part.running_mean, part.running_var):
                if buffer is not None:
                    dist.all_reduce(buffer)
                    buffer /= world_size()


def share_clips(
    clips_per_update: int, batch_size: int, processes: int
) -> tuple[int, int]:
    """Divides the clips of an update into micro-batches of all processes."""
    share, rest = divmod(clips_per_update, processes)
    if rest or share < 1 or batch_size < 1:
        raise ValueError(
            f"{processes} processes cannot share {clips_per_update} clips_per_update "
            f"evenly in micro-batches of at most {batch_size}: choose clips_per_update "
            f"as a multiple of the number of processes."
        )
    size = max(n for n in range(1, min(batch_size, share) + 1) if share % n == 0)
    return size, share // size
