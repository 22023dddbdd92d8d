"""Hidden states of audio of any length, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muq_plugins.data.audio import AudioError, read_audio

READ_SECONDS = 30.0


@dataclass
class FrameChunk:
    """Consecutive frames of a recording."""

    times: Tensor  # when each frame begins (frames,), in seconds, float64
    hidden: Tensor  # hidden states (frames, width)


def embed_windows(
    embed: Callable[[Tensor], Tensor],
    blocks: Iterable[Tensor],
    frame_samples: int,
    frame_rate: float,
    window: int,
    overlap: int,
) -> Iterator[FrameChunk]:
    """Embeds a stream window by window, and fades from each to the next.

    The last window ends with the audio and is as long as the others, so that no frame
    is computed from a short rest. Memory holds two windows.
    """
    if not 0 <= overlap < window:
        raise ValueError(
            f"Windows of {window} frames cannot overlap by {overlap} frames: the "
            "overlap must be at least 0 and shorter than the window."
        )
    stitcher = _Stitcher(frame_rate, overlap)
    hop = window - overlap
    buffer, start = torch.zeros(0), 0  # `start` is the frame at which it begins
    due = 0  # the frame at which the next window begins
    for block in blocks:
        if block.dim() != 1:
            raise ValueError(
                f"A stream consists of blocks (samples,), got one of the shape "
                f"{tuple(block.shape)}: mix down to mono first."
            )
        buffer = torch.cat([buffer, block])
        # A window is computed once there is audio beyond it: it is not the last one.
        while len(buffer) > (due - start + window) * frame_samples:
            first = (due - start) * frame_samples
            wav = buffer[first : first + window * frame_samples]
            yield stitcher.add(embed(wav), due, last=False)
            due += hop
            # The last window may reach back a whole window from the end.
            keep = max(start, due - window)
            buffer, start = buffer[(keep - start) * frame_samples :], keep
    frames = -(-len(buffer) // frame_samples)
    first = max(0, frames - window)
    if len(buffer):
        hidden = embed(buffer[first * frame_samples :])
        yield stitcher.add(hidden, start + first, last=True)


def read_blocks(path: str | Path, sample_rate: int) -> Iterator[Tensor]:
    """Reads a file of any length in blocks, as `read_audio` would read it at once."""
    start, size = 0.0, round(READ_SECONDS * sample_rate)
    while True:
        try:
            block = read_audio(path, start, READ_SECONDS, sample_rate)
        except AudioError as error:
            if start > 0 and error.reason == "too short":
                return  # the block before ended with the file
            raise
        yield block
        if len(block) < size:
            return
        start += READ_SECONDS


class _Stitcher:
    """Joins overlapping windows into one sequence."""

    def __init__(self, frame_rate: float, overlap: int):
        self.frame_rate = frame_rate
        self.overlap = overlap
        self.done = 0  # frames given out
        self.tail: Tensor | None = None  # end of the window before, not given out yet

    def add(self, hidden: Tensor, start: int, last: bool) -> FrameChunk:
        """Takes the window that begins at a frame, and gives out what is final."""
        # The last window may begin earlier than it had to.
        hidden = hidden[self.done - start :].clone()
        if self.tail is not None and len(self.tail):
            fade = torch.arange(1, len(self.tail) + 1) / (len(self.tail) + 1)
            fade = fade.to(hidden)[: len(hidden), None]
            tail = self.tail[: len(hidden)]
            hidden[: len(tail)] = tail * (1 - fade) + hidden[: len(tail)] * fade
        final = len(hidden) if last else len(hidden) - self.overlap
        self.tail = hidden[final:]
        frames = torch.arange(self.done, self.done + final, dtype=torch.float64)
        self.done += final
        return FrameChunk(frames / self.frame_rate, hidden[:final])
