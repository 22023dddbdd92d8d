"""Opens a file with the decoder that hears all of it, or says why there is none.

libsndfile silently shortens a wav that was cut off, skips damaged pages of an Ogg
stream, and guesses the length of an mp3. Here the bytes themselves are asked.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

import soundfile

from muq_plugins.data.decoders import (
    DecodingError,
    Ffmpeg,
    HeaderlessWav,
    NoFfmpeg,
    Sndfile,
    open_sound,
)
from muq_plugins.data.sources import Part, Place, size_and_time

# libsndfile reports this many frames when the header states no length.
_UNKNOWN_LENGTH = 1 << 62
# FFmpeg and libsndfile differ by what they do with the first and the last frame.
_MP3_FRAMES = 3 * 1152
_PLAIN = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
# The lowest rate in use for sound is 4 kHz, the highest 768 kHz. A clip of 24 Hz would
# last for days, and crops are drawn by duration.
MIN_RATE, MAX_RATE = 4000, 768000
# Writers that cannot seek back (pipes) put one of these, sox the first into aiff, less
# what its header or half a frame takes.
_PLACEHOLDERS = (0x7F000000, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1)
_NEAR = 1 << 13
# The largest count of samples that a compressed byte has ever stood for is that of
# digital silence in FLAC, 65535 samples in about ten bytes.
_SAMPLES_PER_BYTE = 8192
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Tags may stand behind the last frame of an mp3.
_TAGS = (b"TAG", b"APETAGEX", b"LYRICS", bytes(8))
_FRAME = 2048
_KINDS = (
    (b"<", "a web page or another text, as servers send instead of a missing file"),
    (b"{", "a text (JSON)"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"Rar!", "a rar archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"MThd", "MIDI: notes without sound"),
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
)


def open_audio(path: str | os.PathLike) -> Sndfile | Ffmpeg:
    """Opens a file and checks its structure.

    What is refused here is refused by every reader, whichever window it is about.
    """
    decoder = _decoder(path)
    try:
        _check_structure(path, decoder)
    except BaseException:
        decoder.close()
        raise
    return decoder


def _decoder(path: str | os.PathLike) -> Sndfile | Ffmpeg:
    """The decoder of a file: libsndfile wherever it hears all of it."""
    source = _source(path)
    try:
        file = open_sound(source)
    except soundfile.LibsndfileError as error:
        if isinstance(source, Part):
            source.close()
        with Part(path):  # an OSError says why it cannot be opened
            pass
        if size_and_time(path)[0] == 0:
            raise DecodingError("0 bytes", reason="empty") from error
        try:
            return Ffmpeg(path)
        except DecodingError as other:
            if other.reason != "undecodable":
                raise
            words, kind = error.error_string, _looks_like(path)
            if isinstance(other, NoFfmpeg) and (not kind or "MPEG-4" in kind):
                raise DecodingError(other.words, reason="needs FFmpeg") from other
            if kind:
                words = f"it is {kind}"
            elif "possibly a pipe" in words:  # said of any content that is unknown
                words = "unknown format"
            raise DecodingError(words) from other
    if file.format in ("WAV", "WAVEX") and file.subtype in _PLAIN:
        begin = _wav_data(path)
        if begin is not None:
            return HeaderlessWav(file, path, begin)
    decoder = Sndfile(file)
    return _mp3(path, decoder) if file.format == "MP3" else decoder


def _source(path: str | os.PathLike) -> bytes | str | Part:
    """What libsndfile opens; what is no file of its own has to be read for it."""
    if not Place.of(path).is_plain:
        return Part(path)
    if not os.path.exists(path):
        raise DecodingError("no such file", reason="missing")
    if os.path.isdir(path):
        raise DecodingError("this takes a file", reason="a folder")
    if not os.path.isfile(path):
        raise DecodingError("not a regular file")
    # Bytes on POSIX: soundfile cannot encode file names that are not UTF-8.
    return os.fsencode(path) if os.name == "posix" else str(path)


def _mp3(path: str | os.PathLike, decoder: Sndfile) -> Sndfile | Ffmpeg:
    """The decoder of an mp3: libsndfile stops at the length that it guesses."""
    certain, words = _mp3_length(path)
    if words is not None:
        decoder.close()
        raise DecodingError(words, reason="truncated")
    if certain:
        return decoder
    try:
        other = Ffmpeg(path)
    except DecodingError:
        return decoder  # without PyAV, or damaged: then it says where
    if abs(other.frames - decoder.frames) <= _MP3_FRAMES:
        return decoder
    decoder.close()
    return other


def _check_structure(path: str | os.PathLike, decoder: Sndfile | Ffmpeg) -> None:
    """Refuses what the structure of a file gives away."""
    size, modified = size_and_time(path)
    frames, rate = decoder.frames, decoder.sample_rate
    if frames == 0:
        raise DecodingError("no samples", reason="empty")
    if frames >= _UNKNOWN_LENGTH:
        raise DecodingError("the header states no length")
    if not MIN_RATE <= rate <= MAX_RATE:
        words = f"{rate} Hz, music has {MIN_RATE} to {MAX_RATE} Hz"
        raise DecodingError(words, reason="implausible")
    if frames > size * _SAMPLES_PER_BYTE:
        hours = f"{frames / rate / 3600:.0f} h, in {size} bytes"
        raise DecodingError(f"the header says {hours}", reason="implausible")
    if decoder.format == "OGG":
        fault = _ogg_fault(os.fspath(path), size, modified)
        if fault is not None:
            reason, words = fault
            raise DecodingError(words, reason=reason)
    if words := _missing_part(decoder.log):
        raise DecodingError(words, reason="truncated")


def _looks_like(path: str | os.PathLike) -> str:
    """What a file that no decoder knows seems to be; empty if that is unknown."""
    with Part(path) as file:
        head = file.read(512)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, words in _KINDS:
        if start.startswith(magic):
            return words
    if head[4:8] == b"ftyp":
        return "an MPEG-4 file without its index, as an interrupted copy leaves it"
    if not head.strip(b"\0"):
        return "zeros only, as an interrupted download leaves it"
    return ""


def _missing_part(log: str) -> str | None:
    """Words for a file that is shorter than it says, from libsndfile's header log."""
    for chunk in (r"data", r"SSND", r"\s*Data Size\s*", r"riff"):
        sizes = re.search(rf"^ ?{chunk} ?: (\d+) \(should be (\d+)\)", log, re.M)
        if sizes and _is_lacking(int(sizes[1]), int(sizes[2])):
            return f"the header says {sizes[1]} bytes of audio, the file has {sizes[2]}"
    stated = re.search(r"^ds64 .*?^  Frames +: (\d+)", log, re.M | re.S)
    there = re.search(r"Calculated frame count (\d+) does not match value", log)
    if stated and there and _is_lacking(int(stated[1]), int(there[1])):
        return f"the header says {stated[1]} samples, the file has {there[1]}"
    if "Last page lacks an end-of-stream bit" in log:
        return "the Ogg stream was never closed"
    return None


