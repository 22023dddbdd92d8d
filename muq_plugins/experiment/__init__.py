"""Experiments: one YAML file, or a few lines on top of another, plus the command line.

A training script starts with ``experiment = load_experiment(argv)``; then
``experiment.hparams`` and ``experiment.run_opts`` go to SpeechBrain's Brain as two
arguments. They are never mixed with ``hparams.update(run_opts)``, which would put the
defaults of SpeechBrain over the values of the file.
"""

from muq_plugins.experiment.experiment import (
    Experiment,
    check_stage,
    each_model,
    load_experiment,
    load_hparams,
    load_part,
    load_stage,
    refuse_training_options,
    run_script,
    save_experiment,
    stages,
)
from muq_plugins.experiment.extends import resolve_experiment
from muq_plugins.experiment.run_folder import check_run, has_results, note_inputs

__all__ = [
    "Experiment",
    "check_run",
    "check_stage",
    "each_model",
    "has_results",
    "load_experiment",
    "load_hparams",
    "load_part",
    "load_stage",
    "note_inputs",
    "refuse_training_options",
    "resolve_experiment",
    "run_script",
    "save_experiment",
    "stages",
]
