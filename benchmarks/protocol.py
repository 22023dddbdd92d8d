"""How the benchmark talks to its workers: one line of JSON out, one line back.

Nothing but the standard library, because both environments import this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

MAX_REASON = 160  # characters of an error that stand in the table


class WorkerError(RuntimeError):
    """A worker could not carry out an order; the message says why, in one line."""


class Worker:
    """A process that keeps a model loaded and computes only when it is told to."""

    def __init__(self, python: str, script: Path, log: Path, threads: int):
        self.log = log
        # Threads of a worker that waits must not take time from the one that computes.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        environment |= {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
        # Nothing of one environment may be imported by the other.
        environment.pop("PYTHONPATH", None)
        with log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def ask(self, order: str, **arguments: Any) -> Any:
        """Gives an order and waits until it is carried out."""
        line = json.dumps({"order": order, "arguments": arguments})
        answer = ""
        # A broken pipe says no more than the end of the answers does.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            raise WorkerError(
                f"the process ended with status {status}"
                + (" (killed, most likely out of memory)" if status == -9 else "")
                + f", see {self.log.name}"
            )
        reply = json.loads(answer)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["result"]

    @property
    def alive(self) -> bool:
        """Whether the process takes orders."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(worker: object) -> None:
    """Carries out the orders of a `Worker` until there are no more."""
    # Libraries print; their words must not come between the lines of JSON.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            result = getattr(worker, order["order"])(**order["arguments"])
            reply = {"result": result}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": _in_one_line(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def _in_one_line(error: Exception) -> str:
    """Kind and beginning of an error."""
    text = " ".join(str(error).split())
    short = text if len(text) <= MAX_REASON else text[:MAX_REASON] + "..."
    return f"{type(error).__name__}: {short}"
