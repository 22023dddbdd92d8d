"""Running a study: what all scripts of studies do before they report.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path

from muq_plugins.experiment.experiment import Experiment
from muq_plugins.experiment.running import save_experiment
from muq_plugins.experiment.study.carry_out import Failure, carry_out
from muq_plugins.experiment.study.command import refuse_run_options
from muq_plugins.experiment.study.plan import PlannedRun, plan_runs


def run_study(
    experiment: Experiment, recipes: str | Path
) -> tuple[list[PlannedRun], list[Failure]]:
    """Plans a study, saves it, and runs what is not finished.

    Arguments
    ---------
    experiment : Experiment
        Its hparams hold ``experiments``, ``seeds``, ``budget``, ``runs_folder``,
        ``output_folder``, ``devices``, ``only_report`` (run nothing) and, if anything
        is probed, ``probes``.
    recipes : str or Path
        Folder of the scripts.

    Returns
    -------
    runs : list of PlannedRun
        All runs of the study.
    failures : list of Failure
        What went wrong.

    Raises
    ------
    ExperimentError
        If the study is wrong, or a run option is given.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "muq.yaml").write_text("seed: 1\\noutput_folder: x\\n")
    >>> _ = (folder / "study.yaml").write_text(f'''
    ... output_folder: {folder}/out
    ... runs_folder: {folder}/runs
    ... devices: [cpu]
    ... only_report: True
    ... seeds: [1, 2]
    ... budget: {{}}
    ... experiments: {{base: {{experiment: muq.yaml, label: Base}}}}
    ... ''')
    >>> from muq_plugins.experiment import load_experiment
    >>> runs, failures = run_study(load_experiment([str(folder / "study.yaml")]), ".")
    >>> [run.seed for run in runs], failures
    ([1, 2], [])
    """
    refuse_run_options(experiment)
    hparams = experiment.hparams
    runs = plan_runs(
        hparams["experiments"],
        hparams["seeds"],
        hparams["budget"],
        hparams.get("probes"),
        experiment.path.parent,
        hparams["runs_folder"],
    )
    save_experiment(experiment, hparams["output_folder"], study=True)
    if hparams["only_report"]:
        return runs, []
    return runs, carry_out(runs, recipes, hparams["devices"])
