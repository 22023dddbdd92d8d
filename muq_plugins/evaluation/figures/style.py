"""One look for all figures.

Figures are drawn through matplotlib's objects and never through pyplot, whose global
state would leak into the notebook or the training that asks for a report.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from muq_plugins.files import replace_file

# One colour has one meaning in every figure. Okabe and Ito's palette, which the
# colour-blind can tell apart (https://jfly.uni-koeln.de/color/).
TRAIN = "#56B4E9"
VALID = "#0072B2"
COUNTING = "#D55E00"
CHANCE = "#6B7280"
NEUTRAL = "#9CA3AF"
INK = "#1F2937"

DPI = 200  # a page shows 8 inches on 920 pixels: sharp where these are small
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9CA3AF",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#9CA3AF",
    "ytick.color": "#9CA3AF",
    "xtick.labelcolor": "#4B5563",
    "ytick.labelcolor": "#4B5563",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def new_figure(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """Draw a figure in the common style and save it as PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI)
    replace_file(path, content.getvalue())


def step_ticks() -> MaxNLocator:
    """Few places on an axis of steps or layers, which are whole numbers."""
    return MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10])


def percent_tick(value: float, position: int | None = None) -> str:
    """Write a share as percentage with as few digits as it needs."""
    return f"{100 * value:,.10g}%"  # which is exact, but for the noise of floats


def write(axes: Axes, text: str, xy, offset: tuple[float, float], **style) -> None:
    """Write beside a point, so many points of the printer away from it."""
    place = {"xy": xy, "xytext": offset, "textcoords": "offset points"}
    axes.annotate(text, **place, **style)


def reference_line(axes: Axes, value: float, label: str, color: str, va="bottom"):
    """Draw a horizontal line and write its name beside it, outside of the axes."""
    axes.axhline(value, color=color, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1.5)
    style = {"va": va, "color": color, "fontsize": 8.5}
    outside, offset = axes.get_yaxis_transform(), -3 if va == "bottom" else 3
    write(axes, label, (1, value), (5, offset), xycoords=outside, **style)


def grid(figure: Figure, count: int, columns: int, xlabel: str) -> list[Axes]:
    """Panels that share their axes, the lowest of each column with a name below it."""
    size = ceil(count / columns), columns
    every = figure.subplots(*size, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in every[count:]:
        axes.remove()
    for axes in every[max(0, count - columns) : count]:
        axes.set_xlabel(xlabel)
        axes.tick_params(labelbottom=True)
    return list(every[:count])
