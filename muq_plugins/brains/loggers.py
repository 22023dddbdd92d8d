"""Where metrics may go beside ``metrics.jsonl``: to what people already read.

SpeechBrain's loggers count their own calls. Here each number keeps its step, also where
a run goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import uuid
from pathlib import Path
from typing import Any

from muq_plugins.errors import NotInstalled, UserError, nearest


class TensorBoard:
    """Event files in the run folder: ``tensorboard --logdir results``."""

    def __init__(self, folder: Path, stage: str, again_from: int | None):
        from torch.utils.tensorboard import SummaryWriter

        place = str(folder / "tensorboard")
        self.writer = SummaryWriter(place, purge_step=again_from)

    def log(self, values: dict[str, float], step: int) -> None:
        """Takes the numbers of a row."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


class Tracker:
    """Weights & Biases, or Trackio, which has the same functions.

    Their own environment variables say the rest, such as WANDB_MODE=offline.
    """

    package: str
    running: Any = None  # the package, while it follows a run: one at a time

    def __init__(self, folder: Path, stage: str, again_from: int | None):
        tracker = importlib.import_module(self.package)
        if Tracker.running is not None:  # of an earlier stage
            Tracker.running.finish()
        Tracker.running = tracker
        # Known by the folder, so that a run that goes on does so there as well.
        path = folder / f"{self.package}_id.txt"
        if not path.is_file():
            path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
        identity = path.read_text(encoding="utf-8").strip()
        names = [*folder.resolve().parts[-2:], stage, identity]
        self.start(folder, "-".join(names), identity)

    def log(self, values: dict[str, float], step: int) -> None:
        """Takes the numbers of a row."""
        Tracker.running.log(values, step=step)


class WeightsAndBiases(Tracker):
    """Files in the run folder, and wandb.ai unless WANDB_MODE=offline."""

    package = "wandb"

    def start(self, folder: Path, name: str, identity: str) -> None:
        """Begins a run or goes on with it."""
        place = {"project": "muq", "dir": str(folder)}
        Tracker.running.init(**place, name=name, id=identity, resume="allow")


class Trackio(Tracker):
    """A local data base: ``trackio show --project muq``."""

    package = "trackio"

    def start(self, folder: Path, name: str, identity: str) -> None:
        """Begins a run or goes on with it."""
        Tracker.running.init("muq", name=name, resume="allow", embed=False)


LOGGERS = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def check_loggers(names: Any) -> list[str]:
    """The names of loggers, if they are some and their packages are there."""
    names = list(names or [])
    for name in names:
        if name not in LOGGERS:
            raise UserError(
                f"loggers has {name!r}, which is none of {', '.join(LOGGERS)}; the "
                f"nearest is {nearest(name, LOGGERS)!r}."
            )
        if importlib.util.find_spec(name) is None:
            raise NotInstalled(f"The logger {name} needs `pip install {name}`.")
    return names


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a metrics row, as ``valid/loss``; each codebook has its own."""
    found = {}
    for name, value in row.items():
        several = value if isinstance(value, list) else [value]
        for place, one in enumerate(several):
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                tail = f"/{place}" if isinstance(value, list) else ""
                found[f"{row['kind']}/{name}{tail}"] = float(one)
    return {k: v for k, v in found.items() if not k.endswith("/step")}
