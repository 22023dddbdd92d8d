"""What a run writes down while it goes: metrics, time, and files gone bad.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import if_main_process

from muq_plugins.brains.processes import gather, world_size
from muq_plugins.brains.statistics import RunningStatistics
from muq_plugins.data.batch import ClipBatch
from muq_plugins.data.quarantine import QuarantineLog
from muq_plugins.evaluation.metrics_log import MetricsLog
from muq_plugins.lobes.stages import StageOutput


class Logbook:
    """Sums up stretches of training and writes a metrics row for each.

    Arguments
    ---------
    folder : str or Path
        The output folder of the run.
    stage : str
        Name of the stage.
    max_bad_fraction : float
        Share of the files that may turn out unreadable.

    Example
    -------
    >>> logbook = Logbook(getfixture("tmpdir"), "pretrain", max_bad_fraction=0.01)
    >>> logbook.write("train", step=1, values={"loss": 5.5})
    >>> logbook.row["loss"]
    5.5
    """

    def __init__(self, folder: str | Path, stage: str, max_bad_fraction: float):
        self.stage = stage
        self.seconds = 0.0  # of training, over all restarts
        self.heard = 0.0  # seconds of audio that this process has heard, likewise
        self.row: dict[str, Any] = {}  # the newest, for the progress bar
        if if_main_process():
            self.metrics_log = MetricsLog(Path(folder) / "metrics.jsonl")
            self.quarantine = QuarantineLog(folder, max_bad_fraction)
        self.start_stretch()

    def start_stretch(self) -> None:
        """Begins a new stretch of updates, which one metrics row will sum up."""
        self.statistics = RunningStatistics()
        self.audio_seconds = 0.0
        self.failures: list[tuple[str, str]] = []
        self._started = time.monotonic()

    def add(self, batch: ClipBatch, output: StageOutput) -> None:
        """Adds a micro-batch to the stretch.

        Arguments
        ---------
        batch : ClipBatch
            What was heard.
        output : StageOutput
            What the stage said about it.
        """
        self.statistics.add(output)
        self.hear(batch.audio_seconds)
        self.failures += batch.failures

    def hear(self, seconds: float) -> None:
        """Counts audio that was trained on.

        Arguments
        ---------
        seconds : float
            Of this process.
        """
        self.audio_seconds += seconds
        self.heard += seconds

    @contextmanager
    def pause(self):
        """Keeps what happens in a ``with`` block out of the time of the stretch.

        Returns
        -------
        context manager
            For the ``with`` block.
        """
        began = time.monotonic()
        yield
        self._started += time.monotonic() - began

    def end_stretch(self, files: int) -> tuple[RunningStatistics, float]:
        """Sums up the stretch over all processes and begins the next one.

        Arguments
        ---------
        files : int
            Number of files in the training part.

        Returns
        -------
        statistics : RunningStatistics
            Of all processes.
        speed : float
            Seconds of audio per second, of all processes together.

        Raises
        ------
        TooManyBadFiles
            If too many files could not be read.
        """
        elapsed = time.monotonic() - self._started
        self.seconds += elapsed
        statistics = self.statistics
        statistics.reduce()
        self.report_failures(self.failures, files)
        # Processes work on equal shares at equal speed.
        speed = self.audio_seconds * world_size() / max(elapsed, 1e-9)
        self.start_stretch()
        return statistics, speed

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Writes a metrics row, on the main process.

        Arguments
        ---------
        kind : str
            "train", "valid" or "test".
        step : int
            Number of updates made.
        values : dict
            Name to number or list of numbers.
        """
        self.row = {
            "kind": kind,
            "stage": self.stage,
            "step": step,
            "time": self.seconds,
            # Processes work on equal shares.
            "audio_seconds": round(self.heard * world_size(), 3),
            **values,
        }
        if if_main_process():
            self.metrics_log.write(self.row)

    def report_failures(self, failures: list[tuple[str, str]], files: int) -> None:
        """Counts files that could not be read, of all processes.

        Arguments
        ---------
        failures : list of (str, str)
            Path and reason, of this process.
        files : int
            Number of files they are a share of.

        Raises
        ------
        TooManyBadFiles
            If there are too many.
        """
        failures = [failure for share in gather(failures) for failure in share]
        if if_main_process():
            self.quarantine.record(failures, files)

    def forget_after(self, step: int) -> None:
        """Drops the rows beyond the checkpoint from which a run goes on.

        Arguments
        ---------
        step : int
            The step of the checkpoint.
        """
        if if_main_process():
            self.metrics_log.truncate_after(step)
