"""The two decoders behind the audio reader: libsndfile, and FFmpeg for the rest.

What libsndfile reads, it decodes. FFmpeg comes with PyAV and reads m4a, aac, wma,
webm and the like, and mp3 files whose header does not state their length.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, dropwhile, pairwise
from typing import Any

import numpy as np
import soundfile

from muq_plugins.data.sources import Part, size_and_time

# Only demuxers of one local file: a playlist would send FFmpeg to other files, or into
# the net. What libsndfile knows is not tried again.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,mp3,ac3,eac3,dts,wv,tta,ape,mpc,"
    "mpc8,dsf,amr,tak"
)
# Streams of frames without a container can be entered at the first byte of a frame.
_RAW = ("aac", "mp3", "ac3", "eac3", "dts")
# FFmpeg decodes in segments of about this length, each with some audio before it, on a
# fixed grid: so what a window holds does not depend on how it was reached, although
# decoders keep a state (the noise of AAC, the reservoir of mp3).
_SEGMENT_SECONDS = 10.0
_LEAD_SECONDS = 0.5
# libsndfile joins the blocks of an mp3 without a click only where frames end.
_FRAME = 1152
_BLOCK = 57 * _FRAME
# Values of all channels at once: a header may claim any length, and 1024 channels.
_MOST_VALUES = 1 << 28
_SYSTEM_ERROR = 2  # libsndfile's number for a disk that fails


class DecodingError(Exception):
    """A decoder stopped, at a sample if it is known; or it knows no such file."""

    def __init__(self, words: str, at: int | None = None, reason: str = "undecodable"):
        super().__init__(words, at, reason)
        self.words = words
        self.at = at
        self.reason = reason


class NoFfmpeg(DecodingError):
    """PyAV is not installed."""


class Sndfile:
    """A file that libsndfile decodes."""

    name = "libsndfile"

    def __init__(self, file: soundfile.SoundFile):
        self.file = file
        self.sample_rate = file.samplerate
        self.channels = file.channels
        self.frames = file.frames
        self.format = file.format
        self.subtype = file.subtype
        self.log = file.extra_info

    def blocks(self, begin: int, end: int, size: int = _BLOCK) -> Iterator[np.ndarray]:
        """The samples from begin to end (samples, channels); a block is reused."""
        # One buffer for the whole file: threads that allocate large blocks over and
        # over spend their time in page faults instead of decoding.
        rows = min(size, _MOST_VALUES // self.channels // _FRAME * _FRAME)
        buffer = np.empty((rows, self.channels), dtype=np.float32)
        at = begin
        try:
            if self.file.seekable():
                self.file.seek(begin)
            else:  # GSM and some kinds of ADPCM
                at = 0
            while at < end:
                until = begin if at < begin else end
                block = self.file.read(out=buffer[: min(rows, until - at)])
                if len(block) == 0:
                    return
                at += len(block)
                if at > begin:
                    yield block
        except (soundfile.LibsndfileError, RuntimeError) as error:
            words = getattr(error, "error_string", str(error))
            system = getattr(error, "code", None) == _SYSTEM_ERROR
            reason = "unreadable" if system else "truncated"
            raise DecodingError(words, at, reason) from error
        finally:
            _raise_failure(self.file.name)

    def close(self) -> None:
        close_sound(self.file)


def open_sound(source: bytes | str | Part, **raw: Any) -> soundfile.SoundFile:
    """Opens a file with libsndfile; the format of one without a header is given."""
    try:
        return soundfile.SoundFile(source, **raw)
    finally:
        _raise_failure(source)


def close_sound(file: soundfile.SoundFile) -> None:
    """Closes a file, and what its bytes were read from."""
    file.close()
    if isinstance(file.name, Part):
        file.name.close()


def _raise_failure(source: bytes | str | Part) -> None:
    if isinstance(source, Part):
        source.raise_failure()


class HeaderlessWav(Sndfile):
    """A wav whose header states too little audio, heard to the end of the file."""

    def __init__(self, file: soundfile.SoundFile, path: str | os.PathLike, begin: int):
        raw = open_sound(
            Part(path, begin),
            samplerate=file.samplerate,
            channels=file.channels,
            format="RAW",
            subtype=file.subtype,
            endian="LITTLE",
        )
        super().__init__(raw)
        self.format, self.log = file.format, ""
        close_sound(file)


@dataclass(frozen=True)
class _Index:
    """Where the packets and the segments of a file are."""

    container: str
    codec: str
    stream: int
    sample_rate: int
    channels: int
    firsts: tuple[int, ...]  # the packet that each segment begins with, and the end
    begins: tuple[int, ...]  # the packet that its decoder begins with
    places: tuple[int, ...]  # pts of that packet, or its byte for `_RAW`
    ends: np.ndarray  # samples before the end of each segment


class Ffmpeg:
    """A file that FFmpeg decodes."""

    name = "FFmpeg"
    log = ""

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.index = _index(os.fspath(path), *size_and_time(path))
        self.sample_rate = self.index.sample_rate
        self.channels = self.index.channels
        self.frames = int(self.index.ends[-1])
        self.format = self.index.container.split(",")[0].upper()
        self.subtype = self.index.codec.upper()

    def blocks(self, begin: int, end: int, size: int = 0) -> Iterator[np.ndarray]:
        """The samples from begin to end (samples, channels), in blocks of its own."""
        index, end = self.index, min(end, self.frames)
        number = int(np.searchsorted(index.ends, begin, side="right"))
        while begin < end:
            last = int(index.ends[number])
            first = int(index.ends[number - 1]) if number else 0
            block = _segment(self.path, index, number)
            if len(block) != last - first:
                words = f"{len(block)} of {last - first} samples of a part are there"
                raise DecodingError(words, first, "damaged")
            yield block[begin - first : end - first]
            begin, number = last, number + 1

    def close(self) -> None:
        pass


@lru_cache(maxsize=4096)
def _index(path: str, size: int, modified: int) -> _Index:
    """Finds the packets of a file, and how many samples they hold."""
    with _opened(path) as container:
        stream = _audio(container)
        is_raw = container.format.name in _RAW
        packets = [
            (
                packet.pos if is_raw else packet.pts,
                packet.duration or 0,
                memoryview(packet)[0] if is_raw else 0,
            )
            for packet in _filled(container, stream)
        ]
        facts = {
            "container": container.format.name,
            "codec": stream.codec_context.name,
            "stream": stream.index,
        }
        stated = stream.frames
        seconds = (container.duration or 0) / 1e6
        base = stream.time_base
    with _opened(path) as container:
        frame = next(container.decode(_audio(container)), None)
    if frame is None or not packets:
        raise DecodingError("no samples", reason="empty")
    if stated > len(packets) + 1:
        words = f"{len(packets)} of {stated} packets of audio are there"
        raise DecodingError(words, reason="truncated")
    rate, channels = frame.sample_rate, len(frame.layout.channels)
    places = np.array([-1 if place is None else place for place, _, _ in packets])
    durations = np.array([duration for _, duration, _ in packets], dtype=np.int64)
    # Whether durations are told in samples (in milliseconds they are rounded), and raw
    # frames all begin like one: a tag between joined files is taken for a frame too.
    exact = (1 / base) % rate == 0 and durations.min() > 0
    exact = exact and len({byte for _, _, byte in packets}) == 1
    counts = durations * rate * base.numerator // base.denominator
    typical = int(np.median(counts)) if exact else frame.samples
    step = max(1, round(_SEGMENT_SECONDS * rate / max(1, typical)))
    lead = max(2, -(-round(_LEAD_SECONDS * rate) // max(1, typical)))
    firsts = (*range(0, len(packets), step), len(packets))
    begins = [max(0, first - lead) for first in firsts[:-1]]
    index = _Index(
        **facts,
        sample_rate=rate,
        channels=channels,
        firsts=firsts,
        begins=tuple(begins),
        places=tuple(places[begins].tolist()),
        ends=np.zeros(len(begins), dtype=np.int64),
    )
    # Encoders put something before the music and after it, which decoders take off.
    lengths = [
        int(counts[first:last].sum())
        if exact and 0 < number < len(firsts) - 2
        else len(_segment(path, index, number))
        for number, (first, last) in enumerate(pairwise(firsts))
    ]
    np.cumsum(lengths, out=index.ends)
    found = sum(lengths) / rate
    if facts["container"] not in _RAW and found < seconds - 0.5:
        words = f"{found:.2f} of {seconds:.2f} s are there"
        raise DecodingError(words, reason="truncated")
    return index


def _segment(path: str | os.PathLike, index: _Index, number: int) -> np.ndarray:
    """Decodes one segment (samples, channels) with a decoder of its own."""
    av = _pyav()
    first, last = index.firsts[number : number + 2]
    at = index.begins[number]
    blocks = []
    with _opened(path, index, number) as container:
        stream = _audio(container, index.stream)
        for packet in _packets(container, stream, index, number):
            try:
                frames = stream.decode(packet)
            except av.error.InvalidDataError as error:
                # The first one may build on what was not decoded.
                if at >= first and index.container not in _RAW:
                    done = int(index.ends[number - 1]) if number else 0
                    words = f"packet {at} cannot be decoded"
                    raise DecodingError(words, done, "damaged") from error
                frames = []
            if at >= first:
                blocks += [_samples(frame, index) for frame in frames]
            at += 1
            if at == last:
                break
        if last == index.firsts[-1]:
            blocks += [_samples(frame, index) for frame in stream.decode(None)]
    return np.concatenate(blocks) if blocks else np.zeros((0, index.channels))


def _packets(container: Any, stream: Any, index: _Index, number: int) -> Iterator[Any]:
    """The packets that a segment needs and those after; `_RAW` files begin there."""
    if index.begins[number] == 0 or index.container in _RAW:
        return _filled(container, stream)
    place = index.places[number]
    # A file that cannot be entered there is read from its first packet on.
    for entry in (place, index.places[0]):
        container.seek(entry, stream=stream)
        packets = dropwhile(lambda p: p.pts != place, _filled(container, stream))
        if (first := next(packets, None)) is not None:
            return chain([first], packets)
    return iter(())


def _filled(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream without the one that only says that it ends."""
    return (packet for packet in container.demux(stream) if packet.size)


