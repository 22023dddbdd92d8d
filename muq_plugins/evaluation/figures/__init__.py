"""The figures of a report, one function each: from metrics or arrays to a PNG.

Codebooks and levels are numbered from 1, as a person counts.
"""

from muq_plugins.evaluation.figures.codebooks import (
    accuracy_per_codebook,
    code_histograms,
    error_by_level,
)
from muq_plugins.evaluation.figures.curves import loss_curves, optimisation_curves
from muq_plugins.evaluation.figures.layers import layer_curves, mixture_weights
from muq_plugins.evaluation.figures.levels import errors_of_levels
from muq_plugins.evaluation.figures.mel import mel_reconstruction
from muq_plugins.evaluation.figures.probe import probe_bars
from muq_plugins.evaluation.figures.study import (
    Dots,
    code_use,
    scores_by_experiment,
    scores_by_number,
)
from muq_plugins.evaluation.figures.study_curves import Curves, panels_of_curves

__all__ = [
    "Curves",
    "Dots",
    "accuracy_per_codebook",
    "code_histograms",
    "code_use",
    "error_by_level",
    "errors_of_levels",
    "layer_curves",
    "loss_curves",
    "mel_reconstruction",
    "mixture_weights",
    "optimisation_curves",
    "panels_of_curves",
    "probe_bars",
    "scores_by_experiment",
    "scores_by_number",
]
