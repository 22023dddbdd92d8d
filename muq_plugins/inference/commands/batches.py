"""Files in batches, read ahead of the computation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from muq_plugins.inference.commands.resuming import Job

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Prepares the next item in a thread while the caller works on the current one."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item


def make_batches(jobs: list[Job], batch_seconds: float) -> list[list[Job]]:
    """Groups files of similar duration."""
    batches: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: -job.duration):
        if (
            batches
            and batches[-1][0].duration * (len(batches[-1]) + 1) <= batch_seconds
        ):
            batches[-1].append(job)
        else:
            batches.append([job])
    return batches
