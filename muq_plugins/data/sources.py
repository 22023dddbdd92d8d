"""Where the bytes of a recording are: a file, a member of a tar, an object of a store.

A place is written as a path. ``?o=BEGIN&e=END&n=NAME`` behind it, as Lhotse writes its
pointers, means the member of an uncompressed tar that has these bytes; ``scheme://``
before it, an object that fsspec reads: s3, gs, hf, http, memory and others.
"""

from __future__ import annotations

import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import fsspec.asyn
import fsspec.core

from muq_plugins.errors import UserError

HEADER = tarfile.BLOCKSIZE  # what stands before a member of a tar
# A store is asked for this much at once: a few seconds to a minute of compressed music,
# so that entering a long recording anywhere costs few requests.
BLOCK = 4 << 20
_BLOCKS = 4  # that are kept
# A store that fails is asked again after 0.5, 1, 2 and 4 s, then it is an error.
TRIES = 5
PAUSE = 0.5
TIMEOUT = 60.0  # seconds that one answer may take
# What stores call a digest or the time of an object.
_MARKS = ("ETag", "etag", "Content-MD5", "md5Hash", "blob_id", "Last-Modified")
_MARKS += ("LastModified", "last_modified", "mtime", "created")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Place:
    """A file or object, or the bytes begin..end of it."""

    file: str
    begin: int = 0
    end: int | None = None
    name: str = ""  # of the member of a tar

    @classmethod
    def of(cls, path: str | os.PathLike) -> Place:
        """Reads a path."""
        text = os.fspath(path)
        found = re.fullmatch(r"(.*)\?o=(\d+)&e=(\d+)&n=(.*)", text, re.DOTALL)
        if found is None:
            return cls(text)
        return cls(found[1], int(found[2]), int(found[3]), found[4])

    @property
    def is_plain(self) -> bool:
        """Whether it is an ordinary file of this machine."""
        return self.end is None and not is_remote(self.file)


def member(tar: str, begin: int, end: int, name: str) -> str:
    """The path of a member of a tar."""
    return f"{tar}?o={begin}&e={end}&n={name}"


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is that of a store."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path)) is not None


def size_and_time(path: str | os.PathLike) -> tuple[int, int]:
    """How many bytes there are, and what changes with them, where that is known.

    It is a time (ns); of an object a number of its own, and 0 for a part of one, as it
    would cost a request.
    """
    place = Place.of(path)
    if is_remote(place.file):
        if place.end is not None:
            return place.end - place.begin, 0
        about = _about(place.file)
        mark = next((about[name] for name in _MARKS if about.get(name)), None)
        return about["size"], 0 if mark is None else zlib.crc32(str(mark).encode())
    status = os.stat(place.file)
    end = place.end if place.end is not None else status.st_size
    return end - place.begin, status.st_mtime_ns


