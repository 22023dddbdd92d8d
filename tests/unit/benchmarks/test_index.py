"""The benchmark of an index measures a real one."""

import importlib.util
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "index.py"


def test_all_times_are_there():
    spec = importlib.util.spec_from_file_location("index_benchmark", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.measure(100)
    assert list(found) == ["open", "query", "after", "follow"]
    assert all(0 < value < 10_000 for value in found.values())
