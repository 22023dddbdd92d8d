"""Columns: what reading clips needs of a manifest, as arrays.

A manifest of a million clips is a gigabyte of Python objects, in every process that
reads clips. As arrays it is a file that all of them map into memory.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from muq_plugins.files import atomic

FORMAT = "1"


class Texts(Sequence):
    """Texts in one array of bytes; each is made when it is asked for."""

    def __init__(self, data: np.ndarray, ends: np.ndarray):
        self.data = data  # uint8, one text after another
        self.ends = ends  # int64

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Keeps texts; surrogates appear in file names that are not UTF-8."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        begin = self.ends[index - 1] if index else 0
        return self.data[begin : self.ends[index]].tobytes().decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        return (text.decode(*_ENCODING) for text in self.encoded())

    def encoded(self) -> Iterator[bytes]:
        """The bytes of all texts, which sort as the texts do."""
        data, ends = self.data.tobytes(), self.ends.tolist()
        return (data[begin:end] for begin, end in itertools.pairwise([0, *ends]))


_ENCODING = ("utf-8", "surrogatepass")


class Columns:
    """Ids, paths and durations of the clips of a manifest, in its order.

    ``data_root`` takes the place of ``{data_root}`` in paths; None leaves texts as they
    are. Workers get an open file to map, not a copy, and keep it when a later scan has
    put another in its place.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        data_root: str | None = None,
        file: BinaryIO | None = None,
    ):
        self.data_root = data_root
        self._arrays = arrays
        self._file = file  # that the arrays are mapped from
        self.ids = self._texts("ids")
        self._wavs = self._texts("wavs")
        self.durations = arrays["durations"]  # float64, in seconds

    @classmethod
    def of(cls, manifest: Mapping[str, Mapping[str, Any]]) -> Columns:
        """Those of a manifest in memory, unless it has some."""
        if isinstance(manifest, Manifest):
            return manifest.columns
        return cls(_arrays_of(manifest))

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> tuple:
        if self._file is None:
            return self._arrays, self.data_root, None
        return None, self.data_root, reduction.DupFd(self._file.fileno())

    def __setstate__(self, state: tuple) -> None:
        arrays, data_root, descriptor = state
        file = None
        if descriptor is not None:
            file = open(descriptor.detach(), "rb")
            arrays, _ = _mapped(file)
        self.__init__(arrays, data_root, file)

    def _texts(self, name: str) -> Texts:
        return Texts(self._arrays[name], self._arrays[f"{name} end"])

    def wav(self, index: int) -> str:
        """The path of one clip."""
        return fill_in(self._wavs[index], self.data_root)

    def entry(self, index: int) -> dict[str, Any]:
        """All that the manifest says of one clip."""
        return fill_in(json.loads(self._texts("entries")[index]), self.data_root)

    def lines(self) -> Iterator[bytes]:
        """Id and duration of each clip, as a hash of the corpus takes them, sorted."""
        whole, seconds = self._arrays["whole"].tolist(), self.durations.tolist()
        words = [
            repr(int(value) if is_whole else value).encode()
            for value, is_whole in zip(seconds, whole, strict=True)
        ]
        pairs = sorted(zip(self.ids.encoded(), words, strict=True))
        return (b"%s\0%s\n" % pair for pair in pairs)


class Manifest(Mapping):
    """Clip id to entry, of columns: an entry is made when it is asked for."""

    def __init__(self, columns: Columns):
        self.columns = columns
        self._rows: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.ids)

    def __getitem__(self, clip_id: str) -> dict[str, Any]:
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.columns.ids)}
        return self.columns.entry(self._rows[clip_id])


def fill_in(value: Any, data_root: str | None) -> Any:
    """Puts the data root into the texts of a value, as SpeechBrain does."""
    if data_root is None:
        return value
    if isinstance(value, str):
        return value.format_map({"data_root": data_root})
    if isinstance(value, dict):
        return {name: fill_in(item, data_root) for name, item in value.items()}
    if isinstance(value, list):
        return [fill_in(item, data_root) for item in value]
    return value


def read_columns(path: Path, data_root: str) -> Columns | None:
    """The columns of a manifest, if there are any of the file as it is now."""
    try:
        file = open(_beside(path), "rb")
        arrays, about = _mapped(file)
        fresh = about == stamp(path)
    except (OSError, SafetensorError):  # damaged: the manifest itself is there
        return None
    return Columns(arrays, data_root, file) if fresh else None


def write_columns(
    path: Path, manifest: Mapping[str, Mapping[str, Any]], about: dict[str, str]
) -> None:
    """Writes the columns of a manifest, of which `stamp` told what it is."""
    texts = Texts.of(json.dumps(entry) for entry in manifest.values())
    arrays = {
        **_arrays_of(manifest),
        "entries": texts.data,
        "entries end": texts.ends,
    }
    with atomic(_beside(path)) as partial:
        save_file(arrays, partial, about)


def entries_of(manifest: Mapping[str, Mapping[str, Any]], data_root: str) -> Manifest:
    """A manifest whose texts still have placeholders, as one in memory."""
    texts = Texts.of(json.dumps(entry) for entry in manifest.values())
    arrays = {"entries": texts.data, "entries end": texts.ends}
    return Manifest(Columns({**_arrays_of(manifest), **arrays}, data_root))


def _arrays_of(manifest: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, texts in {
        "ids": manifest,
        "wavs": (entry["wav"] for entry in manifest.values()),
    }.items():
        kept = Texts.of(texts)
        arrays |= {name: kept.data, f"{name} end": kept.ends}
    durations = [entry["duration"] for entry in manifest.values()]
    arrays["durations"] = np.array(durations, np.float64)
    arrays["whole"] = np.array([isinstance(one, int) for one in durations], np.uint8)
    return arrays


def _mapped(file: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays that are read from the disk when they are looked at, and what they are."""
    with safe_open(f"/dev/fd/{file.fileno()}", framework="pt") as content:
        arrays = {name: content.get_tensor(name).numpy() for name in content.keys()}
        return arrays, content.metadata()


def _beside(path: Path) -> Path:
    return path.with_suffix(".columns")


def stamp(path: Path) -> dict[str, str]:
    """What tells that columns are of a manifest as it is; ask before it is read."""
    status = os.stat(path)
    return {"format": FORMAT, "manifest": f"{status.st_size} {status.st_mtime_ns}"}
