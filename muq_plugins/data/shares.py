"""Fixed shares: how the processes of an offline job divide its work.

They are those that `torchrun` starts, or whoever sets RANK and WORLD_SIZE. Nobody asks
anybody: what a process does follows from its number, and what is finished is on the
disk. So a job that is started again, with any number of processes, does what is left.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable

import torch.distributed as dist

from muq_plugins.errors import UserError

MEET_SECONDS = 300.0


def own_share() -> tuple[int, int]:
    """The number of this process, and how many there are: 0 of 1 if nobody says."""
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < world:
        raise UserError(
            f"RANK is {rank} and WORLD_SIZE {world} in the environment: processes are "
            f"numbered from 0 to WORLD_SIZE - 1. Start them with torchrun, or unset "
            f"both."
        )
    return rank, world


def is_own(name: str) -> bool:
    """Whether a file is for this process, which its name alone decides.

    So processes that list a folder while files come into it agree on all others.
    """
    rank, world = own_share()
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % world == rank


def neighbours() -> int:
    """How many processes of the job share this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)
    except ValueError as error:
        raise UserError(
            f"{name} is {text!r} in the environment, not a number: set it as torchrun "
            f"does, or unset it."
        ) from error


def are_together() -> bool:
    """Whether this is one of several processes that train together."""
    return dist.is_available() and dist.is_initialized()


def work_together(work: Iterable) -> None:
    """Does this process's share; processes that train together wait for all of them.

    They meet again and again, since a barrier that is waited at for hours ends a run.
    """
    share, done = iter(work), [False]
    while not all(done):
        end, done = time.monotonic() + MEET_SECONDS, [True]
        for _ in share:
            if are_together() and time.monotonic() > end:
                done = [False]
                break
        if are_together():
            mine, done = done[0], [False] * dist.get_world_size()
            dist.all_gather_object(done, mine)
