"""How long a query of an index takes, and the first one after a change.

    python benchmarks/index.py 20000 100000 300000

The vectors are random: exact search compares with all of them, whatever they are. Set
OMP_NUM_THREADS to the number of cores that a query may use.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable

import numpy as np

from muq_plugins.inference.index import MusicIndex
from muq_plugins.inference.index.store import Store, create

WIDTH = 512  # of the latents of MuQ-MuLan
QUERIES = 50


def fill(store: Store, count: int) -> None:
    """Puts files into an empty index at once, not one after another as they come."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors.tofile(store.folder / store._fact("vectors"))
    with store._changing() as (connection, revision):
        connection.executemany(
            "INSERT INTO files (path, bytes, modified, duration, checksum, row,"
            " revision) VALUES (?, 0, 0, 200, ?, ?, ?)",
            (
                (f"/music/{row}.flac".encode(), zlib.crc32(vector), row, revision)
                for row, vector in enumerate(vectors)
            ),
        )


def seconds(call: Callable, *arguments: object) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def measure(count: int) -> dict[str, float]:
    """Medians in milliseconds."""
    queries = np.random.default_rng(1).standard_normal((QUERIES, WIDTH))
    with tempfile.TemporaryDirectory() as folder:
        create(folder, "random", "0000", WIDTH, layer=None)
        store = Store(folder)
        fill(store, count)
        start = time.perf_counter()
        index = MusicIndex(folder)
        opened = time.perf_counter() - start
        index.search(queries[0])
        found = [seconds(index.search, query) for query in queries]
        followed, after = [], []
        for number, query in enumerate(queries):
            store.put(f"/new/{number}.flac", 0, 0, 1.0, query.astype(np.float32))
            store.remove([f"/music/{number}.flac"])
            if number % 2:
                followed.append(seconds(index._refresh))
            else:
                after.append(seconds(index.search, query))
    times = {"open": [opened], "query": found, "after": after, "follow": followed}
    return {name: 1000 * statistics.median(some) for name, some in times.items()}


def main() -> None:
    """Prints a row of a Markdown table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=int, nargs="+", help="sizes of the index")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"numpy {np.__version__}, {threads} threads; milliseconds")
    print("| files | open | query | first query after a change | of it to follow |")
    print("|---|---|---|---|---|")
    for count in parser.parse_args().files:
        row = measure(count)
        print(
            f"| {count:,} | {row['open']:.0f} | {row['query']:.1f} | "
            f"{row['after']:.1f} | {row['follow']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
