"""Output files: facts and arrays in npz, safetensors or parquet.

Every format holds the same: ``facts``, a JSON object that says what was computed from
what, and named arrays. A file is complete or not there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from muq_plugins.inference.commands.options import FORMATS, CommandError

FACTS = "facts"


class RecordError(ValueError):
    """An output file that cannot be read."""


@dataclass
class Record:
    """What one output file holds."""

    # what was computed from what, as JSON can hold it. Empty if the file was not made
    # by this command
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]  # name to numpy array


def check_format(name: str) -> None:
    """Refuses a format whose package is not installed, before any work."""
    if name == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise CommandError(
            "Parquet needs pyarrow, which is not installed: run `pip install pyarrow`, "
            "or choose --format npz or safetensors."
        )


def write_record(path: str | Path, record: Record) -> None:
    """Writes an output file; it is complete or not there."""
    path = Path(path)
    # Hidden, and of this process: two that share a folder must not mix their bytes.
    temporary = path.with_name(f".{os.getpid()}.unfinished")
    arrays = {
        name: np.ascontiguousarray(array) for name, array in record.arrays.items()
    }
    # ASCII: names of files that are not UTF-8 have no other way to be written.
    facts = json.dumps(record.facts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _WRITERS[_format(path)](temporary, facts, arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written ({error.strerror or error}). What is done "
            f"stays: with the cause removed, the same command goes on.",
            code=1,
        ) from error


def read_record(path: str | Path) -> Record:
    """Reads an output file."""
    return _read(path, with_arrays=True)


def read_facts(path: str | Path) -> dict[str, Any]:
    """Reads what an output file says about itself, without its arrays."""
    return _read(path, with_arrays=False).facts


def find_records(folder: str | Path) -> list[Path]:
    """Finds the output files of a folder tree."""
    return sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix[1:] in FORMATS and path.name[0] != "."
    )


def _format(path: Path) -> str:
    return path.suffix[1:]


def _read(path: str | Path, with_arrays: bool) -> Record:
    path = Path(path)
    check_format(_format(path))
    try:
        facts, arrays = _READERS[_format(path)](path, with_arrays)
        return Record(json.loads(facts) if facts else {}, arrays)
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise RecordError(f"{path} is damaged ({error}).") from error


def _write_npz(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add .npz to it
        np.savez(file, **{FACTS: np.array(facts)}, **arrays)


def _read_npz(path: Path, with_arrays: bool) -> tuple[str, dict[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as file:
        facts = str(file[FACTS]) if FACTS in file else ""
        names = [name for name in file.files if name != FACTS]
        return facts, {name: file[name] for name in names} if with_arrays else {}


def _write_safetensors(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    save_file(arrays, path, metadata={FACTS: facts})


def _read_safetensors(
    path: Path, with_arrays: bool
) -> tuple[str, dict[str, np.ndarray]]:
    with safe_open(path, "np") as file:
        facts = (file.metadata() or {}).get(FACTS, "")
        names = file.keys() if with_arrays else []
        return facts, {name: file.get_tensor(name) for name in names}


def _write_parquet(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    from muq_plugins.inference.commands import parquet

    parquet.write(path, facts, arrays)


def _read_parquet(path: Path, with_arrays: bool) -> tuple[str, dict[str, np.ndarray]]:
    from muq_plugins.inference.commands import parquet

    return parquet.read(path, with_arrays)


_WRITERS = {
    "npz": _write_npz,
    "safetensors": _write_safetensors,
    "parquet": _write_parquet,
}
_READERS = {
    "npz": _read_npz,
    "safetensors": _read_safetensors,
    "parquet": _read_parquet,
}
