"""Anything against steps, levels or layers, with what it is to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from muq_plugins.evaluation.figures.style import (
    NEUTRAL,
    TRAIN,
    VALID,
    new_figure,
    percent_tick,
    reference_line,
    step_ticks,
    write,
)

# Training rows are noisy: the bold line is their mean over this share of the rows.
SMOOTHING = 0.05
MOST_NUMBERS = 9  # written along one line
NUMBERS = {
    "all": {"offset": (4, 4), "ha": "left", "fontsize": 8},
    "last": {"offset": (4, 7), "ha": "right", "fontsize": 9, "fontweight": "bold"},
}


class Line(NamedTuple):
    """Points with a name, and numbers beside "all" of them, the "last", or none."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    color: str = VALID
    marker: str = ""
    band: tuple[Sequence[float], Sequence[float]] | None = None  # low, high
    smooth: bool = False  # noisy: thin, with its moving mean in bold
    numbers: str = ""


class Level(NamedTuple):
    """A height to compare with, named beside the chart, or in the key below all."""

    value: float
    label: str
    color: str
    hangs: bool = False  # of two that may be close, one name stands and one hangs
    dashes: Any = None  # given: the name stands in the key


class Panel(NamedTuple):
    """One chart."""

    title: str
    lines: Sequence[Line]
    levels: Sequence[Level] = ()
    xlabel: str = "training step"
    ylabel: str = ""
    legend: str = ""  # where, as matplotlib names places; "above" the chart; or none
    from_zero: bool = False
    write: Any = None  # numbers of the y axis
    ticks: tuple[Sequence[float], Sequence[str]] | None = None


def train_line(x, y) -> Line:
    """What was measured while training."""
    return Line(x, y, "training", TRAIN, smooth=True)


def valid_line(x, y) -> Line:
    """What was measured on unseen clips."""
    return Line(x, y, "validation", VALID, "o", numbers="last")


def level_lines(errors: dict[str, Sequence[float]]) -> list[Line]:
    """Errors after 0..N codebooks; what the first is compared with lies behind."""
    lines = [
        Line(range(len(values)), values, name, NEUTRAL, "o")
        for name, values in errors.items()
    ]
    lines[0] = lines[0]._replace(color=VALID, numbers="all")
    return lines


def line_charts(
    panels: Sequence[Panel],
    path: str | Path,
    height: float,
    width: float = 8.0,
    columns: int | None = None,
    key: bool = False,
) -> None:
    """Draw charts side by side; ``key``: with all names below them, each once."""
    columns = columns or len(panels)
    with new_figure(path, width, height) as figure:
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(ceil(len(panels) / columns), columns, index + 1)
            _draw(axes, panel)
        if key:
            handles = {h.get_label(): h for p in panels for h in _handles(p)}
            handles, ncols = list(handles.values()), 4 if columns > 1 else 2
            figure.legend(handles=handles, loc="outside lower center", ncols=ncols)


def scientific(value: float, position: int | None = None) -> str:
    """Small numbers as a person writes them: 5e-4."""
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-") if value else "0"


def _handles(panel: Panel) -> list[Line2D]:
    """What the key shows of a chart."""
    lines = [
        Line2D([], [], color=c, marker=m, markersize=3, label=name)
        for _, _, name, c, m, *_ in panel.lines
        if name
    ]
    return lines[::-1] + [
        Line2D([], [], color=level.color, linestyle=level.dashes, label=level.label)
        for level in panel.levels
        if level.dashes
    ]


def _draw(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        _draw_line(axes, line, panel.write is percent_tick)
    for level in panel.levels:
        if level.dashes:
            style = {"color": level.color, "linestyle": level.dashes}
            axes.axhline(level.value, linewidth=1.2, **style)
        else:
            va = "top" if level.hangs else "bottom"
            reference_line(axes, level.value, level.label, level.color, va)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.xlabel)
    axes.set_ylabel(panel.ylabel)
    if panel.ticks:
        axes.set_xticks(*panel.ticks)
    else:
        axes.xaxis.set_major_locator(step_ticks())
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    if panel.write:
        axes.yaxis.set_major_formatter(panel.write)
    axes.margins(y=0.12)
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    if panel.legend == "above":
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1)}
        axes.legend(**above, ncols=2, borderaxespad=0.2)
    elif panel.legend:
        axes.legend(loc=panel.legend)


def _draw_line(axes: Axes, line: Line, shares: bool) -> None:
    x, y = np.asarray(line.x), np.asarray(line.y, dtype=float)
    if line.smooth:
        axes.plot(x, y, color=line.color, alpha=0.35, linewidth=1)
        axes.plot(x, _moving_mean(y), color=line.color, label=line.label)
        return
    if line.band is not None:
        axes.fill_between(x, *line.band, color=line.color, alpha=0.15, linewidth=0)
    style = {"color": line.color, "marker": line.marker, "markersize": 4}
    axes.plot(x, y, label=line.label, zorder=3 if line.numbers else 2, **style)
    places = range(len(y)) if line.numbers == "all" else range(len(y))[-1:]
    for place in places[:: ceil(len(places) / MOST_NUMBERS) or 1]:
        if line.numbers and np.isfinite(y[place]):
            write(
                axes,
                f"{y[place]:.1%}" if shares else f"{y[place]:.2f}",
                (x[place], y[place]),
                color=line.color,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                **NUMBERS[line.numbers],
            )


def _moving_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the rows around each row; rows that are not finite do not count."""
    half = round(SMOOTHING * len(values) / 2)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array(
        [w[np.isfinite(w)].mean() if np.isfinite(w).any() else np.nan for w in windows]
    )
