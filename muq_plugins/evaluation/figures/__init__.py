"""A handful of generic figures: arrays and labels in, a PNG out.

Codebooks and levels are numbered from 1, as a person counts.
"""

from muq_plugins.evaluation.figures.experiments import (
    Curves,
    Dots,
    code_use,
    panels_of_curves,
    scores_by_experiment,
    scores_by_number,
)
from muq_plugins.evaluation.figures.lines import (
    Level,
    Line,
    Panel,
    curves,
    level_lines,
    scientific,
    train_line,
    valid_line,
)
from muq_plugins.evaluation.figures.values import (
    Bars,
    bars,
    histograms,
    intervals,
    shares,
    spectrograms,
)

__all__ = [
    "Bars",
    "Curves",
    "Dots",
    "Level",
    "Line",
    "Panel",
    "bars",
    "code_use",
    "curves",
    "histograms",
    "intervals",
    "level_lines",
    "panels_of_curves",
    "scientific",
    "scores_by_experiment",
    "scores_by_number",
    "shares",
    "spectrograms",
    "train_line",
    "valid_line",
]
