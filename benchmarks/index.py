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
from collections.abc import Callable

import numpy as np

from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.index.store import Store, create
from muq_plugins.inference.space import latent_space

WIDTH = 512  # of the latents of MuQ-MuLan
QUERIES = 50
# Files come one after another, and a disk would be waited for each time.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
COLUMNS = {
    "open": "open",
    "query": "query",
    "after": "first query after a change",
    "follow": "of it to follow the change",
}


def milliseconds(call: Callable, *arguments: object) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - start)


def measure(count: int) -> dict[str, float]:
    """Medians in milliseconds, by the keys of `COLUMNS`."""
    random = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in COLUMNS}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        create(folder, "random", latent_space("0000"), WIDTH)
        store = Store(folder)
        for number in range(count):
            vector = random.standard_normal(WIDTH, dtype=np.float32)
            store.put(f"/music/{number}.flac", 0, 0, 200.0, vector)
        times["open"].append(milliseconds(MusicIndex, folder))
        index = MusicIndex(folder)
        queries = random.standard_normal((QUERIES, WIDTH), dtype=np.float32)
        times["query"] += [milliseconds(index.search, query) for query in queries]
        for number, query in enumerate(queries):
            before = store.news("", -1)
            store.put(f"/new/{number}.flac", 0, 0, 1.0, query)
            store.remove([f"/music/{number}.flac"])
            times["follow"].append(
                milliseconds(store.news, before.name, before.revision)
            )
            times["after"].append(milliseconds(index.search, query))
    return {name: statistics.median(some) for name, some in times.items()}


def main() -> None:
    """Prints a row of a Markdown table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=int, nargs="+", help="sizes of the index")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    counts = parser.parse_args().files
    print(f"numpy {np.__version__}, {threads} threads; milliseconds")
    print(f"| files | {' | '.join(COLUMNS.values())} |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for count in counts:
        row = [f"{count:,}", *(f"{value:.1f}" for value in measure(count).values())]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
