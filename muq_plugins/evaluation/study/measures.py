"""What runs are compared by: each measure makes one number of a run.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid

from muq_plugins.evaluation.probing.result import TRAINED
from muq_plugins.evaluation.study.record import Run
from muq_plugins.evaluation.study.study import Study


@dataclass(frozen=True)
class Measure:
    """A number of a run, and which way is better.

    Arguments
    ---------
    name : str
        Its name in `study.json`.
    title : str
        Its name for a person.
    better : int
        1 if higher is better, -1 if lower is.
    unit : str
        "points" (hundredths) or "nat".
    formula : callable
        From a study and a run to the number; None for what is probed.
    tasks : tuple of str
        Tasks that are probed for it; empty for other measures.

    Example
    -------
    >>> measure = Measure("accuracy", "Masked accuracy", 1, "points")
    >>> measure.show(0.0123), measure.show_change(-0.0123)
    ('1.2', '-1.2')
    """

    name: str
    title: str
    better: int
    unit: str
    formula: Callable[[Study, Run], float] | None = None
    tasks: tuple[str, ...] = ()

    @property
    def same_size_only(self) -> bool:
        """Whether it can only be compared between codebooks of the same size."""
        return self.name in ("accuracy", "loss_area")

    @property
    def is_curve(self) -> bool:
        """Whether it is the mean of a curve over the training."""
        return self.name in ("gain_area", "loss_area")

    @property
    def column(self) -> str:
        """Heading of a column with its values."""
        return f"{self.title} ({'%' if self.unit == 'points' else self.unit})"

    @property
    def lower_case(self) -> str:
        """Its name within a sentence."""
        return self.title[0].lower() + self.title[1:]

    def value(self, study: Study, run: Run, features: str = TRAINED) -> float:
        """Compute it.

        Arguments
        ---------
        study : Study
            The study.
        run : Run
            One of its runs.
        features : str
            What was probed; of no importance for other measures.

        Returns
        -------
        float
            The number.
        """
        if self.tasks:
            return probe_score(study, run, self.tasks, features)
        return self.formula(study, run)

    def show(self, value: float, form: str = "") -> str:
        """Write a value without its unit.

        Arguments
        ---------
        value : float
            The number.
        form : str
            "+" to write the sign of positive numbers too.

        Returns
        -------
        str
            In hundredths with one decimal, or nats with three.
        """
        is_share = self.unit == "points"
        return format(100 * value if is_share else value, form + self._decimals())

    def show_change(self, value: float) -> str:
        """Write a difference without its unit.

        Arguments
        ---------
        value : float
            The difference.

        Returns
        -------
        str
            With its sign.
        """
        return self.show(value, "+")

    def _decimals(self) -> str:
        return ".1f" if self.unit == "points" else ".3f"


def measure_named(study: Study, name: str) -> Measure:
    """Find a measure.

    Arguments
    ---------
    study : Study
        The study; its tasks are measures too.
    name : str
        "probe", "probe:" and a task, "gain", "gain_area", "loss_area" or "accuracy".

    Returns
    -------
    Measure
        The measure.

    Raises
    ------
    ValueError
        If the study has no such measure.

    Example
    -------
    >>> from pathlib import Path
    >>> study = Study(Path("study.json"), "T", "", {}, {}, "a", [1], {}, [], [], {},
    ...               [], [])
    >>> measure_named(study, "gain").better
    1
    >>> measure_named(study, "probe")
    Traceback (most recent call last):
    ...
    ValueError: study.json: unknown measure 'probe'; this study has accuracy, gain, ...
    """
    of_run = [
        Measure("accuracy", "Masked accuracy", 1, "points", _accuracy),
        Measure("gain", "Gain over counting", 1, "nat", _gain),
        Measure("gain_area", "Mean gain over counting", 1, "nat", _gain_area),
        Measure("loss_area", "Mean cross-entropy", -1, "nat", _loss_area),
    ]
    every = tuple(study.tasks)
    probed = (
        [Measure("probe", "Probe score", 1, "points", tasks=every)] if every else []
    )
    for task in every:
        title = f"Probe score of {task}"
        probed.append(Measure(f"probe:{task}", title, 1, "points", tasks=(task,)))
    measures = {measure.name: measure for measure in of_run + probed}
    if name not in measures:
        raise ValueError(
            f"{study.file}: unknown measure {name!r}; this study has "
            f"{', '.join(measures)}"
        )
    return measures[name]


def headline_measure(study: Study) -> Measure:
    """What a study is judged by first.

    Arguments
    ---------
    study : Study
        The study.

    Returns
    -------
    Measure
        The probe score, or the gain over counting if nothing was probed.

    Example
    -------
    >>> from pathlib import Path
    >>> study = Study(Path("study.json"), "T", "", {}, {}, "a", [1], {}, [], [], {},
    ...               [], [])
    >>> headline_measure(study).name
    'gain'
    """
    return measure_named(study, "probe" if study.tasks else "gain")


def probe_score(
    study: Study,
    run: Run,
    tasks: tuple[str, ...],
    features: str = TRAINED,
    layer: int | None = None,
) -> float:
    """The mean over tasks of how far features are between chance and no error.

    Arguments
    ---------
    study : Study
        The study.
    run : Run
        One of its runs.
    tasks : tuple of str
        Names of tasks.
    features : str
        Which features.
    layer : int
        A layer; None for the one that validation has chosen for each task.

    Returns
    -------
    float
        0 is chance, 1 is no error.

    Example
    -------
    >>> from muq_plugins.evaluation.study.record import Score, Task
    >>> class study:
    ...     tasks = {"key": Task("key", None, 0.5, [], None, None)}
    >>> class run:
    ...     probe = {"key": {"trained encoder": Score([0.5, 0.75], 1, None)}}
    >>> probe_score(study, run, ("key",)), probe_score(study, run, ("key",), layer=0)
    (0.5, 0.0)
    """
    scores = []
    for name in tasks:
        score = run.probe[name][features]
        value = score.value if layer is None else score.layers[layer]
        chance = study.tasks[name].chance
        scores.append((value - chance) / (1 - chance))
    return float(np.mean(scores))


def _accuracy(study: Study, run: Run) -> float:
    return run.accuracy


def _gain(study: Study, run: Run) -> float:
    return run.code_entropy - run.cross_entropy


def _gain_area(study: Study, run: Run) -> float:
    return run.code_entropy - _loss_area(study, run)


def _loss_area(study: Study, run: Run) -> float:
    """Mean of the validation curve over the updates that it spans."""
    steps, losses = run.learning_updates, run.learning_cross_entropy
    if len(steps) < 2:
        raise ValueError(
            f"{study.file}: {run.experiment} with seed {run.seed} was validated "
            f"{len(steps)} times, which makes no curve: validate more often"
        )
    return float(trapezoid(losses, steps) / (steps[-1] - steps[0]))
