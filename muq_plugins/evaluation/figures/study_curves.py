"""Curves of many experiments: one panel each, so that no line hides another."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from muq_plugins.evaluation.figures.style import (
    CHANCE,
    INK,
    NEUTRAL,
    VALID,
    new_figure,
    percent_tick,
)

COLUMNS = 3
LABEL_WIDTH = 26
REFERENCE = {"color": NEUTRAL, "linestyle": (0, (5, 2)), "linewidth": 1.6}
ZERO = {"color": CHANCE, "linestyle": (0, (1, 2)), "linewidth": 1.4}


class Curves(NamedTuple):
    """The curves of one experiment."""

    label: str  # its name
    x: list[float]  # places of the points
    values: list[list[float]]  # one curve for each seed


def panels_of_curves(
    curves: list[Curves],
    base: Curves | None,
    names: tuple[str, str],
    path: str | Path,
    reference: Curves | None = None,
    zero: str = "",
    shares: bool = False,
) -> None:
    """Draw the curves of experiments, one panel each with the base behind it."""
    if not curves:
        raise ValueError("there is no curve to draw")
    lines, columns = ceil(len(curves) / COLUMNS), min(COLUMNS, len(curves))
    width = {1: 4.5, 2: 6.5}.get(columns, 8)
    with new_figure(path, width=width, height=1.1 + 2.1 * lines) as figure:
        panels = figure.subplots(
            lines, columns, sharex=True, sharey=True, squeeze=False
        ).flatten()
        for index, (axes, ours) in enumerate(zip(panels, curves, strict=False)):
            if zero:
                axes.axhline(0, **ZERO)
            if reference is not None:
                axes.plot(reference.x, np.mean(reference.values, axis=0), **REFERENCE)
            if base is not None and ours.label != base.label:
                _draw_band(axes, base, INK, is_behind=True)
            _draw_band(axes, ours, VALID, is_behind=False)
            axes.set_title(fill(ours.label, LABEL_WIDTH), fontsize=9.5)
            if index % columns == 0:
                axes.set_ylabel(names[1])
            if index + columns >= len(curves):
                axes.set_xlabel(names[0])
                axes.tick_params(labelbottom=True)
        panels[0].xaxis.set_major_locator(
            MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10])
        )
        if shares:
            panels[0].yaxis.set_major_formatter(FuncFormatter(percent_tick))
        for axes in panels[len(curves) :]:
            axes.remove()
        handles = [Line2D([], [], color=VALID, label="this experiment, every seed")]
        if base is not None and any(ours.label != base.label for ours in curves):
            label = f"{base.label} (base)"
            handles.append(Line2D([], [], color=INK, linewidth=1.2, label=label))
        if reference is not None:
            handles.append(Line2D([], [], label=reference.label, **REFERENCE))
        if zero:
            handles.append(Line2D([], [], label=zero, **ZERO))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4 if columns > 2 else 2
        )


def _draw_band(axes: Axes, curves: Curves, color: str, is_behind: bool) -> None:
    """The mean as a line, from the lowest to the highest seed as a band."""
    values = np.array(curves.values, dtype=float)
    ends = values.min(axis=0), values.max(axis=0)
    alpha = 0.12 if is_behind else 0.2
    axes.fill_between(curves.x, *ends, color=color, alpha=alpha, linewidth=0)
    if not is_behind:
        axes.plot(curves.x, values.T, color=color, alpha=0.6, linewidth=0.8)
    width = 1.2 if is_behind else 1.8
    axes.plot(curves.x, values.mean(axis=0), color=color, linewidth=width)
