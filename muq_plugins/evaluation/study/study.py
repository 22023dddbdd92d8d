"""What a study has asked and found: the content of `study.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from muq_plugins.evaluation.probing.result import TRAINED
from muq_plugins.evaluation.study.record import Experiment, Group, Question, Run, Task


@dataclass(frozen=True, eq=False)
class Study:
    """Everything in `study.json`."""

    file: Path  # where it was read from
    title: str  # title of the study, and what it was run with
    command: str  # title of the study, and what it was run with
    machine: dict  # names and values
    budget: dict  # names and values
    base: str  # the experiment that all are compared with
    seeds: list[int]  # seeds of every experiment
    experiments: dict[str, Experiment]  # by name, in order
    groups: list[Group]  # what is shown together
    questions: list[Question]  # what is answered
    tasks: dict[str, Task]  # by name; empty if nothing was probed
    runs: list[Run]  # what has finished
    missing: list[tuple[str, int]]  # experiment and seed of what has not

    def runs_of(self, experiment: str) -> list[Run]:
        """The finished runs of an experiment."""
        runs = [run for run in self.runs if run.experiment == experiment]
        return sorted(runs, key=lambda run: run.seed)

    def is_finished(self, experiment: str) -> bool:
        """Tell whether all seeds of an experiment have finished."""
        return all(name != experiment for name, _ in self.missing)

    def label(self, experiment: str) -> str:
        """Name of an experiment for a person."""
        return self.experiments[experiment].label

    def knows_hits(self, experiment: str, features: str = TRAINED) -> bool:
        """Tell whether the hits of all its probes are known, clip by clip."""
        scores = [
            task.get(features)
            for run in self.runs_of(experiment)
            for task in run.probe.values()
        ]
        return bool(scores) and all(
            s is not None and s.hits is not None for s in scores
        )
