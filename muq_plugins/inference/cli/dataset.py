"""Audio in columns of tables, as `datasets` keeps it, and vectors beside it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muq_plugins.data.audio import AudioError
from muq_plugins.data.shares import is_own, own_share
from muq_plugins.errors import UserError
from muq_plugins.files import atomic
from muq_plugins.inference.cli.options import report_problems, say
from muq_plugins.inference.cli.outputs import FACTS, is_current, read_facts, source_of

if TYPE_CHECKING:  # pyarrow is optional
    import pyarrow as pa

VECTORS = "embedding"
ROWS_AT_ONCE = 64
SUFFIXES = (".parquet", ".arrow")


def find_tables(sources: list[str], column: str, out: str) -> dict[Path, Path]:
    """The tables of files and folders, by the place of their outputs."""
    found: dict[Path, Path] = {}
    for source in map(Path, sources):
        paths = sorted(source.rglob("*")) if source.is_dir() else [source]
        tables = [path for path in paths if path.suffix in SUFFIXES and path.is_file()]
        if not tables:
            raise UserError(
                f"{source} holds no tables: with --dataset give parquet or arrow "
                f"files, or a folder of them, such as one of Dataset.save_to_disk."
            )
        top = source if source.is_dir() else source.parent
        for path in tables:
            target = Path(out, path.relative_to(top)).with_suffix(".parquet")
            first = found.setdefault(target, path)
            if first != path or target.resolve() == path.resolve():
                raise UserError(
                    f"The vectors of {path} would take the place of those of {first}, "
                    f"or of the table itself: give another --out."
                )
    for path in found.values():
        schema = _schema(path)
        names = schema.names
        if column not in names:
            raise UserError(
                f"{path} has no column {column}, but {', '.join(names)}: give one of "
                f"them with --dataset."
            )
        if not _may_be_audio(kind := schema.field(column).type):
            raise UserError(
                f"The column {column} of {path} is {kind}, which is no audio: give one "
                f"of paths or bytes, or of a struct of both, with --dataset."
            )
        if VECTORS in names:
            raise UserError(f"{path} has a column {VECTORS} already: rename it.")
    return found


def embed_tables(
    tables: dict[Path, Path],
    column: str,
    embed: Callable[[str], np.ndarray],
    width: int,
    facts: dict[str, Any],
    overwrite: bool,
) -> int:
    """Writes each table again, with vectors in the place of its audio.

    What cannot be heard has none, and is listed; 1 if there is such audio. Of a table
    that is there with the same facts, only that is tried again, unless the table has
    changed. Of several processes each writes its share, see `is_own`.
    """
    problems: list[str] = []
    facts = {**facts, "column": column}
    for target, path in tables.items():
        if not is_own(target.name):
            continue
        known: Iterator[list[float] | None] = repeat(None)
        if target.exists() and not overwrite:
            there = read_facts(target)
            if {**there, "source": None} != {**facts, "source": None}:
                raise UserError(
                    f"{target} was made otherwise. Give another --out, or --overwrite "
                    f"to make it again."
                )
            if is_current(target, there, path):
                if None not in _vectors(target):
                    say(f"{target}: was there already.")
                    continue
                known = _vectors(target)
        own = {**facts, "source": source_of(path)}
        rows = _write(path, target, column, embed, width, own, known, problems)
        say(f"{target}: {rows} rows.")
    return report_problems("Could not be used:", problems, own_share()[1])


def _write(
    path: Path,
    target: Path,
    column: str,
    embed: Callable[[str], np.ndarray],
    width: int,
    facts: dict[str, Any],
    known: Iterator[list[float] | None],
    problems: list[str],
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = _schema(path).remove_metadata()
    kept = kept.remove(kept.get_field_index(column))
    schema = kept.append(pa.field(VECTORS, pa.list_(pa.float32(), width)))
    schema = schema.with_metadata({FACTS: json.dumps(facts)})
    rows = 0
    with atomic(target) as partial, pq.ParquetWriter(partial, schema) as writer:
        for batch in _batches(path):
            vectors = []
            for value in batch.column(column).to_pylist():
                try:
                    vectors.append(
                        next(known, None)
                        or _embed_value(value, embed, path.parent).tolist()
                    )
                except AudioError as error:
                    vectors.append(None)
                    problems.append(f"{path}, row {rows + len(vectors) - 1}: {error}")
            columns = [batch.column(name) for name in kept.names]
            columns.append(pa.array(vectors, schema.field(VECTORS).type))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            rows += len(vectors)
    return rows


def _embed_value(
    value: Any, embed: Callable[[str], np.ndarray], folder: Path
) -> np.ndarray:
    """The vector of audio as datasets keeps it: bytes, a path, or both."""
    if not isinstance(value, dict):
        value = {"path": value} if isinstance(value, str) else {"bytes": value}
    content, name = value.get("bytes"), value.get("path") or ""
    if content is None:
        if not name:
            raise AudioError("(no path)", "missing", "neither bytes nor a path")
        return embed(os.path.join(folder, name))
    # Its own name tells what it is, where the bytes do not.
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, Path(name).name or "audio")
        file.write_bytes(content)
        return embed(str(file))


def _vectors(table: Path) -> Iterator[list[float] | None]:
    """The vectors that have been written; None of what could not be heard."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(table).iter_batches(ROWS_AT_ONCE, columns=[VECTORS]):
        yield from batch.column(0).to_pylist()


def _may_be_audio(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold paths, bytes, or both."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return not {"bytes", "path"}.isdisjoint(field.name for field in kind)
    texts = types.is_string, types.is_large_string, types.is_string_view
    content = types.is_binary, types.is_large_binary, types.is_binary_view
    return any(is_one(kind) for is_one in (*texts, *content))


def _schema(path: Path) -> pa.Schema:
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return _readable(path, lambda: pq.read_schema(path))
    return _readable(path, lambda: _open_arrow(path).schema)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        yield from pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE)
        return
    reader = _open_arrow(path)
    count = getattr(reader, "num_record_batches", None)
    whole = reader if count is None else map(reader.get_batch, range(count))
    for batch in whole:
        for start in range(0, len(batch), ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _open_arrow(path: Path) -> Any:
    """A stream, as datasets writes them, or a file of Arrow."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source)


def _readable(path: Path, read: Callable[[], Any]) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no readable table ({error}).") from error
