"""Experiments: one YAML file, or a few lines on top of another, plus the command line.

A training script starts with ``experiment = load_experiment(argv)``; then
``experiment.hparams`` and ``experiment.run_opts`` go to SpeechBrain's Brain as two
arguments. They are never mixed with ``hparams.update(run_opts)``, which would put the
defaults of SpeechBrain over the values of the file.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from muq_plugins.experiment.experiment import (
    Experiment,
    load_experiment,
    load_hparams,
)
from muq_plugins.experiment.files import resolve_experiment
from muq_plugins.experiment.iterations import each_model
from muq_plugins.experiment.run_folder import note_inputs
from muq_plugins.experiment.running import run_script, save_experiment
from muq_plugins.experiment.stages import load_stage
from muq_plugins.experiment.tree import ExperimentError

__all__ = [
    "Experiment",
    "ExperimentError",
    "each_model",
    "load_experiment",
    "load_hparams",
    "load_stage",
    "note_inputs",
    "resolve_experiment",
    "run_script",
    "save_experiment",
]
