"""Several scores of a few models at a glance: an axis for each score."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from muq_plugins.evaluation.figures.style import INK, new_figure, percent_tick


def radar(
    axes: Sequence[str],
    values: Mapping[str, Sequence[float]],
    colors: Sequence[str],
    path: str | Path,
) -> None:
    """Values 0..1 of each model along axes; a NaN is a gap in its line."""
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    with new_figure(path, 6.5, 5.6) as figure:
        chart = figure.add_subplot(projection="polar")
        chart.set_theta_zero_location("N")
        chart.set_theta_direction(-1)
        for number, (name, along) in enumerate(values.items()):
            # Each spoke of its own, so that a gap stays one.
            closed = np.append(along, along[0])
            style = {"color": colors[number % len(colors)], "marker": "o"}
            way = np.append(angles, angles[0])
            chart.plot(way, closed, label=name, markersize=4, **style)
            if number == 0:
                chart.fill(way, np.nan_to_num(closed), color=style["color"], alpha=0.1)
        chart.set_ylim(0, 1)
        chart.set_yticks([0.25, 0.5, 0.75, 1])
        chart.yaxis.set_major_formatter(percent_tick)
        chart.set_rlabel_position(180 / len(axes))
        chart.spines["polar"].set_visible(False)
        names = [textwrap.fill(name, 14) for name in axes]
        chart.set_xticks(angles, names, color=INK)
        chart.tick_params(axis="x", pad=8)
        for tick, angle in zip(chart.get_xticklabels(), angles, strict=True):
            side = round(np.sin(angle), 3)
            tick.set_ha("left" if side > 0 else "right" if side < 0 else "center")
        figure.legend(loc="outside lower center", ncols=2)
