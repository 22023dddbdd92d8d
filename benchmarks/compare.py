"""Measures this package beside the official one, in one run.

    python benchmarks/compare.py            # the released size: an hour on two cores
    python benchmarks/compare.py --quick    # a small model, under a minute
    python benchmarks/compare.py --device cuda

The official package gets an environment of its own, which is built once and kept in a
cache. Each side is a process that stays alive; they compute in turn, never at the same
time. What other programs do on the machine is in the numbers: leave it alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from environment import default_cache, official_python
from measure import Environment, Workers, measure_memory, measure_time
from protocol import WorkerError
from table import markdown

from muq_plugins.evaluation.study.collect import cpu_name

HERE = Path(__file__).parent
PARTS = ("inference", "training", "tokenizers")
PRECISIONS = ("fp32", "bf16")
MAX_TRAINING_SECONDS = 60
TOKENIZER_SECONDS = 30
# A single clip leaves most of a GPU idle.
BATCH = {"cpu": 1, "cuda": 8}
MAX_BATCHED_SECONDS = 60


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small model, short clips, few repeats")
    add("--clips", type=float, nargs="+", help="seconds [10 30 300, quick: 2]")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where")
    add("--threads", type=int, default=torch.get_num_threads(), help="on a CPU")
    add("--repeats", type=int, help="turns of each side [5, quick: 3]")
    add("--batch", type=int, help="clips at a time, but 1 beyond a minute [1, GPU: 8]")
    add("--compile", action="store_true", help="torch.compile as well; always on GPU")
    add("--official-python", help="interpreter that has the package; none: without it")
    add("--cache", type=Path, default=default_cache(), help="for the environment")
    add("--out", type=Path, default=Path("results/benchmark"), help="for the report")
    settings = parser.parse_args(argv)
    quick = settings.quick
    settings.clips = settings.clips or ([2.0] if quick else [10.0, 30.0, 300.0])
    settings.repeats = settings.repeats or (3 if quick else 5)
    settings.batch = settings.batch or BATCH[settings.device]
    settings.compile |= settings.device == "cuda"
    settings.size = "quick" if quick else "released"
    return settings


def tasks(settings: argparse.Namespace) -> list[dict[str, Any]]:
    """Lists what is measured."""
    wanted: list[tuple[str, str, float]] = []
    for kind in ("inference", "training"):
        if kind in settings.parts:
            wanted += [
                (kind, precision, seconds)
                for seconds in settings.clips
                for precision in PRECISIONS
                if kind == "inference" or seconds <= MAX_TRAINING_SECONDS
            ]
    if "tokenizers" in settings.parts:
        seconds = min(TOKENIZER_SECONDS, max(settings.clips))
        kinds = ("mel_rvq_from_mel", "mel_rvq_from_wavs")
        kinds += ("random_projection", "encodec_from_wavs")
        wanted += [(kind, "fp32", seconds) for kind in kinds]
    return [
        {
            "kind": kind,
            "precision": precision,
            "seconds": seconds,
            "batch": settings.batch if seconds <= MAX_BATCHED_SECONDS else 1,
        }
        for kind, precision, seconds in wanted
    ]


def sides(kind: str, environments: dict[str, Environment]) -> list[str]:
    """Chooses who is measured, in the order of their turns."""
    if kind in ("random_projection", "encodec_from_wavs"):
        return ["others", "ours"]
    names = ["official", "ours"]
    if kind in ("inference", "training"):
        names.append("compiled")
    return [name for name in names if name in environments]


def describe_machine(settings: argparse.Namespace) -> dict[str, Any]:
    """Says where and when this runs."""
    gpu = torch.cuda.get_device_name() if settings.device == "cuda" else None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "threads": settings.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "load": os.getloadavg()[0],
        "size": settings.size,
    }


def main(argv: list[str]) -> None:
    """Measures, and writes ``results.json`` and ``table.md``."""
    settings = parse(argv)
    settings.out.mkdir(parents=True, exist_ok=True)
    ours = HERE / "worker_ours.py"
    environments = {
        "ours": Environment(sys.executable, ours),
        "others": Environment(sys.executable, HERE / "worker_others.py"),
    }
    if settings.official_python != "none":
        python = settings.official_python or official_python(settings.cache)
        environments["official"] = Environment(python, HERE / "worker_official.py")
    if settings.compile:
        environments["compiled"] = Environment(sys.executable, ours, compiled=True)
    report = {"machine": describe_machine(settings), "rates": {}, "rows": []}
    if report["machine"]["load"] > 0.5:
        load = report["machine"]["load"]
        print(f"the machine is busy (load {load:.1f}): expect noise", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(
            environments,
            Path(folder),
            settings.out,
            settings.size,
            settings.device,
            settings.threads,
        )
        try:
            measure_all(settings, workers, report)
        finally:
            workers.stop()
    print(markdown(report))


def measure_all(
    settings: argparse.Namespace, workers: Workers, report: dict[str, Any]
) -> None:
    """Fills the report row by row; what is measured is saved at once."""
    if "official" in workers.environments:
        workers.ask("official", "release")  # it loads first, and saves the weights
    for precision in PRECISIONS:
        report["rates"][precision] = workers.ask("ours", "rate", precision=precision)
    for task in tasks(settings):
        names = sides(task["kind"], workers.environments)
        row = measure_time(workers, task, names, settings.repeats)
        if task["kind"] in PARTS:
            row["flops"] = workers.ask("ours", "flops", task=task)
        report["rows"].append(row)
        save(settings.out, report)
        times = ", ".join(
            f"{name} {side.get('seconds', side.get('fails'))}"
            for name, side in row["sides"].items()
        )
        print(f"{task} {times}", file=sys.stderr)
    for row in report["rows"]:
        task = row["task"]
        # A quick run shows that it works, and that once is enough.
        if task["kind"] not in PARTS or (
            settings.quick and task["precision"] != "fp32"
        ):
            continue
        for name, side in row["sides"].items():
            # On a CPU the compiler's own memory would be measured.
            if name != "compiled" or settings.device == "cuda":
                side |= measure_memory(workers, task, name)
            save(settings.out, report)


def save(folder: Path, report: dict[str, Any]) -> None:
    """Writes the report."""
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    (folder / "table.md").write_text(markdown(report), "utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (RuntimeError, WorkerError) as error:
        sys.exit(f"error: {error}")
