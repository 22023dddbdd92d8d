"""What a study has asked and found: the content of `study.json`.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from muq_plugins.evaluation.probing.result import TRAINED
from muq_plugins.evaluation.study.record import (
    Experiment,
    Group,
    Question,
    Run,
    Task,
)


@dataclass(frozen=True, eq=False)
class Study:
    """Everything in `study.json`.

    Arguments
    ---------
    file : pathlib.Path
        Where it was read from.
    title, command : str
        Title of the study, and what it was run with.
    machine, budget : dict
        Names and values.
    base : str
        The experiment that all are compared with.
    seeds : list of int
        Seeds of every experiment.
    experiments : dict of Experiment
        By name, in order.
    groups : list of Group
        What is shown together.
    questions : list of Question
        What is answered.
    tasks : dict of Task
        By name; empty if nothing was probed.
    runs : list of Run
        What has finished.
    missing : list of (str, int)
        Experiment and seed of what has not.

    Example
    -------
    >>> study = Study(Path("x"), "T", "", {}, {}, "a", [1, 2], {}, [], [], {}, [],
    ...               [("a", 1)])
    >>> study.runs_of("a"), study.is_finished("a"), study.is_finished("b")
    ([], False, True)
    """

    file: Path
    title: str
    command: str
    machine: dict
    budget: dict
    base: str
    seeds: list[int]
    experiments: dict[str, Experiment]
    groups: list[Group]
    questions: list[Question]
    tasks: dict[str, Task]
    runs: list[Run]
    missing: list[tuple[str, int]]

    def runs_of(self, experiment: str) -> list[Run]:
        """The finished runs of an experiment.

        Arguments
        ---------
        experiment : str
            Its name.

        Returns
        -------
        list of Run
            Sorted by seed.
        """
        runs = [run for run in self.runs if run.experiment == experiment]
        return sorted(runs, key=lambda run: run.seed)

    def is_finished(self, experiment: str) -> bool:
        """Tell whether all seeds of an experiment have finished.

        Arguments
        ---------
        experiment : str
            Its name.

        Returns
        -------
        bool
            False if one is missing.
        """
        return all(name != experiment for name, _ in self.missing)

    def label(self, experiment: str) -> str:
        """Name of an experiment for a person.

        Arguments
        ---------
        experiment : str
            Its name in the files.

        Returns
        -------
        str
            Its label.
        """
        return self.experiments[experiment].label

    def knows_hits(self, experiment: str, features: str = TRAINED) -> bool:
        """Tell whether the hits of all its probes are known, clip by clip.

        Arguments
        ---------
        experiment : str
            Its name.
        features : str
            Which features.

        Returns
        -------
        bool
            False if there is no finished run, no such features, or no hits.
        """
        scores = [
            task.get(features)
            for run in self.runs_of(experiment)
            for task in run.probe.values()
        ]
        return bool(scores) and all(
            s is not None and s.hits is not None for s in scores
        )
