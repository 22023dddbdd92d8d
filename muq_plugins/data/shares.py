"""Fixed shares: how the processes of an offline job divide its work.

They are those that `torchrun` starts, or whoever sets RANK and WORLD_SIZE. Nobody asks
anybody: what a process does follows from its number, and what is finished is on the
disk. So a job that is started again, with any number of processes, does what is left.
"""

from __future__ import annotations

import os

from muq_plugins.errors import UserError


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
