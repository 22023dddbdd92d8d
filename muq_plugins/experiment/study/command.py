"""The command line of a study.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from muq_plugins.experiment.experiment import Experiment
from muq_plugins.experiment.tree import ExperimentError


def refuse_run_options(experiment: Experiment) -> None:
    """Refuses options that would reach none of the commands of a study.

    Arguments
    ---------
    experiment : Experiment
        The study.

    Raises
    ------
    ExperimentError
        If a run option is given, such as ``--device``.

    Example
    -------
    >>> from muq_plugins.experiment import load_experiment
    >>> path = getfixture("tmp_path") / "study.yaml"
    >>> _ = path.write_text("devices: [cpu]\\n")
    >>> refuse_run_options(load_experiment([str(path)]))
    >>> refuse_run_options(load_experiment([str(path), "--device", "cuda:0"]))
    Traceback (most recent call last):
    ...
    muq_plugins.experiment.tree.ExperimentError: device: a study takes no run options...
    """
    given = experiment.run_opts.overridden_args
    if given:
        raise ExperimentError(
            f"{', '.join(sorted(given))}: a study takes no run options. Set devices "
            f"for where it runs, and budget for training settings."
        )


def study_command(script: str, argv: Sequence[str]) -> str:
    """The command that runs a study, also if this one only looks at it.

    Arguments
    ---------
    script : str
        Name of the recipe.
    argv : sequence of str
        Its command line.

    Returns
    -------
    str
        What its report says.

    Example
    -------
    >>> study_command("ablate.py", ["hparams/study_init.yaml", "--only_report", "True"])
    'python recipes/MuQ/ablate.py hparams/study_init.yaml'
    """
    words = re.sub(r" --only_report[ =]\S+", "", shlex.join(argv))
    return f"python recipes/MuQ/{script} {words}"
