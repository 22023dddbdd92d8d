"""Output files: facts and arrays in npz, safetensors or parquet.

Every format holds the same: ``facts``, a JSON object that says what was computed from
what, and named arrays. A file is complete or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from muq_plugins.errors import UserError, needs, shown
from muq_plugins.files import atomic

if TYPE_CHECKING:  # pyarrow is optional
    import pyarrow as pa

FACTS = "facts"
NAME_BYTES = 255  # what file systems take


def check_format(name: str) -> None:
    """Refuses a format whose package is not installed, before any work."""
    if name == "parquet":
        needs("Parquet", "parquet", "pyarrow")


def output_path(folder: str | Path, name: str, format: str) -> Path:
    """Where the output of an input goes: its place in the tree, with an extension.

    A name that would be too long for a file system ends in a hash of itself instead.

    Example
    -------
    >>> output_path("out", "a/b.wav", "npz").as_posix()
    'out/a/b.wav.npz'
    >>> len(output_path("out", "a/" + 84 * "\\u9577", "npz").name.encode())
    253
    """
    path = Path(folder, f"{name}.{format}")
    whole = os.fsencode(path.name)
    if len(whole) <= NAME_BYTES:
        return path
    end = f"~{hashlib.sha256(whole).hexdigest()[:8]}.{format}"
    begin = whole[: NAME_BYTES - len(end)].decode("utf-8", "ignore")
    return path.with_name(begin + end)


def write_record(
    path: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Writes an output file; its extension is the format, folders above it are made."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # ASCII: names of files that are not UTF-8 have no other way to be written.
    words = json.dumps(facts)
    with atomic(path) as partial:
        FORMATS[path.suffix[1:]][0](partial, words, arrays)


def read_facts(path: Path) -> dict[str, Any]:
    """What an output file says about itself; nothing if it is of something else."""
    check_format(path.suffix[1:])
    try:
        return json.loads(FORMATS[path.suffix[1:]][1](path) or "{}")
    except (OSError, ValueError, EOFError, BadZipFile, SafetensorError) as error:
        # What is no archive at all, numpy takes for a pickle, which nobody opens here.
        words = "" if "pickle" in str(error) else f" ({error})"
        raise UserError(f"{path} is damaged{words}.") from error


def source_of(path: str | Path) -> dict[str, Any]:
    """What tells a changed input from the one of before, and from another one."""
    try:
        status = os.stat(path)
    except OSError:
        return {}
    # Whole seconds: copies and archives lose the rest.
    known = {"bytes": status.st_size, "modified": int(status.st_mtime)}
    return {"path": os.path.abspath(path), **known}


def is_current(output: Path, facts: dict[str, Any], path: str | Path) -> bool:
    """Whether an output was made of an input as it is now, which may have moved.

    Refused is an output of another input that is still there: outputs are named by
    the place of their input below what a command was given, which many inputs share.
    """
    there, now = dict(facts["source"]), source_of(path)
    before = there.pop("path", None) or facts.get("path")  # versions of before
    if before and now and os.path.exists(before) and not os.path.samefile(before, path):
        raise UserError(
            f"{shown(output)} was made of {shown(before)}, and the output of "
            f"{shown(path)} would take its place: give the folder above both, so that "
            f"outputs keep its tree, or another --out (or --overwrite to replace it)."
        )
    now.pop("path", None)
    return there == now


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The codes or tokens that an output file holds."""
    kind = path.suffix[1:]
    if kind == "safetensors":
        return load_file(path)
    if kind == "npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != FACTS}
    import pyarrow.parquet as pq

    # As a single file: below folders named key=value, these would become columns.
    name = "tokens" if "tokens" in pq.read_schema(path).names else "codes"
    column = pq.ParquetFile(path).read([name])[name].combine_chunks()
    values = column.flatten().to_numpy()
    return {name: values if name == "tokens" else values.reshape(len(column), -1)}


def find_records(folder: str | Path) -> Iterator[Path]:
    """The files of a tree that have the extension of a format, hidden ones left out."""
    for top, _, names in os.walk(folder):
        for name in sorted(names):
            if name[0] != "." and os.path.splitext(name)[1][1:] in FORMATS:
                yield Path(top, name)


def _write_npz(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add .npz to it
        np.savez(file, **{FACTS: np.array(facts)}, **arrays)


def _npz_facts(path: Path) -> str:
    with np.load(path, allow_pickle=False) as file:
        return str(file[FACTS]) if FACTS in file else ""


def _write_safetensors(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    save_file(arrays, path, metadata={FACTS: facts})


def _safetensors_facts(path: Path) -> str:
    with safe_open(path, "np") as file:
        return (file.metadata() or {}).get(FACTS, "")


def _write_parquet(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    """One row for each layer, frame of a layer or of codes; or for a file of tokens.

    A folder of them reads as one table, so every row repeats the path of its audio.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, pa.Array] = {}
    if "tokens" in arrays:
        columns["tokens"] = pa.array([arrays["tokens"]], pa.list_(pa.int32()))
    elif "codes" in arrays:
        columns["frame"] = pa.array(np.arange(len(arrays["codes"]), dtype=np.int32))
        columns["codes"] = _vectors_column(arrays["codes"])
    else:
        layers, embedding = arrays["layers"], arrays["embedding"]
        frames = embedding.shape[1] if "times" in arrays else 1
        columns["layer"] = pa.array(np.repeat(layers, frames))
        if "times" in arrays:
            columns["time"] = pa.array(np.tile(arrays["times"], len(layers)))
        embedding = embedding.reshape(-1, embedding.shape[-1])
        columns["embedding"] = _vectors_column(embedding)
    rows = len(next(iter(columns.values())))
    name = json.loads(facts)["path"].encode("utf-8", "replace").decode()
    columns = {"path": pa.array([name] * rows, pa.string()), **columns}
    pq.write_table(
        pa.table(columns).replace_schema_metadata({FACTS.encode(): facts}), path
    )


def _parquet_facts(path: Path) -> str:
    import pyarrow.parquet as pq

    return (pq.read_schema(path).metadata or {}).get(FACTS.encode(), b"").decode()


def _vectors_column(rows: np.ndarray) -> pa.Array:
    """A column of vectors of one size."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


# How each format is written, and its facts read.
FORMATS = {
    "npz": (_write_npz, _npz_facts),
    "safetensors": (_write_safetensors, _safetensors_facts),
    "parquet": (_write_parquet, _parquet_facts),
}