class Part:
    """A place from one byte on, as libsndfile and FFmpeg read a file."""

    def __init__(self, path: str | os.PathLike, begin: int = 0):
        place = Place.of(path)
        self._bytes = (_Object if is_remote(place.file) else _File)(place)
        if place.end is not None:
            check_member(place, self._bytes.read(place.begin - HEADER, place.begin))
        self._begin = place.begin + begin
        self._size = self._bytes.end - self._begin
        self._at = 0
        self._failure: BaseException | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:  # an exception would be printed by PyAV
            return -1
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        data = self._bytes.read(self._begin + self._at, self._begin + end)
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """As libsndfile reads, where an exception would be printed and forgotten."""
        if self._failure is not None:
            return 0
        try:
            data = self.read(len(buffer))
        except BaseException as error:
            self._failure = error
            return 0
        buffer[: len(data)] = data
        return len(data)

    def raise_failure(self) -> None:
        """Raises what libsndfile took for the end of the file, if anything."""
        if self._failure is not None:
            self.close()
            raise self._failure

    def close(self) -> None:
        self._bytes.close()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def hash_file(path: str | os.PathLike, digest: Any) -> str:
    """What a file holds, by a hash of `hashlib`."""
    with Part(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_member(place: Place, header: bytes) -> None:
    """Refuses a member that is not where its index says."""
    words = "there is no member"
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        pass
    else:
        # A long or foreign name is shortened here and stands whole before.
        begin = found.name.encode("utf-8", "surrogateescape")
        whole = place.name.encode("utf-8", "surrogateescape")
        names = whole, place.name.encode("ascii", "replace")
        known = any(name.startswith(begin) for name in names)
        if known and found.size == place.end - place.begin:
            return
        words = f"{found.name} with {found.size} bytes is"
    raise UserError(
        f"{place.file} and its index do not belong together: the index says that "
        f"{place.name} with {place.end - place.begin} bytes is at byte {place.begin}, "
        f"{words} there. Copy both again from where the shards were made."
    )


class _File:
    """Bytes of a file of this machine."""

    def __init__(self, place: Place):
        try:
            self.file = open(place.file, "rb")  # noqa: SIM115
        except FileNotFoundError as error:
            if place.end is None:
                raise
            raise UserError(
                f"{place.file} is missing, which has {place.name}: copy it again from "
                "where the shards were made."
            ) from error
        size = os.fstat(self.file.fileno()).st_size
        self.end = size if place.end is None else place.end
        if place.end is not None and size < place.end:
            self.file.close()
            raise UserError(
                f"{place.file} was cut off: it ends at byte {size}, and {place.name} "
                f"at byte {place.end}. Copy it again from where the shards were made."
            )

    def read(self, begin: int, end: int) -> bytes:
        self.file.seek(begin)
        return self.file.read(end - begin)

    def close(self) -> None:
        self.file.close()


class _Object:
    """Bytes of an object of a store, in blocks, of which the latest are kept."""

    def __init__(self, place: Place):
        self.url = place.file
        self.first = max(0, place.begin - HEADER)
        self.end = place.end if place.end is not None else object_size(place.file)
        self.blocks: dict[int, bytes] = {}

    def read(self, begin: int, end: int) -> bytes:
        pieces = []
        while begin < end:
            number = (begin - self.first) // BLOCK
            start = self.first + number * BLOCK
            if number not in self.blocks:
                while len(self.blocks) >= _BLOCKS:
                    del self.blocks[next(iter(self.blocks))]
                stop = min(start + BLOCK, self.end)
                self.blocks[number] = read_object(self.url, start, stop)
            pieces.append(self.blocks[number][begin - start : end - start])
            begin += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        self.blocks.clear()


def read_object(url: str, begin: int | None = None, end: int | None = None) -> bytes:
    """Bytes of an object, all of them without numbers."""

    def read(store: Any, path: str) -> bytes:
        given = {} if end is None else {"start": begin, "end": end}
        data = _answer(store, "cat_file", path, **given)
        if end is not None and len(data) != end - begin:
            raise OSError(
                f"asked for bytes {begin} to {end} it gave {len(data)} bytes: it is "
                "shorter than that, or the server does not know ranges"
            )
        return data

    return _persistently(url, read)


def object_size(url: str) -> int:
    """How many bytes an object has."""
    return _about(url)["size"]


def _about(url: str) -> dict[str, Any]:
    """What a store knows of an object."""
    about = _persistently(url, lambda store, path: _answer(store, "info", path))
    if about.get("size") is None:
        raise UserError(
            f"{url}: the server does not say how many bytes it has (Content-Length). "
            "Copy it to a disk, or to another server."
        )
    return about


def list_objects(url: str) -> list[str]:
    """The addresses of the objects directly below an address."""

    def listed(store: Any, path: str) -> list[str]:
        names = _answer(store, "ls", path, detail=False)
        return sorted(store.unstrip_protocol(name) for name in names)

    return _persistently(url, listed)


def _answer(store: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """What a store answers, in time."""
    if not store.async_impl:
        return getattr(store, name)(*args, **kwargs)
    ask = getattr(store, f"_{name}")
    return fsspec.asyn.sync(store.loop, ask, *args, timeout=TIMEOUT, **kwargs)


def _persistently(url: str, ask: Callable[[Any, str], _Answer]) -> _Answer:
    """Asks a store until it answers, a few times."""
    try:
        store = _store(url.partition("://")[0])
        path = store._strip_protocol(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be read: {error}.") from error
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE * 2 ** (number - 1))
        try:
            return ask(store, path)
        except FileNotFoundError as error:
            raise UserError(f"{url} does not exist: check the address.") from error
        except Exception as error:  # each store has its own kinds
            last = error
            if isinstance(error, _FINAL):
                break
    words = " ".join(str(last).split()) or type(last).__name__
    raise UserError(
        f"{url} cannot be read ({words}; tried {number + 1} times). Check the store, "
        "the network and your rights, then run the same command again."
    ) from last


@lru_cache(maxsize=16)
def _store(protocol: str) -> Any:
    # Listings would be remembered for ever, and hide what was written since.
    return fsspec.filesystem(protocol, use_listings_cache=False)
