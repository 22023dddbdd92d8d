"""Output files as parquet tables, for those who look at embeddings with a data frame.

One file for each audio file. A folder of them reads as one table, for example with
``pandas.read_parquet(folder)``, which is why every row repeats the path of its audio.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # pyarrow is optional
    import pyarrow as pa

FACTS = b"facts"


def write(path: Path, facts: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, pa.Array] = {}
    if "codes" in arrays:
        columns["frame"] = pa.array(np.arange(len(arrays["codes"]), dtype=np.int32))
        columns["codes"] = _vectors(arrays["codes"])
    else:
        layers, embedding = arrays["layers"], arrays["embedding"]
        frames = embedding.shape[1] if "times" in arrays else 1
        columns["layer"] = pa.array(np.repeat(layers, frames))
        if "times" in arrays:
            columns["time"] = pa.array(np.tile(arrays["times"], len(layers)))
        columns["embedding"] = _vectors(embedding.reshape(-1, embedding.shape[-1]))
    rows = len(next(iter(columns.values())))
    name = json.loads(facts)["path"].encode("utf-8", "replace").decode()
    columns = {"path": pa.array([name] * rows, pa.string()), **columns}
    pq.write_table(pa.table(columns).replace_schema_metadata({FACTS: facts}), path)


def read(path: Path, with_arrays: bool) -> tuple[str, dict[str, np.ndarray]]:
    """Reads one file."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    facts = (schema.metadata or {}).get(FACTS, b"").decode()
    if not facts or not with_arrays:
        return facts, {}
    # As a single file: below folders named key=value, these would become columns.
    table = pq.ParquetFile(path).read()
    if "codes" in table.column_names:
        return facts, {"codes": _matrix(table["codes"])}
    layer, embedding = table["layer"].to_numpy(), _matrix(table["embedding"])
    layers = np.array(list(dict.fromkeys(layer.tolist())), dtype=layer.dtype)
    arrays = {"layers": layers, "embedding": embedding}
    if "time" in table.column_names:
        arrays["times"] = table["time"].to_numpy()[: len(layer) // len(layers)]
        arrays["embedding"] = embedding.reshape(len(layers), -1, embedding.shape[1])
    return facts, arrays


def _vectors(rows: np.ndarray) -> pa.Array:
    """A column of vectors of one size."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """The inverse of `_vectors`."""
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(column), -1)
