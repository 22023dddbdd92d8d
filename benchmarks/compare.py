"""Measures this package beside the official one, in one run.

    python benchmarks/compare.py            # the released size: an hour on two cores
    python benchmarks/compare.py --quick    # a small model, a few minutes
    python benchmarks/compare.py --device cuda

The official package gets an environment of its own, which is built once and kept in a
cache. Each side is a process; they compute in turn, never at the same time. What other
programs do on the machine is in the numbers: leave it alone. Ratios differ from
processor to processor: tell which one they are of.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from environment import default_cache, official_python

from muq_plugins.evaluation.study.collect import cpu_name

SIDE = Path(__file__).with_name("side.py")
PARTS = ("inference", "training", "tokenizers")
TOKENIZERS = {
    "mel_rvq_from_mel": "official",
    "mel_rvq_from_wavs": "official",
    "random_projection": "others",  # that of SpeechBrain
    "encodec_from_wavs": "others",  # beside our Mel-RVQ
}
INT8_TASK = ("inference", "fp32")  # the precision of what it leaves in floats
LONG_CLIP = 60  # seconds: no training beyond, and no batches
CALL_SECONDS = 0.2  # a shorter call is repeated, so that the clock does not matter
LONG_CALL = 20.0  # a longer one needs no more than three turns


class Failure(RuntimeError):
    """A side cannot compute a task; the message says why in one line."""


class Process:
    """A side that waits to be asked."""

    def __init__(self, python: str, name: str, task: dict, folder: Path, log: Path):
        # Threads of a side that waits must not take time from the one that computes.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "TQDM_DISABLE": "1"}
        environment["OMP_NUM_THREADS"] = str(task["threads"])
        if python != sys.executable:  # which imports nothing of ours
            environment.pop("PYTHONPATH", None)
        self.log = log / f"{name}.log"
        with self.log.open("a", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [python, str(SIDE), name, json.dumps(task), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def answer(self) -> dict[str, Any]:
        """The next line that it says."""
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            killed = " (killed, most likely out of memory)" if status == -9 else ""
            raise Failure(f"ended with status {status}{killed}, see {self.log}")
        reply = json.loads(line)
        if "fails" in reply:
            raise Failure(reply["fails"])
        return reply

    def time(self, calls: int) -> float:
        """Seconds of a call."""
        with contextlib.suppress(BrokenPipeError):  # `answer` says more
            print(calls, file=self.process.stdin, flush=True)
        return self.answer()["seconds"]

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def measure(
    task: dict[str, Any], pythons: dict[str, str], folder: Path, log: Path, repeats: int
) -> dict[str, dict[str, Any]]:
    """Measures a task on all sides, which take turns; the first is the reference."""
    sides: dict[str, dict[str, Any]] = {name: {} for name in pythons}
    waiting: dict[str, tuple[Process, int]] = {}
    (folder / "masking.pt").unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        for name, python in pythons.items():
            process = Process(python, name, task, folder, log)
            stack.callback(process.close)
            try:
                first = process.answer()
            except Failure as failure:
                sides[name]["fails"] = str(failure)
                continue
            waiting[name] = process, math.ceil(CALL_SECONDS / first["first"])
            # On a CPU it would be the memory of the compiler.
            if name != "compiled" or task["device"] == "cuda":
                sides[name]["bytes"] = first["bytes"]
            sides[name]["times"] = []
            repeats = min(repeats, 3) if first["first"] > LONG_CALL else repeats
        for _ in range(repeats):
            for name, (process, calls) in list(waiting.items()):
                try:
                    sides[name]["times"].append(process.time(calls))
                except Failure as failure:
                    sides[name] = {"fails": str(failure)}
                    del waiting[name]
    compare_results(task, sides, list(waiting), folder)
    return sides


def compare_results(
    task: dict[str, Any], sides: dict[str, dict], measured: list[str], folder: Path
) -> None:
    """Adds seconds, rates and differences from the first side in float32."""
    kept = folder / f"{task['kind']}_{task['seconds']:g}_fp32"
    reference = next(iter(sides))
    found = {name: torch.load(folder / f"{name}.pt") for name in measured}
    if reference in found and task["precision"] == "fp32":
        torch.save(found[reference], kept)
    expected = torch.load(kept) if kept.exists() else {}
    for name, tensors in found.items():
        differences = [
            difference(tensors[key], tensor)
            for key, tensor in expected.items()
            if tensors[key].shape == tensor.shape
        ]
        side = sides[name]
        if differences and (name != reference or task["precision"] != "fp32"):
            side["difference"] = max(differences)
        work = task["batch"] * task["seconds"]
        if "codes" in tensors:
            work = tensors["codes"].numel()
        side["seconds"] = statistics.median(side["times"])
        side["per_second"] = work / side["seconds"]


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of differing codes; for other numbers the relative difference."""
    if not expected.is_floating_point():
        return (found != expected).double().mean().item()
    found, expected = found.double(), expected.double()
    return ((found - expected).norm() / expected.norm()).item()


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    titles = ["what", "precision", "clips", "side", "seconds", "audio or codes per s"]
    titles += ["times the first", "memory, MiB", "difference"]
    rows = [titles, ["---"] * len(titles)]
    for row in report["rows"]:
        task, sides = row["task"], row["sides"]
        first = next(iter(sides.values())).get("per_second", math.nan)
        for name, side in sides.items():
            what = [task["kind"], task["precision"]]
            cells = [*what, f"{task['batch']} x {task['seconds']:g} s", name]
            if "fails" in side:
                cells += [f"fails: {side['fails']}".replace("|", "/"), *["-"] * 4]
            else:
                rate, bytes_ = side["per_second"], side.get("bytes", math.nan)
                cells += [f"{side['seconds']:.3g}", f"{rate:,.0f}"]
                cells += [f"{rate / first:.2f}", f"{bytes_ / 2**20:,.0f}"]
                cells.append(f"{side.get('difference', math.nan):.1g}")
            rows.append([cell.replace("nan", "-") for cell in cells])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    return f"""{machine}

{table}

Times are medians of repeats taken in turn; memory is the peak beside the loaded model.
Differences are relative, from the first side in fp32: of the last hidden state for
inference, the larger of those of loss and gradient of the first layer for training, the
share of differing codes for tokenizers. Ratios are those of this kind of processor.
"""


