"""Reading back what the commands have written, in every format."""

from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from muq_plugins.inference.cli.outputs import FACTS, read_facts


class Record(NamedTuple):
    facts: dict
    arrays: dict


def read_record(path):
    """The facts and the arrays of an output."""
    read = {"npz": _npz, "safetensors": load_file, "parquet": _parquet}
    return Record(read_facts(path), read[path.suffix[1:]](path))


def _npz(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != FACTS}


def _parquet(path):
    import pyarrow.parquet as pq

    # As a single file: below folders named key=value, these would become columns.
    table = pq.ParquetFile(path).read()
    if "codes" in table.column_names:
        return {"codes": _matrix(table["codes"])}
    layer, embedding = table["layer"].to_numpy(), _matrix(table["embedding"])
    layers = np.array(list(dict.fromkeys(layer.tolist())), dtype=layer.dtype)
    arrays = {"layers": layers, "embedding": embedding}
    if "time" in table.column_names:
        arrays["times"] = table["time"].to_numpy()[: len(layer) // len(layers)]
        arrays["embedding"] = embedding.reshape(len(layers), -1, embedding.shape[1])
    return arrays


def _matrix(column):
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(column), -1)
