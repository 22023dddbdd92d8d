"""What a run writes down while it goes: metrics, time, and files gone bad."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from torch import Tensor

from muq_plugins.brains.loggers import (
    LOGGERS,
    TensorBoard,
    Tracker,
    check_loggers,
    numbers_of,
)
from muq_plugins.brains.processes import gather, rank
from muq_plugins.data.clips import ClipBatch
from muq_plugins.errors import UserError
from muq_plugins.evaluation.run_files import MetricsLog, save_measures
from muq_plugins.files import append_json_line, open_json_lines, read_json_lines
from muq_plugins.lobes.lengths import most_precise
from muq_plugins.lobes.objectives.base import Measure, StageOutput

logger = get_logger(__name__)


class Logbook:
    """Sums up stretches of training and writes a metrics row for each.

    Each process counts for itself until they `agree`; then the first has it all. So
    what a checkpoint keeps means the same for any number of processes.
    """

    def __init__(
        self,
        folder: str | Path,
        stage: str,
        max_bad_fraction: float,
        measures: Mapping[str, Measure],
        loggers: Sequence[str] = (),
    ):
        self.folder, self.stage = Path(folder), stage
        self.logger_names = check_loggers(loggers)
        self.loggers: list[TensorBoard | Tracker] = []  # from the first row on
        self.seconds = 0.0  # of training, over all restarts
        self.heard = 0.0  # seconds of audio, likewise
        self.files = 0  # of all parts, where they are known
        self.row: dict[str, Any] = {}  # the newest, for the progress bar
        if if_main_process():
            self.metrics_log = MetricsLog(Path(folder) / "metrics.jsonl")
            save_measures(folder, measures)
            self.quarantine = QuarantineLog(folder, max_bad_fraction)
        self.start_stretch()

    def start_stretch(self) -> None:
        """Begins a new stretch of updates, which one metrics row will sum up."""
        self.statistics = RunningStatistics()
        self.audio_seconds = 0.0
        self.failures: list[tuple[str, str]] = []
        self.elapsed = 0.0  # before the clock went on
        self._started = time.monotonic()

    def start_clock(self) -> None:
        """Goes on with the stretch that is there, from now on."""
        self._started = time.monotonic() - self.elapsed

    def agree(self) -> None:
        """Gives what all processes have counted to the first of them."""
        self.statistics.reduce()
        counted = gather((self.heard, self.audio_seconds, self.failures))
        heard, seconds, failures = zip(*counted, strict=True)
        self.heard, self.audio_seconds = sum(heard), sum(seconds)
        self.failures = [failure for share in failures for failure in share]
        if rank() > 0:
            self.statistics = RunningStatistics()
            self.heard, self.audio_seconds, self.failures = 0.0, 0.0, []

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, of all processes once they agree."""
        return {
            "seconds": self.seconds,
            "audio_seconds": self.heard,
            "stretch": {
                "seconds": time.monotonic() - self._started,
                "audio_seconds": self.audio_seconds,
                "failures": self.failures,
                "statistics": self.statistics.state(),
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, on however many processes."""
        self.start_stretch()
        self.seconds = state["seconds"]
        if rank() > 0:
            return
        self.heard = state["audio_seconds"]
        if stretch := state.get("stretch"):
            self.elapsed = stretch["seconds"]
            self.audio_seconds = stretch["audio_seconds"]
            self.failures = [tuple(failure) for failure in stretch["failures"]]
            self.statistics.restore(stretch["statistics"])

    def add(self, batch: ClipBatch, output: StageOutput) -> None:
        """Adds a micro-batch to the stretch."""
        self.statistics.add(output)
        self.hear(batch.audio_seconds)
        self.failures += batch.failures

    def hear(self, seconds: float) -> None:
        """Counts audio that was trained on."""
        self.audio_seconds += seconds
        self.heard += seconds

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps what happens in a ``with`` block out of the time of the stretch."""
        began = time.monotonic()
        yield
        self._started += time.monotonic() - began

    def end_stretch(self, files: int) -> tuple[RunningStatistics, float]:
        """Sums up the stretch over all processes and begins the next one."""
        elapsed = time.monotonic() - self._started
        self.seconds += elapsed
        statistics = self.statistics
        statistics.reduce()
        self.report_failures(self.failures, files)
        speed = sum(gather(self.audio_seconds)) / max(elapsed, 1e-9)
        self.start_stretch()
        return statistics, speed

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Writes a metrics row, on the main process."""
        self.row = {
            "kind": kind,
            "stage": self.stage,
            "step": step,
            "time": self.seconds,
            "audio_seconds": round(sum(gather(self.heard)), 3),
            **values,
        }
        if if_main_process():
            if kind == "test":  # measured again, after a kill or by the same command
                told = [(name, self.row[name]) for name in ("kind", "stage", "step")]
                self.metrics_log.drop(lambda row: all(r in row.items() for r in told))
            self.metrics_log.write(self.row)
            # What was logged beyond the checkpoint is logged again.
            again_from = step if kind == "train" else None
            for name in self.logger_names[len(self.loggers) :]:
                opened = LOGGERS[name](self.folder, self.stage, again_from)
                self.loggers.append(opened)
            for opened in self.loggers:
                opened.log(numbers_of(self.row), step)

    def report_failures(self, failures: list[tuple[str, str]], files: int) -> None:
        """Counts files that could not be read, of all processes."""
        failures = [failure for share in gather(failures) for failure in share]
        if if_main_process():
            # What is listed was bad in any part.
            self.quarantine.record(failures, max(self.files, files))

    def forget_after(self, step: int) -> None:
        """Drops the rows beyond the checkpoint from which a run goes on."""
        if if_main_process():
            self.metrics_log.drop(lambda row: row["step"] > step)


class RunningStatistics:
    """Adds up what a stage reports until somebody asks for the means.

    The sums of all processes are added before the division, so a mean is exact
    whatever the share of each process was, and even if a process saw nothing.
    """

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self.totals: dict[str, Tensor] = {}

    def add(self, output: StageOutput) -> None:
        """Adds one batch."""
        for total, new in (
            (self._sums, output.sums),
            (self._weights, output.weights),
        ):
            for name, value in new.items():
                # Double precision: a mean over a million frames keeps its digits.
                value = value.detach().to(most_precise(value.device))
                if name in total:
                    value = value + total[name].to(value.device)
                total[name] = value
        for name, value in output.totals.items():
            value = value.detach()
            if value.is_floating_point():
                value = value.to(most_precise(value.device))
            if name in self.totals:
                value = value + self.totals[name].to(value.device)
            self.totals[name] = value

    def reduce(self) -> None:
        """Adds the sums of all processes; afterwards every process has them all."""
        parts = (self._sums, self._weights, self.totals)
        mine = [
            {name: value.to("cpu", non_blocking=True) for name, value in part.items()}
            for part in parts
        ]
        # All at once, and then one wait.
        if any(value.is_cuda for part in parts for value in part.values()):
            torch.cuda.synchronize()
        self.__init__()
        # Objects rather than tensors: a process that saw no batch has none.
        for share in gather(mine):
            self.add(StageOutput(torch.zeros(()), *share))

    def state(self) -> list:
        """The sums as plain numbers, exactly."""
        return [
            {name: value.tolist() for name, value in values.items()}
            for values in (self._sums, self._weights, self.totals)
        ]

    def restore(self, state: list) -> None:
        """The inverse of `state`."""
        self._sums, self._weights = (
            {
                name: torch.tensor(value, dtype=torch.float64)
                for name, value in values.items()
            }
            for values in state[:2]
        )
        totals = state[2] or {}
        # Versions up to 0.1.0 knew but one total, and gave it no name.
        totals = totals if isinstance(totals, dict) else {"code_counts": totals}
        self.totals = {k: torch.from_numpy(np.array(v)) for k, v in totals.items()}

    def means(self) -> dict[str, Tensor]:
        """Divides; what nothing was summed over is 0."""
        tiny = torch.finfo(torch.float32).tiny
        return {
            name: (total / self._weights[name].clamp(min=tiny)).cpu()
            for name, total in self._sums.items()
        }


class QuarantineLog:
    """Counts the files that could not be read during training.

    Use it on the main process only, with the failures of all ranks. Entries are
    appended to `<folder>/quarantine.jsonl`, one per file, and read again when a run
    resumes.
    """

    def __init__(self, folder: str | Path, max_bad_fraction: float):
        if not 0 <= max_bad_fraction <= 1:
            raise UserError(
                f"max_bad_fraction is a share in 0..1, got {max_bad_fraction}."
            )
        self.path = Path(folder) / "quarantine.jsonl"
        self.max_bad_fraction = max_bad_fraction
        self._reasons = {
            entry["path"]: entry["reason"] for entry in read_json_lines(self.path)
        }

    def __len__(self) -> int:
        """Distinct files that could not be read, earlier runs included."""
        return len(self._reasons)

    def record(self, failures: list[tuple[str, str]], total_files: int) -> int:
        """Notes failures and stops the run when there are too many."""
        new = {}
        for path, reason in failures:
            if path not in self._reasons:
                new.setdefault(path, reason)
        if new:
            self._append(new)
        # Also without new ones: a run that was stopped stops again when it is
        # started again and nothing was repaired.
        if failures and len(self) > self.max_bad_fraction * total_files:
            first = "\n".join(
                f"  {path}: {reason}"
                for path, reason in list(self._reasons.items())[:5]
            )
            raise UserError(
                f"{len(self)} of {total_files} files could not be read "
                f"({len(self) / total_files:.1%}, max_bad_fraction is "
                f"{self.max_bad_fraction:.1%}). The first ones:\n{first}\n"
                f"All are listed in {self.path}. Repair them or scan the data folder "
                "again, delete that list, and run the same command; or raise "
                "max_bad_fraction."
            )
        return len(new)

    def _append(self, new: dict[str, str]) -> None:
        """Adds entries to the log, in memory and on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_json_lines(self.path) as file:
            for path, reason in new.items():
                append_json_line(file, {"path": path, "reason": reason})
                logger.warning("Quarantined during training: %s (%s)", path, reason)
        self._reasons.update(new)
