"""What each layer knows: curves over the layers of an encoder, and learned mixtures."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    NEUTRAL,
    VALID,
    new_figure,
    percent_tick,
)
from muq_plugins.evaluation.probing.metrics import METRIC_NAMES
from muq_plugins.evaluation.probing.result import (
    LOG_MEL,
    MIXTURE,
    TRAINED,
    UNTRAINED,
    TaskResult,
)

COLUMNS = 3
COLORS = {TRAINED: VALID, UNTRAINED: NEUTRAL, LOG_MEL: COUNTING}


def layer_curves(results: list[TaskResult], reader: str, path: str | Path) -> None:
    """Draw the score of every layer, one panel for each task."""
    if not results:
        raise ValueError("there is no probe result to draw")
    lines = ceil(len(results) / COLUMNS)
    columns = min(COLUMNS, len(results))
    width = 8 if columns > 1 else 4.5
    with new_figure(path, width=width, height=0.6 + 2.5 * lines) as figure:
        for index, result in enumerate(results):
            axes = figure.add_subplot(lines, columns, index + 1)
            _draw_task(axes, result, reader)
        figure.legend(
            handles=[
                Line2D([], [], color=VALID, marker="o", markersize=3, label=TRAINED),
                Line2D([], [], color=NEUTRAL, label=UNTRAINED),
                Line2D([], [], color=COUNTING, linestyle="--", label=LOG_MEL),
                Line2D([], [], color=CHANCE, linestyle=":", label="chance"),
            ],
            loc="outside lower center",
            ncols=4 if columns > 1 else 2,
        )


def mixture_weights(results: list[TaskResult], reader: str, path: str | Path) -> None:
    """Draw how much of each layer the learned mixtures use, one line for each task."""
    mixtures = {
        result.label: row.weights
        for result in results
        if (row := result.row(TRAINED, reader, MIXTURE)) is not None
    }
    if not mixtures:
        raise ValueError("there is no layer mixture to draw")
    shares = np.array(list(mixtures.values()))
    with new_figure(path, width=8, height=1.1 + 0.36 * len(mixtures)) as figure:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=shares.max(), aspect="auto")
        for line, row in enumerate(shares):
            for layer, share in enumerate(row):
                is_dark = share > 0.6 * shares.max()
                axes.text(
                    layer,
                    line,
                    percent_tick(round(share, 2)),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if is_dark else None,
                )
        axes.set_yticks(range(len(mixtures)), list(mixtures))
        axes.set_xticks(range(shares.shape[1]), _layer_names(shares.shape[1]))
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel("layer")


def _draw_task(axes: Axes, result: TaskResult, reader: str) -> None:
    """One panel: curves, the mixture beside them, and the references."""
    layers = 0
    for name in (UNTRAINED, TRAINED):
        curve = result.curve(name, reader)
        if not curve:
            continue
        x = [row.layer for row in curve]
        layers = max(layers, len(x))
        color = COLORS[name]
        if name == TRAINED:
            low, high = [row.low for row in curve], [row.high for row in curve]
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        marker = "o" if name == TRAINED else None
        values = [row.value for row in curve]
        axes.plot(x, values, color=color, marker=marker, markersize=3.5)
        mixture = result.row(name, reader, MIXTURE)
        if mixture is not None:
            axes.plot(layers, mixture.value, "D", color=color, markersize=4.5)
    if log_mel := result.row(LOG_MEL, reader):
        axes.axhline(log_mel.value, color=COUNTING, linewidth=1.2, linestyle="--")
    axes.axhline(result.chance, color=CHANCE, linewidth=1.2, linestyle=":")
    axes.set_title(result.label.replace("_", " "))
    step = max(1, ceil(layers / 7))
    ticks = list(range(0, layers, step))
    labels = [str(tick) for tick in ticks]
    if any(row.layer == MIXTURE for row in result.rows if row.reader == reader):
        ticks, labels = [*ticks, layers], [*labels, "mix"]
    axes.set_xticks(ticks, labels)
    axes.yaxis.set_major_formatter(FuncFormatter(percent_tick))
    axes.set_xlabel("layer")
    axes.set_ylabel(METRIC_NAMES[result.metric].lower(), fontsize=8)


def _layer_names(layers: int) -> list[str]:
    return ["0 (front end)", *(str(layer) for layer in range(1, layers))]
