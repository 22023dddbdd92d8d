"""The benchmark of a GPU, tried on the processor."""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tiny_run_fills_every_row(gpu, tmp_path):
    gpu.main([str(tmp_path / "new" / "out.json"), "--tiny"])
    rows = json.loads((tmp_path / "new" / "out.json").read_text())
    assert [row["what"] for row in rows] == [
        *("machine", "difference", *["inference"] * 3, *["training"] * 3, "target")
    ]
    assert not any("failed" in row or "left_out" in row for row in rows)
    assert rows[1]["float32"] == 0 < rows[1]["bfloat16"] < 0.1
    assert all(row["audio_per_second"] > 0 for row in rows[2:])


def test_rows_that_fail_or_come_too_late_say_so(gpu, tmp_path):
    def refuse(clips):
        raise RuntimeError("no\nmemory")

    bench = gpu.Bench(tmp_path / "out.json", tiny=True, seconds=60)
    bench.measure(refuse, clips=3)
    bench.end = 0
    bench.measure(refuse, clips=4)
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"what": "refuse", "clips": 3, "failed": "RuntimeError: no memory"},
        {"what": "refuse", "clips": 4, "left_out": "no time left"},
    ]
