"""Manifests: the JSON files that list the clips of a split.

A manifest maps a clip id to its file, its duration and any labels, in the form
that `speechbrain.dataio.dataset.DynamicItemDataset.from_json` reads:

    {"<clip id>": {"wav": "{data_root}/album/song.flac", "duration": 31.25, ...}}

``midi`` is the file of the notes that are played, where they are known. Large manifests
have their `columns` beside them, which are made again whenever the manifest changes.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from muq_plugins.data.audio import AudioInfo
from muq_plugins.data.clips import keyed_integer, keyed_shares
from muq_plugins.data.columns import (
    Manifest,
    entries_of,
    fill_in,
    read_columns,
    stamp,
    write_columns,
)
from muq_plugins.errors import UserError
from muq_plugins.files import replace_file

PARTS = ("train", "valid", "test")
# Entries that are read in less time than a file of columns is worth.
SMALL = 10_000


def load_manifest(path: str | Path, data_root: str | Path) -> Manifest:
    """Loads a manifest and checks what reading audio needs."""
    path, data_root = Path(path), str(data_root)
    if (columns := read_columns(path, data_root)) is not None:
        return Manifest(columns)
    if not path.is_file():
        raise UserError(
            f"There is no manifest {path}. Write one with "
            "muq_plugins.data.scan.scan_folder, or check the path."
        )
    about = stamp(path)
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(manifest, dict) or not manifest:
        raise UserError(
            f"{path} holds no clips: a manifest is a JSON object from clip id to "
            'an entry with "wav" and "duration".'
        )
    for clip_id, entry in manifest.items():
        try:
            fill_in(entry, data_root)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} holds a placeholder other than {{data_root}}: {error}. Write "
                "braces that belong to a text twice: {{ and }}."
            ) from error
        _check_entry(path, clip_id, entry)
    return _in_columns(path, manifest, about, data_root)


def write_manifest(path: Path, manifest: dict[str, dict[str, Any]]) -> None:
    """Writes a manifest, one line a clip."""
    # ASCII, since file names that are not UTF-8 have no other way to be written.
    entries = (
        f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in manifest.items()
    )
    replace_file(path, "{{\n{}\n}}\n".format(",\n".join(entries)).encode())
    _in_columns(path, manifest, stamp(path))


def _in_columns(
    path: Path,
    manifest: dict[str, dict[str, Any]],
    about: dict[str, str],
    data_root: str | None = None,
) -> Manifest:
    """Keeps a large manifest as columns beside it, where that can be written."""
    if len(manifest) >= SMALL:
        with contextlib.suppress(OSError, SafetensorError):  # such as a full disk
            write_columns(path, manifest, about)
            if (columns := read_columns(path, data_root)) is not None:
                return Manifest(columns)
    return entries_of(manifest, data_root)


def _check_entry(path: Path, clip_id: str, entry: Any) -> None:
    """Raises ValueError for an entry that no audio can be read from."""
    if not isinstance(entry, dict):
        raise UserError(f"{path}: clip '{clip_id}' must be an object, got {entry!r}.")
    wav = entry.get("wav")
    if not isinstance(wav, str) or not wav:
        raise UserError(
            f"{path}: clip '{clip_id}' needs \"wav\", the path of its file, "
            f"got {wav!r}."
        )
    duration = entry.get("duration")
    if (
        isinstance(duration, bool)
        or not isinstance(duration, (int, float))
        or not 0 < duration < math.inf
    ):
        raise UserError(
            f"{path}: clip '{clip_id}' needs \"duration\", a number of seconds above "
            f"0, got {duration!r}."
        )


def manifest_entry(
    path: str, audio: AudioInfo, /, midi: str | None = None, **labels: Any
) -> dict[str, Any]:
    """One entry of a manifest; the paths are relative to the data root."""
    files = {"wav": path} if midi is None else {"wav": path, "midi": midi}
    return {
        **{name: "{data_root}/" + _escape(file) for name, file in files.items()},
        "duration": audio.duration,
        "sample_rate": audio.sample_rate,
        "channels": audio.channels,
        **{name: _escape(value) for name, value in labels.items()},
    }


def _escape(value: Any) -> Any:
    """Doubles the braces of texts, at any depth."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, (list, tuple)):
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        return {name: _escape(item) for name, item in value.items()}
    return value


def clip_ids(relative_paths: Sequence[str]) -> list[str]:
    """Names clips after their files."""
    names = [_stem(path).replace("/", "__") for path in relative_paths]
    times = collections.Counter(names)
    return [
        name
        if times[name] == 1
        else f"{name}-{keyed_integer(1 << 32, 'clip id', path):08x}"
        for name, path in zip(names, relative_paths, strict=True)
    ]


def _stem(path: str) -> str:
    """A path without its suffix, as `PurePosixPath` finds it, but ten times as fast."""
    name = path[path.rfind("/") + 1 :]
    dot = name.rfind(".")
    return path[: dot - len(name)] if 0 < dot < len(name) - 1 else path


def split_files(
    relative_paths: Sequence[str],
    seed: int,
    valid_fraction: float,
    test_fraction: float,
) -> dict[str, list[str]]:
    """Splits files by a hash of seed and path.

    With the same fractions, a file keeps its split when others are added or removed.
    In a folder so small that a split would be empty, valid and then test get the files
    with the smallest hash (from 2 and 3 files on), and train always keeps one.
    """
    paths = sorted(relative_paths)
    shares = keyed_shares(paths, seed, "split")
    held_out = valid_fraction + test_fraction
    valid = int((shares < valid_fraction).sum())
    test = int((shares < held_out).sum()) - valid
    if valid_fraction > 0 and len(shares) >= 2:
        valid = max(valid, 1)
    if test_fraction > 0 and len(shares) >= 3:
        test = max(test, 1)
    valid = min(valid, max(0, len(shares) - 1))
    test = min(test, max(0, len(shares) - 1 - valid))
    order = np.argsort(shares, kind="stable")
    parts = {
        "train": order[valid + test :],
        "valid": order[:valid],
        "test": order[valid : valid + test],
    }
    return {name: [paths[i] for i in np.sort(part)] for name, part in parts.items()}