def _is_lacking(stated: int, there: int) -> bool:
    """Whether a file has less than it says, unless that is said by all streams."""
    return there < stated and all(abs(stated - x) > _NEAR for x in _PLACEHOLDERS)


def _wav_data(path: str | os.PathLike) -> int | None:
    """Where the audio of a wav begins whose header states too little, else None.

    A size of 0 is what a recorder that was cut off leaves behind, and sizes of 4 GiB
    and more wrap around. What follows the stated audio is chunks in a good file.
    """
    size, _ = size_and_time(path)
    with Part(path) as file:
        if file.read(4) != b"RIFF":
            return None
        chunks = _chunks(file, 12, size)
        data = next((chunk for chunk in chunks if chunk[1] == b"data"), None)
        if data is None:
            return None
        begin, stated = data[0] + 8, data[2]
        wrapped = size - begin - stated >= 1 << 31
        if not (wrapped or (stated == 0 and size > begin)):
            return None
        at = begin + stated + stated % 2
        for place, name, length in _chunks(file, at, size):
            if not name.replace(b" ", b"").replace(b"_", b"").isalnum():
                return begin
            at = place + 8 + length + length % 2
    return None if size <= at <= size + 1 else begin


def _chunks(file: BinaryIO, at: int, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Where chunks of a wav begin, what they are called, and how long they are."""
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        yield at, name, length
        at += 8 + length + length % 2


@lru_cache(maxsize=1 << 14)
def _ogg_fault(path: str, size: int, modified: int) -> tuple[str, str] | None:
    """Reason and words for an Ogg file with a hole; its pages number themselves."""
    counts: dict[int, int] = {}
    ended: set[int] = set()
    with Part(path) as file:
        at = 0
        while at < size:
            file.seek(at)
            header = file.read(27)
            if len(header) < 27 or header[:4] != b"OggS":
                if ended.issuperset(counts):
                    return None  # tags behind the end
                return "damaged", f"no Ogg page at byte {at}"
            flags, segments = header[5], header[26]
            serial, number, checksum = struct.unpack("<III", header[14:26])
            lacing = file.read(segments)
            body = file.read(sum(lacing))
            if len(lacing) < segments or len(body) < sum(lacing):
                return "truncated", f"the last Ogg page ends at byte {size}"
            page = b"".join((header[:22], bytes(4), header[26:], lacing, body))
            if _ogg_checksum(page) != checksum:
                return "damaged", f"the Ogg page at byte {at} has changed"
            if flags & 2 and ended:
                words = "streams one after another, of which one would be heard"
                return "undecodable", words
            if number != counts.get(serial, number):
                return "damaged", f"an Ogg page is missing before byte {at}"
            counts[serial] = number + 1
            if flags & 4:
                ended.add(serial)
            at += len(page)
    return None


def _ogg_checksum(page: bytes) -> int:
    """The checksum of Ogg, which is that of zlib with all bits the other way round."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


def _mp3_length(path: str | os.PathLike) -> tuple[bool, str | None]:
    """Whether an mp3 states its own length, and words if it is shorter than that."""
    size, _ = size_and_time(path)
    with Part(path) as file:
        begin, head = 0, file.read(10)
        while head[:3] == b"ID3" and len(head) == 10:
            length = 0
            for byte in head[6:10]:
                length = length << 7 | byte & 127
            begin += 10 + length + 10 * bool(head[5] & 16)
            file.seek(begin)
            head = file.read(10)
        file.seek(begin)
        frame = file.read(4096)
    start = frame.find(b"\xff")
    tag = re.search(b"Xing|Info", frame[start : start + 64]) if start >= 0 else None
    if tag is None:
        return b"VBRI" in frame[:128], None
    tag = start + tag.start()
    (flags,) = struct.unpack(">I", frame[tag + 4 : tag + 8])
    if flags & 3 != 3:
        return False, None
    (stated,) = struct.unpack(">I", frame[tag + 12 : tag + 16])
    there = size - begin - start
    if there < stated - _FRAME:
        return True, f"the header says {stated} bytes of audio, the file has {there}"
    # Files that were joined begin with the header of the first.
    with Part(path) as file:
        file.seek(begin + start + stated)
        behind = file.read(8)
    return there < stated + _FRAME or behind.startswith(_TAGS), None
