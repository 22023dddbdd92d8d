"""The result of a linear probe, and how sure one can be of it.

Clips of one piece are alike, so the bootstrap draws pieces and not clips: an interval
over clips would be too narrow.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from muq_plugins.evaluation.intervals import Estimate, interval, recall_draws
from muq_plugins.evaluation.run_files import PROBE_FILE
from muq_plugins.files import replace_file

# Resamplings of the bootstrap: the ends of the interval are then good to about 0.002.
DRAWS = 2000


@dataclass(frozen=True)
class ProbeResult:
    """Score of one kind of features on one label."""

    name: str  # which features
    # mean over the classes of the share of their test clips that is recognised
    balanced_accuracy: float
    # 95% interval of the balanced accuracy: lower and upper end
    interval: tuple[float, float]
    accuracy: float  # share of all test clips that is recognised
    macro_f1: float  # mean F1 over the classes
    # balanced accuracy of guessing: 1 / number of classes in the test part
    chance: float
    classes: list[str]  # classes of the training part
    penalty: float  # the chosen inverse strength of the L2 penalty
    layer: int | None  # the chosen layer, counted from 1; None if there was only one
    feature_size: int  # number of features of a clip
    train_clips: int  # number of training clips
    labels: list[str]  # True label, predicted label and piece of every test clip
    predictions: list[str]  # True label, predicted label and piece of every test clip
    groups: list[str]  # True label, predicted label and piece of every test clip
    # mean balanced accuracy over the folds of the training part, by which layer and
    # penalty were chosen; None in results saved before it was kept
    validation: float | None = None

    @property
    def recalls(self) -> dict[str, float]:
        """Share of the test clips of each class that is recognised."""
        labels = np.array(self.labels)
        hits = labels == np.array(self.predictions)
        return {
            label: float(hits[labels == label].mean())
            for label in sorted(set(self.labels))
        }

    def difference(self, other: "ProbeResult") -> Estimate:
        """How much better these features are than others on the same test clips.

        The bootstrap draws the same pieces for both, so that pieces that are hard for
        both do not widen the interval.
        """
        if (self.labels, self.groups) != (other.labels, other.groups):
            raise ValueError(
                f"{self.name!r} and {other.name!r} were not tested on the same clips"
            )
        return interval(
            self.balanced_accuracy - other.balanced_accuracy,
            bootstrap(self.labels, self.predictions, self.groups)
            - bootstrap(other.labels, other.predictions, other.groups),
        )


def save_probe(run_folder: str | Path, results: list[ProbeResult]) -> Path:
    """Save probe results where the report of the run looks for them."""
    path = Path(run_folder) / PROBE_FILE
    content = json.dumps([asdict(result) for result in results], indent=1)
    replace_file(path, content.encode())
    return path


def load_probe(run_folder: str | Path) -> list[ProbeResult]:
    """Load what `save_probe` has saved."""
    path = Path(run_folder) / PROBE_FILE
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [ProbeResult(**{**row, "interval": tuple(row["interval"])}) for row in rows]


def bootstrap(labels: list[str], predictions: list[str], groups: list[str]):
    """Balanced accuracy (draws,) when pieces are drawn, the same for the same clips."""
    hits = np.array(labels) == np.array(predictions)
    return recall_draws(hits, labels, groups, DRAWS)
