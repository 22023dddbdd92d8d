"""What each codebook of a tokenizer adds, on several kinds of audio."""

import math
from pathlib import Path

from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from muq_plugins.evaluation.figures.style import NEUTRAL, VALID, new_figure


def errors_of_levels(errors: dict[str, list[float]], path: str | Path) -> None:
    """Draw the reconstruction error after each codebook."""
    if not errors:
        raise ValueError("there are no errors to draw")
    with new_figure(path, width=8, height=3.4) as figure:
        axes = figure.add_subplot()
        # What is compared with lies behind.
        for index, (name, values) in reversed(list(enumerate(errors.items()))):
            color, size = (NEUTRAL, 4) if index else (VALID, 5)
            axes.plot(values, color=color, marker="o", markersize=size, label=name)
        values = next(iter(errors.values()))
        for level in range(0, len(values), math.ceil(len(values) / 9)):
            axes.annotate(
                f"{values[level]:.2f}",
                xy=(level, values[level]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
                color=VALID,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
        axes.set_ylim(0, 1.12 * max(max(line) for line in errors.values()))
        axes.margins(x=0.08)
        axes.set_title("Reconstruction error by number of codebooks decoded")
        axes.set_ylabel("mean |error| of the features")
        axes.set_xlabel("codebooks decoded (0: nothing)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower left", reverse=True)
