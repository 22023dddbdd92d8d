"""An experiment that is a stage of another one.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import dataclasses
from typing import Any

from muq_plugins.experiment.experiment import Experiment, load_hparams
from muq_plugins.experiment.files import resolve_experiment
from muq_plugins.experiment.run_options import TRAINING_SETTINGS


def load_stage(experiment: Experiment, stage: dict[str, Any]) -> Experiment:
    """Loads the experiment of an earlier stage, as another experiment wants it.

    Run options such as the device hold for all stages; training settings given on
    the command line, such as the number of updates, only for the one that was
    asked for.

    Arguments
    ---------
    experiment : Experiment
        The one that was asked for.
    stage : dict
        ``experiment``: a YAML file beside that of the experiment, and
        ``overrides``: the values that it takes over.

    Returns
    -------
    Experiment
        The stage, with all its objects built.

    Raises
    ------
    ExperimentError
        If the stage's file or an override is wrong.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "first.yaml").write_text("optimizer_step_limit: 5\\nlr: 1\\n")
    >>> _ = (folder / "second.yaml").write_text("optimizer_step_limit: 6\\n")
    >>> from muq_plugins.experiment import load_experiment
    >>> second = load_experiment(
    ...     [str(folder / "second.yaml"), "--optimizer_step_limit", "7"])
    >>> first = load_stage(second, {"experiment": "first.yaml", "overrides": {"lr": 2}})
    >>> first.hparams, "optimizer_step_limit" in first.run_opts.overridden_args
    ({'optimizer_step_limit': 5, 'lr': 2}, False)
    """
    path = experiment.path.parent / stage["experiment"]
    overrides = stage["overrides"]
    text = resolve_experiment(path, overrides)
    given = experiment.run_opts.overridden_args - TRAINING_SETTINGS
    run_opts = dataclasses.replace(experiment.run_opts, overridden_args=given)
    return Experiment(
        hparams=load_hparams(text),
        run_opts=run_opts,
        overrides=dict(overrides),
        yaml_text=text,
        path=path,
        argv=experiment.argv,
    )
