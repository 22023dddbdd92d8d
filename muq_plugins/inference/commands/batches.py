"""Files in batches, read ahead of the computation.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from muq_plugins.inference.commands.resuming import Job

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Prepares the next item in a thread while the caller works on the current one.

    Arguments
    ---------
    items : iterable
        What to go through.

    Returns
    -------
    Iterator
        The same items.

    Example
    -------
    >>> list(ahead(number**2 for number in range(4)))
    [0, 1, 4, 9]
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item


def make_batches(jobs: list[Job], batch_seconds: float) -> list[list[Job]]:
    """Groups files of similar duration.

    Arguments
    ---------
    jobs : list of Job
        In any order.
    batch_seconds : float
        Limit on the seconds in a batch, padding included. What is longer alone is a
        batch of its own.

    Returns
    -------
    list of list of Job
        Longest first: what does not fit into memory shows at the beginning.

    Example
    -------
    >>> from muq_plugins.inference.commands.inputs import AudioInput
    >>> jobs = [Job(AudioInput("", ""), "", t, {}) for t in (3.0, 9.0, 4.0, 1.0)]
    >>> [[job.duration for job in batch] for batch in make_batches(jobs, 8.0)]
    [[9.0], [4.0, 3.0], [1.0]]
    """
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
