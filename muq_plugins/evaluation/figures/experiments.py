"""What experiments have reached: every seed, means with intervals, curves in panels.

The functions know nothing of studies: they draw lists of numbers with names.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    INK,
    NEUTRAL,
    TRAIN,
    VALID,
    grid,
    new_figure,
    percent_tick,
    step_ticks,
    write,
)

LABEL_WIDTH, TITLE_WIDTH = 24, 26
COLUMNS = 3  # of panels
REFERENCE = {"color": NEUTRAL, "linestyle": (0, (5, 2)), "linewidth": 1.6}
ZERO = {"color": CHANCE, "linestyle": (0, (1, 2)), "linewidth": 1.4}
# Colour and dashes of reference levels, in the order in which they are given.
REFERENCES = (
    {"color": NEUTRAL, "linestyle": "-"},
    {"color": COUNTING, "linestyle": (0, (5, 2))},
    {"color": CHANCE, "linestyle": (0, (1, 2))},
)


class Dots(NamedTuple):
    """The numbers of one experiment."""

    label: str  # its name
    values: list[float]  # one for each seed
    interval: tuple[float, float] | None  # low and high end, around the mean


class Curves(NamedTuple):
    """The curves of one experiment."""

    label: str  # its name
    x: list[float]  # places of the points
    values: list[list[float]]  # one curve for each seed


def scores_by_experiment(
    scores: list[Dots],
    differences: list[Dots | None],
    references: dict[str, float],
    names: tuple[str, str],
    path: str | Path,
) -> None:
    """Draw the scores of experiments beside their differences to a base."""
    with new_figure(path, width=8, height=1.5 + 0.46 * len(scores)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _name_rows(left, [dots.label for dots in scores])
        _draw_rows(left, right, range(len(scores)), scores, differences, True)
        _draw_references(left.axvline, references)
        right.axvline(0, color=INK, linewidth=1, zorder=1)
        for axes, name in zip((left, right), names, strict=True):
            axes.set_xlabel(fill(name, 36))
            axes.tick_params(axis="y", length=0, labelsize=9.5)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
            axes.margins(x=0.08)
        _legend(figure, references, "|")


def scores_by_number(
    x: list[float],
    scores: list[Dots],
    differences: list[Dots | None],
    references: dict[str, float],
    names: tuple[str, str, str],
    path: str | Path,
) -> None:
    """Draw both against the number that the experiments differ in."""
    with new_figure(path, width=8, height=3.9) as figure:
        left, right = figure.subplots(1, 2, sharex=True)
        if min(x) > 0:
            left.set_xscale("log", base=2)
            left.set_xlim(min(x) / 2**0.35, max(x) * 2**0.35)
        else:  # a number like "none of it" has no place among doublings
            left.margins(x=0.08)
            right.margins(x=0.08)
        means = [np.mean(dots.values) for dots in scores]
        left.plot(x, means, color=VALID, linewidth=1.2, zorder=2)
        _draw_rows(left, right, x, scores, differences, False)
        _draw_references(left.axhline, references)
        right.axhline(0, color=INK, linewidth=1, zorder=1)
        left.set_xticks(sorted(set(x)))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.xaxis.set_minor_locator(NullLocator())
        for axes, name in zip((left, right), names[1:], strict=True):
            axes.set_xlabel(names[0])
            axes.set_ylabel(fill(name, 44))
            axes.margins(y=0.1)
        _legend(figure, references, "_")


def code_use(
    labels: list[str],
    usage: list[list[float]],
    perplexity: list[list[float]],
    path: str | Path,
) -> None:
    """Draw how evenly the codes of each target are used, codebook by codebook."""
    one, mean = (TRAIN, "one codebook, mean over seeds"), (INK, "mean over codebooks")
    with new_figure(path, width=8, height=1.5 + 0.42 * len(labels)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _name_rows(left, labels)
        left.set_title("Codes that occur")
        right.set_title("Perplexity, share of the codebook")
        for axes, shares in ((left, usage), (right, perplexity)):
            for line, values in enumerate(shares):
                places = [line] * len(values)
                axes.plot(values, places, "o", color=TRAIN, alpha=0.7, ms=5)
                axes.plot(np.mean(values), line, "D", color=INK, ms=6)
            axes.set_xlim(-0.03, 1.03)
            ticks = [0, 0.25, 0.5, 0.75, 1]
            axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
            axes.tick_params(axis="y", length=0, labelsize=9.5)
        handles = [_mark("o", *one), _mark("D", *mean)]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)


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
    columns = min(COLUMNS, len(curves))
    width, height = {1: 4.5, 2: 6.5}.get(columns, 8), ceil(len(curves) / columns)
    with new_figure(path, width=width, height=1.1 + 2.1 * height) as figure:
        panels = grid(figure, len(curves), columns, names[0])
        for axes, ours in zip(panels, curves, strict=True):
            if zero:
                axes.axhline(0, **ZERO)
            if reference is not None:
                axes.plot(reference.x, np.mean(reference.values, axis=0), **REFERENCE)
            if base is not None and ours.label != base.label:
                _draw_band(axes, base, INK, is_behind=True)
            _draw_band(axes, ours, VALID, is_behind=False)
            axes.set_title(fill(ours.label, TITLE_WIDTH), fontsize=9.5)
        for axes in panels[::columns]:
            axes.set_ylabel(names[1])
        panels[0].xaxis.set_major_locator(step_ticks())
        if shares:
            panels[0].yaxis.set_major_formatter(FuncFormatter(percent_tick))
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


def _name_rows(axes: Axes, labels: list[str]) -> None:
    """A row for each label, the first at the top."""
    axes.set_yticks(range(len(labels)), [fill(label, LABEL_WIDTH) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _draw_references(draw: Callable, references: dict[str, float]) -> None:
    for level, style in zip(references.values(), REFERENCES, strict=False):
        draw(level, linewidth=1.3, zorder=1, **style)


def _draw_rows(left, right, places, scores, differences, horizontal: bool) -> None:
    """Each experiment at its place; the base has no difference to itself."""
    for place, ours, difference in zip(places, scores, differences, strict=True):
        _draw_dots(left, ours, place, horizontal)
        if difference is not None:
            _draw_dots(right, difference, place, horizontal)
        elif horizontal:
            write(right, "base", (0, place), (6, 0), va="center")
        else:
            write(right, "base", (place, 0), (0, 6), ha="center")


def _draw_dots(axes: Axes, dots: Dots, place: float, horizontal: bool) -> None:
    """Seeds as rings, their mean as a bar, the interval as a line."""

    def draw(values, form, **style):
        ends = values, [place] * len(values)
        axes.plot(*(ends if horizontal else ends[::-1]), form, **style)

    if dots.interval is not None:
        draw(list(dots.interval), "-", color=INK, linewidth=1.5, zorder=2.5)
    draw(dots.values, "o", color=VALID, markersize=5.5, fillstyle="none", zorder=3)
    bar = "|" if horizontal else "_"
    draw([np.mean(dots.values)], bar, color=INK, markersize=13, mew=2.4, zorder=2.7)


def _legend(figure: Figure, references: dict[str, float], mean: str) -> None:
    handles = [
        _mark("o", VALID, "one seed", fillstyle="none"),
        _mark(mean, INK, "mean", mew=2.4),
        Line2D([], [], color=INK, linewidth=1.5, label="95% interval"),
    ]
    for name, style in zip(references, REFERENCES, strict=False):
        handles.append(Line2D([], [], label=name, **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _mark(marker: str, color: str, label: str, **style) -> Line2D:
    style = {"color": color, "linestyle": "", "ms": 6, **style}
    return Line2D([], [], marker=marker, label=label, **style)


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
