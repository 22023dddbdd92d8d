"""What runs are compared by: each measure makes one number of a run."""

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
    """A number of a run, and which way is better."""

    name: str  # its name in `study.json`
    title: str  # its name for a person
    better: int  # 1 if higher is better, -1 if lower is
    unit: str  # "points" (hundredths) or "nat"
    # from a study and a run to the number; None for what is probed
    formula: Callable[[Study, Run], float] | None = None
    # tasks that are probed for it; empty for other measures
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
        """Compute it."""
        if self.tasks:
            return probe_score(study, run, self.tasks, features)
        return self.formula(study, run)

    def show(self, value: float, form: str = "") -> str:
        """Write a value without its unit."""
        is_share = self.unit == "points"
        return format(100 * value if is_share else value, form + self._decimals())

    def show_change(self, value: float) -> str:
        """Write a difference without its unit."""
        return self.show(value, "+")

    def _decimals(self) -> str:
        return ".1f" if self.unit == "points" else ".3f"


def measure_named(study: Study, name: str) -> Measure:
    """Find a measure."""
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
    """What a study is judged by first."""
    return measure_named(study, "probe" if study.tasks else "gain")


def probe_score(
    study: Study,
    run: Run,
    tasks: tuple[str, ...],
    features: str = TRAINED,
    layer: int | None = None,
) -> float:
    """The mean over tasks of how far features are between chance and no error."""
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
