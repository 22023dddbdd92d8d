"""What several processes that train together need to agree on.

Each function does the obvious thing when there is only one process.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from muq_plugins.errors import UserError
from muq_plugins.lobes.batch_norm import batch_norms


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


@cache
def _host_group() -> dist.ProcessGroup | None:
    """Processes talk about decisions here: with NCCL they would wait for their GPUs."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def any_of(*flags: bool) -> list[bool]:
    """Makes all processes take the same decisions: those that any of them wants."""
    if not is_distributed():
        return list(flags)
    wanted = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(wanted, op=dist.ReduceOp.MAX, group=_host_group())
    return [bool(flag) for flag in wanted]


def largest_of(value: Tensor) -> Tensor:
    """The largest of all processes, on the device."""
    if is_distributed():
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def follow_all_batches(module: nn.Module) -> None:
    """Lets running statistics forget as fast as if this process saw all batches.

    Micro-batch m of a run belongs to process m % W, so one of them stands for W.
    """
    for norm in _moving_norms(module):
        norm.momentum = 1 - (1 - norm.momentum) ** world_size()


def average_batch_norms(module: nn.Module) -> None:
    """Gives all processes the running statistics of one that saw all batches.

    A running statistic is a sum over batches, each weighed by how many came after
    it. After `follow_all_batches` the weights of a process are right but for those
    that the others saw meanwhile, which is one factor for each process.
    """
    if not is_distributed():
        return
    for norm in _moving_norms(module):
        kept = (1 - norm.momentum) ** (1 / world_size())  # by one batch, of the rest
        weights = [kept ** (world_size() - 1 - other) for other in range(world_size())]
        for buffer in (norm.running_mean, norm.running_var):
            buffer *= weights[rank()] / sum(weights)
            dist.all_reduce(buffer)


def _moving_norms(module: nn.Module) -> list[nn.Module]:
    """Batch normalisation in training, with running statistics that forget."""
    return [
        norm
        for norm in batch_norms(module)
        if norm.training and norm.running_mean is not None and norm.momentum is not None
    ]


def share_clips(
    clips_per_update: int, batch_size: int, processes: int, prefix: str = ""
) -> int:
    """How many micro-batches each process computes for an update.

    The clips of a micro-batch are normalised together and their loss is one mean, so
    its size decides what is learned, and must not follow from the number of processes.
    """
    together = batch_size * processes
    if min(batch_size, clips_per_update) >= 1 and clips_per_update % together == 0:
        return clips_per_update // together
    ways, size = [], max(batch_size, 1)
    share, rest = divmod(clips_per_update, processes)
    if share >= 1 and not rest:
        sizes = [n for n in range(1, share + 1) if share % n == 0]
        ways.append(f"--{prefix}batch_size {_around(size, sizes)}")
    clips = _multiples(size * processes, clips_per_update)
    ways.append(f"--{prefix}clips_per_update {_around(clips_per_update, clips)}")
    batches, rest = divmod(clips_per_update, size)
    if batches >= 1 and not rest and processes > 1:
        numbers = [n for n in range(1, batches + 1) if batches % n == 0]
        ways.append(f"--nproc_per_node {_around(processes, numbers)}")
    each = "one process" if processes == 1 else f"each of {processes} processes"
    raise UserError(
        f"{prefix}clips_per_update is {clips_per_update} and {prefix}batch_size is "
        f"{batch_size}: that makes no whole number of batches for {each}. A batch is "
        f"normalised as a whole, so its size decides what is learned. Choose "
        f"{', or '.join(ways)}."
    )


def share_pairs(clips_per_update: int, processes: int) -> int:
    """How many of the pairs of an update each process has.

    All are contrasted with all others, so their number is all that counts.
    """
    if clips_per_update < 2:
        raise UserError(
            f"clips_per_update is {clips_per_update}, but a text can only be told from "
            "the texts of other clips: give it at least 2, and better hundreds."
        )
    if clips_per_update % processes:
        near = _around(clips_per_update, _multiples(processes, clips_per_update))
        raise UserError(
            f"clips_per_update is {clips_per_update}, which {processes} processes "
            f"cannot share evenly: choose --clips_per_update {near}."
        )
    return clips_per_update // processes


def _multiples(size: int, around: int) -> list[int]:
    """Some, with those on either side of a number."""
    return [size * n for n in range(1, max(around, 0) // size + 2)]


def _around(wanted: int, good: list[int]) -> str:
    """The nearest good numbers, below and above."""
    below = [n for n in good if n <= wanted][-1:]
    return " or ".join(map(str, below + [n for n in good if n > wanted][:1]))
