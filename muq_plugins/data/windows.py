"""The one way to cut audio: windows spread over a recording, or a stream of them.

Lengths are in units of the caller: seconds, samples, or frames of so many samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from muq_plugins.data.audio import CANCELLED, AudioError, check_audio, read_audio
from muq_plugins.data.loudness import gain_to

READ_SECONDS = 30.0
# What is computed beside a window, of which the frames are dropped: further than a
# spectrogram and MuQ's convolutions see (0.16 s), so that they never see an end.
EDGE_SECONDS = 0.4
# Shorter sounds are followed by silence up to here: a spectrogram needs one window.
SHORTEST_SECONDS = 0.2


def spread(length: float, size: float, most: int) -> list[float]:
    """Where up to `most` windows begin, from one end of a recording to the other.

    One window is in the middle. Published probes depend on every digit of this.
    """
    room = max(0.0, length - size)
    number = min(most, max(1, int(length / size)))
    return [room / 2] if number == 1 else np.linspace(0, room, number).tolist()


def spread_on_grid(lengths: np.ndarray, size: int, most: int, grid: int) -> np.ndarray:
    """Rows (recording, window, begin) of windows that share no sample.

    Each recording has up to `most`, which begin on multiples of `grid`, so that a
    validation clip begins with a frame. Published losses depend on it.
    """
    spacing = -(-size // grid) * grid
    fitting = np.maximum(0, np.asarray(lengths) - size) // spacing + 1
    counts = np.minimum(fitting, most)
    recordings = np.repeat(np.arange(len(counts)), counts)
    windows = np.arange(len(recordings)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (2 * windows + 1) * fitting[recordings] // (2 * counts[recordings])
    return np.stack([recordings, windows, places * spacing], axis=1)


def spans(length: int, size: int) -> list[tuple[int, int]]:
    """Windows one after another, as (begin, end).

    The last one takes what is left over, and is up to twice as long as the others.
    Labels depend on it.
    """
    begins = [number * size for number in range(max(1, length // size))]
    return list(zip(begins, [*begins[1:], length], strict=True))


def spread_windows(
    path: str | Path, duration: float, seconds: float, most: int, sample_rate: int
) -> list[Tensor]:
    """Reads windows of a recording, evenly spread over it."""
    return _windows(path, spread(duration, seconds, most), seconds, sample_rate)


def successive_windows(
    path: str | Path,
    duration: float,
    seconds: float,
    most: int,
    sample_rate: int,
    least: float = 0.5,
) -> list[Tensor]:
    """Reads windows that follow each other from the start of a recording.

    The last one has to be filled to a share, unless it is the only one.
    """
    count = min(most, max(1, int(duration / seconds + 1 - least)))
    starts = [number * seconds for number in range(count)]
    return _windows(path, starts, seconds, sample_rate)


def _windows(
    path: str | Path, starts: list[float], seconds: float, sample_rate: int
) -> list[Tensor]:
    windows = []
    for start in starts:
        wav = read_audio(path, start, seconds, sample_rate)
        lacking = round(SHORTEST_SECONDS * sample_rate) - len(wav)
        windows.append(nn.functional.pad(wav, (0, max(0, lacking))))
    return windows


class Window(NamedTuple):
    """Audio of a stream that is computed at once."""

    begin: int  # the unit that it begins with
    due: int  # the first unit that it is cut for; those before are context
    audio: Tensor
    is_last: bool


def stream(
    blocks: Iterable[Tensor],
    unit: int,
    size: int,
    hop: int,
    context: int = 0,
    last: Literal["short", "full", "wrapped"] = "short",
) -> Iterator[Window]:
    """Cuts a stream into windows of `size` units, one every `hop`, with context beside.

    A window is cut once there is audio beyond it and its context. The last one is what
    is left; or as long as the others, for which it begins earlier; or it is completed
    by the start of the stream, over and over if that is shorter than a window. Memory
    holds two windows and a block.
    """
    buffer, start = torch.zeros(0), 0  # `start` is the unit at which it begins
    reach = size + context if last == "full" else context  # may be asked for again
    due, head = 0, None
    for block in blocks:
        block = torch.as_tensor(block)
        if block.dim() != 1:
            raise ValueError(
                f"A stream consists of blocks (samples,), got one of the shape "
                f"{tuple(block.shape)}: mix down to mono first."
            )
        buffer = torch.cat([buffer.to(block), block])
        while len(buffer) > (stop := (due + size + context - start) * unit):
            begin = max(0, due - context)
            audio = buffer[(begin - start) * unit : stop]
            head = audio if head is None else head
            yield Window(begin, due, audio, False)
            due += hop
            keep = max(start, due - reach)
            buffer, start = buffer[(keep - start) * unit :], keep
    if not len(buffer):
        return
    if last == "full":
        begin = min(start - (-len(buffer) // unit) - size, due - context)
        begin = max(start, begin)
        buffer, start = buffer[(begin - start) * unit :], begin
    elif last == "wrapped" and (missing := size * unit - len(buffer)):
        head = buffer if head is None else head
        buffer = torch.cat([buffer, head.repeat(-(-missing // len(head)))[:missing]])
    yield Window(start, due, buffer, True)


def read_blocks(
    path: str | Path, sample_rate: int, loudness: float | None = None
) -> Iterator[Tensor]:
    """Reads a file of any length in blocks, as `read_audio` would read it at once.

    A loudness in LUFS that it is brought to takes reading it once before.
    """
    if loudness is not None:
        gain = gain_to(loudness, read_blocks(path, sample_rate), sample_rate)
        for block in read_blocks(path, sample_rate):
            yield block * torch.tensor(gain).to(block)
        return
    start, size, silent = 0.0, round(READ_SECONDS * sample_rate), True
    while True:
        try:
            block = read_audio(path, start, READ_SECONDS, sample_rate)
        except AudioError as error:
            if start == 0 or error.reason != "too short":
                raise
            break  # the block before ended with the file
        silent = silent and float(block.abs().max()) < CANCELLED
        yield block
        if len(block) < size:
            break
        start += READ_SECONDS
    if silent:  # is it silent, or are its channels opposite?
        check = check_audio(path)
        if check.reason is not None:
            raise AudioError(path, check.reason, check.detail)


class FrameChunk(NamedTuple):
    """Consecutive frames of a recording."""

    times: Tensor  # when each frame begins (frames,), in seconds, float64
    hidden: Tensor  # hidden states (frames, width)


def mean_of_frames(chunks: Iterable[FrameChunk]) -> Tensor:
    """The mean hidden state (width,) of a recording, float64, in constant memory."""
    total, frames = 0.0, 0
    for chunk in chunks:
        total = total + chunk.hidden.sum(dim=0, dtype=torch.float64)
        frames += len(chunk.hidden)
    return total / frames


def embed_windows(
    embed: Callable[[Tensor], Tensor],
    blocks: Iterable[Tensor],
    frame_samples: int,
    frame_rate: float,
    window: int,
    overlap: int,
    edge: int = 0,
) -> Iterator[FrameChunk]:
    """Embeds a stream window by window, and fades from each to the next.

    Beside a window, `edge` frames of the audio around it are computed and dropped. The
    last window ends with the audio and is as long as the others, so that no frame is
    computed from a short rest.
    """
    if not 0 <= overlap < window:
        raise ValueError(
            f"Windows of {window} frames cannot overlap by {overlap} frames: the "
            "overlap must be at least 0 and shorter than the window."
        )
    done, tail = 0, torch.zeros(0, 1)  # frames given out, and those that wait
    hop = window - overlap
    for cut in stream(blocks, frame_samples, window, hop, edge, last="full"):
        hidden = embed(cut.audio)
        if not cut.is_last:
            hidden = hidden[: cut.due + window - cut.begin]
        # The last window may begin earlier than it had to.
        hidden = hidden[done - cut.begin :].clone()
        fade = torch.arange(1, len(tail) + 1) / (len(tail) + 1)
        fade = fade.to(hidden)[: len(hidden), None]
        before = tail[: len(fade)].to(hidden)
        hidden[: len(fade)] = before * (1 - fade) + hidden[: len(fade)] * fade
        final = len(hidden) if cut.is_last else len(hidden) - overlap
        tail = hidden[final:]
        frames = torch.arange(done, done + final, dtype=torch.float64)
        done += final
        yield FrameChunk(frames / frame_rate, hidden[:final])
