"""Experiments that train one model after another, each on what the last one knows.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from collections.abc import Iterator

from muq_plugins.experiment.experiment import Experiment, load_hparams
from muq_plugins.experiment.files import resolve_experiment
from muq_plugins.experiment.run_options import TRAINING_SETTINGS
from muq_plugins.experiment.stages import load_stage
from muq_plugins.experiment.tree import ExperimentError


def each_model(experiment: Experiment) -> Iterator[Experiment]:
    """Loads the models of an experiment with iterations, one when it is its turn.

    Whoever iterates trains each model before asking for the next one. Training
    settings on the command line, such as the number of updates, hold for all of them.

    Arguments
    ---------
    experiment : Experiment
        Its hparams hold ``iterations``, ``teacher`` (null, or what the first
        iteration learns from), ``output_folder``, ``overrides`` for all models, and
        the stages ``first``, which is left out if there is a teacher, and
        ``iteration``, whose overrides refer to ``<teacher>``.

    Yields
    ------
    Experiment
        A model, to be trained in ``<output_folder>/iteration-<number>``; the first
        one has the number 0.

    Raises
    ------
    ExperimentError
        If ``iterations`` is below 1, or a stage is wrong.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "model.yaml").write_text("from: null\\noutput_folder: ''\\n")
    >>> _ = (folder / "plan.yaml").write_text('''
    ... output_folder: out
    ... teacher: null
    ... iterations: 2
    ... overrides: {}
    ... first: {experiment: model.yaml, overrides: {}}
    ... iteration: {experiment: model.yaml, overrides: {from: !ref <teacher>}}
    ... ''')
    >>> from muq_plugins.experiment import load_experiment
    >>> plan = load_experiment([str(folder / "plan.yaml")])
    >>> [model.hparams["from"] for model in each_model(plan)]
    [None, 'out/iteration-0', 'out/iteration-1']
    """
    hparams = experiment.hparams
    teacher, iterations = hparams["teacher"], hparams["iterations"]
    if not isinstance(iterations, int) or iterations < 1:
        raise ExperimentError(
            f"{experiment.path}: iterations is {iterations!r}, but must be a number of "
            f"at least 1: how many models learn from the one before."
        )
    first = 0 if teacher is None else 1
    for number in range(first, iterations + 1):
        folder = f"{hparams['output_folder']}/iteration-{number}"
        yield _model(experiment, teacher, folder)
        teacher = folder


def _model(experiment: Experiment, teacher: str | None, folder: str) -> Experiment:
    """One model, with the references to its teacher resolved."""
    overrides = {**experiment.overrides, "teacher": teacher}
    hparams = load_hparams(resolve_experiment(experiment.path, overrides))
    stage = hparams["first"] if teacher is None else hparams["iteration"]
    given = experiment.overrides.items()
    overrides = {
        **hparams["overrides"],
        **stage["overrides"],
        # Such as --optimizer_step_limit: here there is nothing else to set.
        **{name: value for name, value in given if name in TRAINING_SETTINGS},
        "output_folder": folder,
    }
    return load_stage(experiment, {**stage, "overrides": overrides})