def tasks(settings: argparse.Namespace) -> list[dict[str, Any]]:
    """What is measured."""
    wanted = [
        (kind, precision, seconds)
        for kind in ("inference", "training")
        for seconds in settings.clips
        for precision in ("fp32", "bf16")
        if kind in settings.parts and (kind == "inference" or seconds <= LONG_CLIP)
    ]
    if "tokenizers" in settings.parts:
        wanted += [(kind, "fp32", min(30, max(settings.clips))) for kind in TOKENIZERS]
    shared = {"device": settings.device, "threads": settings.threads}
    shared["size"] = "quick" if settings.quick else "released"
    return [
        {"kind": kind, "precision": precision, "seconds": seconds, **shared}
        | {"batch": settings.batch if seconds <= LONG_CLIP else 1}
        for kind, precision, seconds in wanted
    ]


def parse(argv: list[str] | None) -> argparse.Namespace:
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
    add("--int8", action="store_true", help="inference in int8 as well, on a CPU")
    add("--official-python", help="interpreter that has the package; none: without it")
    add("--cache", type=Path, default=default_cache(), help="for the environment")
    add("--out", type=Path, default=Path("results/benchmark"), help="for the report")
    settings = parser.parse_args(argv)
    on_gpu, quick = settings.device == "cuda", settings.quick
    settings.clips = settings.clips or ([2.0] if quick else [10.0, 30.0, 300.0])
    settings.repeats = settings.repeats or (3 if quick else 5)
    settings.batch = settings.batch or (8 if on_gpu else 1)
    settings.compile |= on_gpu
    return settings


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes ``results.json`` and ``table.md`` after each task."""
    settings = parse(argv)
    settings.out.mkdir(parents=True, exist_ok=True)
    own = dict.fromkeys(("others", "ours", "compiled", "int8"), sys.executable)
    pythons = {"official": settings.official_python, **own}
    if not settings.official_python:
        pythons["official"] = official_python(settings.cache)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): expect noise", file=sys.stderr)
    machine = {
        "processor": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "GPU": torch.cuda.get_device_name() if settings.device == "cuda" else None,
        "threads": settings.threads,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "load": load,
    }
    report: dict[str, Any] = {"machine": machine, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(settings):
            names = [TOKENIZERS.get(task["kind"], "official"), "ours"]
            if settings.compile and task["kind"] not in TOKENIZERS:
                names.append("compiled")
            if settings.int8 and (task["kind"], task["precision"]) == INT8_TASK:
                names.append("int8")
            if settings.official_python == "none":
                names = [name for name in names if name != "official"]
            some = {name: pythons[name] for name in names}
            sides = measure(task, some, Path(folder), settings.out, settings.repeats)
            report["rows"].append({"task": task, "sides": sides})
            content = json.dumps(report, indent=1) + "\n"
            (settings.out / "results.json").write_text(content, "utf-8")
            (settings.out / "table.md").write_text(markdown(report), "utf-8")
            print(task, sides, file=sys.stderr)
    print(markdown(report))


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
