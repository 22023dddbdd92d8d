"""Loudness by ITU-R BS.1770, as FFmpeg measures it (EBU R 128), in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
from torch import Tensor

from muq_plugins.data.audio import MAX_AMPLITUDE
from muq_plugins.errors import NotInstalled, UserError

# What a gate leaves out: a recording that is nowhere louder has no loudness.
SILENT = -70.0
GATE = 0.4  # seconds of a block of the standard, the least that it measures
# Levels that music is brought to: streaming services use -14, broadcasts -23.
LOWEST, HIGHEST = -40.0, -5.0
# What is further away is no music; more would leave the range that models take.
MOST_GAIN = 30.0


def can_measure() -> bool:
    """Whether the PyAV that is installed passes on what FFmpeg's meter says."""
    import av

    return hasattr(av.AudioFrame, "metadata")


def check_loudness(loudness: float | None) -> None:
    """Refuses a level in LUFS that no music should be brought to."""
    if loudness is None:
        return
    if not can_measure():
        raise NotInstalled(
            "To bring files to one loudness needs PyAV 18.1 or newer, which needs "
            "Python 3.11: run `pip install 'av>=18.1'`."
        )
    if not LOWEST <= loudness <= HIGHEST:
        raise UserError(
            f"The loudness must be a level in LUFS between {LOWEST:g} and {HIGHEST:g}, "
            f"such as -16, got {loudness:g}."
        )


def measure_loudness(blocks: Iterable[Tensor], sample_rate: int) -> float:
    """The integrated loudness of mono audio in blocks (samples,), in LUFS.

    `SILENT` where nothing is louder than that. What is shorter than a block of the
    standard is measured as if it were repeated.
    """
    import av
    import av.filter

    graph = av.filter.Graph()
    source = graph.add(
        "abuffer",
        sample_rate=str(sample_rate),
        sample_fmt="flt",
        channel_layout="mono",
        time_base=f"1/{sample_rate}",
    )
    meter = graph.add("ebur128", "metadata=1:framelog=quiet")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    loudness = SILENT

    def follow() -> None:
        nonlocal loudness
        while True:
            try:
                facts = graph.pull().metadata
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            loudness = float(facts.get("lavfi.r128.I", loudness))

    heard = 0

    def hear(block: Tensor) -> None:
        nonlocal heard
        samples = block.float().numpy()[None]
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
        frame.pts = heard
        heard += len(block)
        graph.push(frame)
        follow()

    least, start = math.ceil(GATE * sample_rate), []
    for block in blocks:
        if heard < least:
            start.append(block)
        hear(block)
    if 0 < heard < least:
        short = torch.cat(start)
        while heard < least:
            hear(short)
    graph.push(None)
    follow()
    return loudness


def gain_to(loudness: float, blocks: Iterable[Tensor], sample_rate: int) -> float:
    """What a recording is multiplied by to have a loudness; 1 if it is silent.

    Less where its loudest sample would leave the range that models take: a click.
    """
    peak = 0.0

    def heard() -> Iterator[Tensor]:
        nonlocal peak
        for block in blocks:
            if len(block):
                peak = max(peak, float(block.abs().max()))
            yield block

    found = measure_loudness(heard(), sample_rate)
    if found <= SILENT:
        return 1.0
    gain = 10 ** (min(loudness - found, MOST_GAIN) / 20)
    return gain if gain * peak <= MAX_AMPLITUDE else 0.999 * MAX_AMPLITUDE / peak


def at_loudness(wav: Tensor, sample_rate: int, loudness: float | None) -> Tensor:
    """A whole recording (samples,) at a loudness; None leaves it as it is."""
    if loudness is None:
        return wav
    # In the blocks that files are streamed in: short ones change the last digits.
    blocks = wav.split(30 * sample_rate)
    return wav * torch.tensor(gain_to(loudness, blocks, sample_rate)).to(wav)
