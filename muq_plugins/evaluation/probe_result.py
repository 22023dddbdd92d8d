"""The result of a linear probe, and how sure one can be of it.

Clips of one piece are alike, so the bootstrap draws pieces and not clips: an interval
over clips would be too narrow.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from muq_plugins.data.atomic import replace_file
from muq_plugins.evaluation.intervals import Estimate, interval, recall_draws
from muq_plugins.evaluation.run_folder import PROBE_FILE

# Resamplings of the bootstrap: the ends of the interval are then good to about 0.002.
DRAWS = 2000


@dataclass(frozen=True)
class ProbeResult:
    """Score of one kind of features on one label.

    Arguments
    ---------
    name : str
        Which features.
    balanced_accuracy : float
        Mean over the classes of the share of their test clips that is recognised.
    interval : tuple of float
        95% interval of the balanced accuracy: lower and upper end.
    accuracy : float
        Share of all test clips that is recognised.
    macro_f1 : float
        Mean F1 over the classes.
    chance : float
        Balanced accuracy of guessing: 1 / number of classes in the test part.
    classes : list of str
        Classes of the training part.
    penalty : float
        The chosen inverse strength of the L2 penalty.
    layer : int or None
        The chosen layer, counted from 1; None if there was only one.
    feature_size : int
        Number of features of a clip.
    train_clips : int
        Number of training clips.
    labels, predictions, groups : list of str
        True label, predicted label and piece of every test clip.
    validation : float or None
        Mean balanced accuracy over the folds of the training part, by which layer and
        penalty were chosen; None in results saved before it was kept.

    Example
    -------
    >>> from muq_plugins.evaluation.probe import fit_probe
    >>> x = np.array([[0.0], [1.0], [0.1], [0.9], [0.2], [0.8]])
    >>> y = ["Organ", "Brass"] * 3
    >>> result = fit_probe(x, y, x, y, name="one number")
    >>> result.accuracy, result.chance, result.recalls
    (1.0, 0.5, {'Brass': 1.0, 'Organ': 1.0})
    """

    name: str
    balanced_accuracy: float
    interval: tuple[float, float]
    accuracy: float
    macro_f1: float
    chance: float
    classes: list[str]
    penalty: float
    layer: int | None
    feature_size: int
    train_clips: int
    labels: list[str]
    predictions: list[str]
    groups: list[str]
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

        Arguments
        ---------
        other : ProbeResult
            Result of other features on the same test clips, in the same order.

        Returns
        -------
        Estimate
            Difference in balanced accuracy and the ends of its 95% interval.

        Raises
        ------
        ValueError
            If the test clips are not the same.
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
    """Save probe results where the report of the run looks for them.

    Arguments
    ---------
    run_folder : str or pathlib.Path
        Folder of the run.
    results : list of ProbeResult
        The results, in the order of the report.

    Returns
    -------
    pathlib.Path
        The file written.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> _ = save_probe(folder, [])
    >>> load_probe(folder)
    []
    """
    path = Path(run_folder) / PROBE_FILE
    content = json.dumps([asdict(result) for result in results], indent=1)
    replace_file(path, content.encode())
    return path


def load_probe(run_folder: str | Path) -> list[ProbeResult]:
    """Load what `save_probe` has saved.

    Arguments
    ---------
    run_folder : str or pathlib.Path
        Folder of the run.

    Returns
    -------
    list of ProbeResult
        The results; empty if the run has saved none.

    Example
    -------
    >>> load_probe(getfixture("tmpdir"))
    []
    """
    path = Path(run_folder) / PROBE_FILE
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [ProbeResult(**{**row, "interval": tuple(row["interval"])}) for row in rows]


def bootstrap(labels: list[str], predictions: list[str], groups: list[str]):
    """Balanced accuracy (draws,) when pieces are drawn, the same for the same clips."""
    hits = np.array(labels) == np.array(predictions)
    return recall_draws(hits, labels, groups, DRAWS)
