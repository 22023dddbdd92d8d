"""Measures tasks in several environments, one call here, one call there."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from protocol import Worker, WorkerError
from torch import Tensor

Task = dict[str, Any]
Row = dict[str, Any]

# A call that is shorter is repeated, so that the clock does not matter.
CALL_SECONDS = 0.2
# Calls that are longer need no more than three repeats.
LONG_SECONDS = 20.0
LONG_REPEATS = 3


@dataclass
class Environment:
    """How a worker is started."""

    python: str  # interpreter
    script: Path  # the worker
    compiled: bool = False  # whether it uses ``torch.compile``


class Workers:
    """The workers of one run, started when they are needed first."""

    def __init__(
        self,
        environments: dict[str, Environment],
        folder: Path,
        logs: Path,
        size: str,
        device: str,
        threads: int,
    ):
        self.environments = environments
        self.folder = folder
        self.logs = logs
        self.settings = {"size": size, "device": device, "threads": threads}
        self._running: dict[str, Worker] = {}

    def ask(self, name: str, order: str, **arguments: Any) -> Any:
        """Gives an order to a worker; see `Worker.ask`."""
        try:
            if name not in self._running:
                self._start(name)
            return self._running[name].ask(order, **arguments)
        except WorkerError:
            if name in self._running and not self._running[name].alive:
                self._running.pop(name).stop()
            raise

    def stop(self) -> None:
        """Ends all processes; the next orders start new ones."""
        while self._running:
            self._running.popitem()[1].stop()

    def _start(self, name: str) -> None:
        """Starts a worker and loads its model."""
        environment = self.environments[name]
        log = self.logs / f"{name}.log"
        worker = Worker(
            environment.python, environment.script, log, self.settings["threads"]
        )
        self._running[name] = worker
        worker.ask("load", folder=str(self.folder), **self.settings)
        if environment.compiled:
            worker.ask("compile")


def measure_time(workers: Workers, task: Task, names: list[str], repeats: int) -> Row:
    """Measures a task in several environments, in turn, and compares the results."""
    sides: dict[str, dict[str, Any]] = {name: {} for name in names}
    calls: dict[str, int] = {}
    results: dict[str, dict[str, Tensor]] = {}
    for name in names:
        path = workers.folder / f"result_{name}.pt"
        try:
            workers.ask(name, "prepare", task=task, result=str(path))
            first = workers.ask(name, "time", calls=1)
        except WorkerError as error:
            sides[name]["fails"] = str(error)
            continue
        results[name] = torch.load(path)
        path.unlink()
        calls[name] = max(1, math.ceil(CALL_SECONDS / first))
        sides[name]["times"] = []
        if first > LONG_SECONDS:
            repeats = min(repeats, LONG_REPEATS)
    for _ in range(repeats):
        for name in list(calls):
            try:
                seconds = workers.ask(name, "time", calls=calls[name])
                sides[name]["times"].append(seconds)
            except WorkerError as error:
                del calls[name]
                sides[name] = {"fails": str(error)}
    for name in calls:
        workers.ask(name, "release")
        sides[name]["seconds"] = statistics.median(sides[name]["times"])
        if "codes" in results[name]:
            sides[name]["tokens"] = results[name]["codes"].numel()
    return {
        "task": task,
        "sides": sides,
        "differences": compare_results(workers.folder, task, names[0], results),
    }


def compare_results(
    folder: Path, task: Task, reference: str, results: dict[str, dict[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """Compares each result with that of the reference, in float32 where there
    is one.
    """
    path = folder / f"fp32_{task['kind']}_{task['seconds']:g}.pt"
    if task["precision"] == "fp32" and reference in results:
        torch.save(results[reference], path)
    if not path.exists():
        return {}
    expected = torch.load(path)
    return {
        name: {
            key: relative_difference(tensors[key], tensor)
            for key, tensor in expected.items()
            if tensors[key].shape == tensor.shape
        }
        for name, tensors in results.items()
        if name != reference or task["precision"] != "fp32"
    }


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The difference of two results as one number."""
    if not expected.is_floating_point():
        return (found != expected).double().mean().item()
    found, expected = found.double(), expected.double()
    return ((found - expected).norm() / expected.norm()).item()


def measure_memory(workers: Workers, task: Task, name: str) -> dict[str, Any]:
    """Measures the peak memory of a task, in a process of its own."""
    workers.stop()
    try:
        workers.ask(name, "prepare", task=task)
        return {"bytes": workers.ask(name, "memory")}
    except WorkerError as error:
        return {"memory_fails": str(error)}
    finally:
        workers.stop()