def _samples(frame: Any, index: _Index) -> np.ndarray:
    """The samples of a frame (samples, channels), float32 in -1..1."""
    values = frame.to_ndarray()
    if frame.sample_rate != index.sample_rate:
        raise DecodingError(
            f"the rate changes from {index.sample_rate} to {frame.sample_rate} Hz",
            reason="damaged",
        )
    channels = len(frame.layout.channels)
    if channels != index.channels:
        words = f"{index.channels} channels become {channels}"
        raise DecodingError(words, reason="damaged")
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return (values / (np.iinfo(values.dtype).max + 1.0)).astype(np.float32)
    return values.astype(np.float32)


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike, index: _Index | None = None, segment: int = 0
) -> Iterator[Any]:
    """Opens a file with FFmpeg; raw frames where a segment begins."""
    av = _pyav()
    begin, form = 0, None
    if index is not None:
        form = index.container.split(",")[0]
        if index.container in _RAW and segment:
            begin = index.places[segment]
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    source = Part(path, begin)
    try:
        with av.open(
            source, format=form, options=options, metadata_errors="ignore"
        ) as container:
            yield container
    except av.error.FFmpegError as error:
        words = getattr(error, "strerror", None) or str(error)
        raise DecodingError(words) from error
    finally:
        source.close()


def _audio(container: Any, number: int | None = None) -> Any:
    """The audio of a file, the first if there are several."""
    if number is not None:
        return container.streams[number]
    if not container.streams.audio:
        raise DecodingError("it holds no audio", reason="empty")
    return container.streams.audio[0]


def _pyav() -> Any:
    """PyAV, which comes with FFmpeg."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise NoFfmpeg("libsndfile does not know this format") from error
    return av
