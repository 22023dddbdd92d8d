"""A recording of any length as clips of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

# What is computed at once; more takes more memory.
CLIPS_AT_ONCE = 8


def wrapped_clips(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Cuts a recording into consecutive clips; its start completes the last one.

    A recording that is shorter than half a clip is repeated until the clip is full.
    Memory holds two clips and a block.
    """
    start, rest = None, torch.zeros(0)
    for block in blocks:
        if block.dim() != 1:
            raise ValueError(
                f"A recording consists of blocks (samples,), got one of the shape "
                f"{tuple(block.shape)}: mix down to mono first."
            )
        rest = torch.cat([rest.to(block), block])
        while len(rest) >= size:
            clip, rest = rest[:size], rest[size:]
            start = clip if start is None else start
            yield clip
    if len(rest):
        start = rest if start is None else start
        missing = size - len(rest)
        repeats = -(-missing // len(start))
        yield torch.cat([rest, start.repeat(repeats)[:missing]])


def average_over_clips(
    embed: Callable[[Tensor], Tensor], recordings: Iterable[Iterable[Tensor]], size: int
) -> Tensor:
    """Averages what is computed from the clips of each recording.

    Clips of several recordings are computed together, `CLIPS_AT_ONCE` at a time.
    """
    clips = (
        (number, clip)
        for number, blocks in enumerate(recordings)
        for clip in wrapped_clips(blocks, size)
    )
    totals: list[Tensor] = []
    counts: list[int] = []
    while batch := list(islice(clips, CLIPS_AT_ONCE)):
        # On the CPU: not every device has double precision.
        latents = embed(torch.stack([clip for _, clip in batch])).cpu().double()
        for (number, _), latent in zip(batch, latents, strict=True):
            if number == len(totals):
                totals.append(torch.zeros_like(latent))
                counts.append(0)
            totals[number] += latent
            counts[number] += 1
    means = [total / count for total, count in zip(totals, counts, strict=True)]
    return torch.stack(means).float()
