"""What the structure of an audio file gives away, which its decoder passes over.

libsndfile silently shortens a wav that was cut off, skips damaged pages of an Ogg
stream, and guesses the length of an mp3. Here the bytes themselves are asked.
"""

import os
import re
import struct
import zlib
from functools import lru_cache

# Writers that cannot seek back (pipes) put a placeholder of at least this size.
_STREAMED = 0x7F000000
# The largest count of samples that a compressed byte has ever stood for is that of
# digital silence in FLAC, 65535 samples in about ten bytes.
SAMPLES_PER_BYTE = 8192
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


def looks_like(path: str | os.PathLike) -> str:
    """What a file that no decoder knows seems to be; empty if that is unknown."""
    with open(path, "rb") as file:
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


def missing_part(log: str) -> str | None:
    """Words for a file that is shorter than it says, from libsndfile's header log."""
    for chunk in (r"data", r"SSND", r"\s*Data Size\s*", r"riff"):
        sizes = re.search(rf"^ ?{chunk} ?: (\d+) \(should be (\d+)\)", log, re.M)
        if sizes and int(sizes[2]) < int(sizes[1]) < _STREAMED:
            return f"the header says {sizes[1]} bytes of audio, the file has {sizes[2]}"
    frames = re.search(
        r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)",
        log,
    )
    if frames and int(frames[1]) < int(frames[2]) < _STREAMED:
        return f"the header says {frames[2]} samples, the file has {frames[1]}"
    if "Last page lacks an end-of-stream bit" in log:
        return "the Ogg stream was never closed"
    return None


def wav_data(path: str | os.PathLike) -> int | None:
    """Where the audio of a wav begins whose header states too little, else None.

    A size of 0 is what a recorder that was cut off leaves behind, and sizes of 4 GiB
    and more wrap around. What follows the stated audio is chunks in a good file.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return None
        at = 12
        while at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                break
            at += 8 + length + length % 2
        else:
            return None
        begin, stated = at + 8, length
        wrapped = size - begin - stated >= 1 << 31
        if not (wrapped or (stated == 0 and size > begin)):
            return None
        at = begin + stated + stated % 2
        while at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack("<4sI", file.read(8))
            if not name.replace(b" ", b"").replace(b"_", b"").isalnum():
                return begin
            at += 8 + length + length % 2
    return None if size <= at <= size + 1 else begin


@lru_cache(maxsize=1 << 14)
def ogg_fault(path: str, size: int, modified: int) -> tuple[str, str] | None:
    """Reason and words for an Ogg file with a hole; its pages number themselves."""
    counts: dict[int, int] = {}
    ended: set[int] = set()
    with open(path, "rb") as file:
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


def mp3_length(path: str | os.PathLike) -> tuple[bool, str | None]:
    """Whether an mp3 states its own length, and words if it is shorter than that."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
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
    with open(path, "rb") as file:
        file.seek(begin + start + stated)
        behind = file.read(8)
    return there < stated + _FRAME or behind.startswith(_TAGS), None
