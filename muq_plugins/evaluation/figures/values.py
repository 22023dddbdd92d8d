"""Bars, intervals, histograms, shares and spectrograms: numbers that are no curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    INK,
    NEUTRAL,
    VALID,
    grid,
    new_figure,
    percent_tick,
    reference_line,
    write,
)


class Bars(NamedTuple):
    """One number a codebook, and a mark on each bar for what it is compared with."""

    title: str
    ylabel: str
    values: Sequence[float]
    marks: Sequence[float] = ()
    level: tuple[float, str] | None = None  # height and name of a line
    shares: bool = False


def bars(charts: Sequence[Bars], names: tuple[str, str], path: str | Path) -> None:
    """Draw bars side by side; ``names`` of the bars and of the marks on them."""
    with new_figure(path, width=8, height=3.7) as figure:
        panels = figure.subplots(1, len(charts), squeeze=False)[0]
        handles = {}
        for axes, chart in zip(panels, charts, strict=True):
            _draw_bars(axes, chart, names)
            found, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, found, strict=True))
        shown = [handles[name] for name in names if name in handles]
        figure.legend(handles=shown, loc="outside lower center", ncols=2)


def _draw_bars(axes: Axes, chart: Bars, names: tuple[str, str]) -> None:
    """A bar for each codebook, its value on it, and a tick where counting gets."""
    values = np.array(chart.values, dtype=float)
    position = np.arange(1, len(values) + 1)
    width = 0.4 if len(values) < 3 else 0.7
    axes.bar(position, values, width=width, color=VALID, label=names[0])
    if len(chart.marks):
        half, style = width / 2 + 0.06, {"color": COUNTING, "linewidth": 2.2}
        ends = position - half, position + half
        axes.hlines(chart.marks, *ends, label=names[1], **style)
    for x, value in zip(position, values, strict=True):
        if len(values) > 8:
            break  # a narrow bar has no room for its value; the report has a table
        text = f"{value:.0%}" if chart.shares else f"{value:.2f}"
        style = {"ha": "center", "va": "top", "fontsize": 8, "color": "white"}
        write(axes, text, (x, value), (0, -3), **style)
    if chart.level:
        reference_line(axes, *chart.level, CHANCE)
    if chart.shares:
        axes.yaxis.set_major_formatter(percent_tick)
    axes.set_title(chart.title)
    axes.set_ylabel(chart.ylabel)
    axes.set_xlabel("codebook")
    axes.set_xlim(0.4, len(values) + 0.6)
    axes.set_xticks(position)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.14)


def intervals(
    scores: dict[str, tuple[float, float, float]],
    chance: float,
    xlabel: str,
    path: str | Path,
) -> None:
    """Draw shares with their intervals (value, low, high); the last is highlighted."""
    colors = [NEUTRAL] * (len(scores) - 1) + [VALID]
    with new_figure(path, width=8, height=1.1 + 0.5 * len(scores)) as figure:
        axes = figure.add_subplot()
        values = [value for value, _, _ in scores.values()]
        axes.barh(list(scores), values, height=0.6, color=colors)
        for line, (value, low, high) in enumerate(scores.values()):
            axes.plot([low, high], [line, line], color=INK, linewidth=1.4)
            axes.plot([low, high], [line, line], "|", color=INK, markersize=7)
            place, style = (max(high, value), line), {"fontweight": "bold"}
            write(axes, f"{value:.1%}", place, (7, 0), va="center", **style)
        axes.axvline(chance, color=CHANCE, linewidth=1.2, linestyle=(0, (5, 3)))
        style = {"xycoords": axes.get_xaxis_transform(), "color": CHANCE}
        write(axes, "chance", (chance, 1), (3, 0), fontsize=8.5, **style)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(xlabel)
        axes.tick_params(axis="y", length=0, labelsize=9.5)
        axes.grid(axis="y", visible=False)


def histograms(counts: np.ndarray, notes: Sequence[str], path: str | Path) -> None:
    """Draw how often each code is used, most frequent first, one panel a codebook.

    ``counts`` (N, V), and a note for each of the N.
    """
    counts = np.asarray(counts, dtype=float)
    num_codebooks, size = counts.shape
    frequencies = np.sort(counts / counts.sum(axis=1, keepdims=True))[:, ::-1]
    columns = min(4, num_codebooks)
    width, height = 8 if columns > 1 else 5, math.ceil(num_codebooks / columns)
    with new_figure(path, width=width, height=1.0 + 1.75 * height) as figure:
        panels = grid(figure, num_codebooks, columns, "rank of the code")
        for index, (axes, falling) in enumerate(zip(panels, frequencies, strict=True)):
            used = falling[falling > 0]
            ranks = np.arange(1, len(used) + 1)
            axes.fill_between(ranks, used, 1e-9, color=VALID, alpha=0.2, linewidth=0)
            axes.plot(ranks, used, color=VALID, linewidth=1.6)
            style = {"color": COUNTING, "alpha": 0.18, "linewidth": 0}
            dead = axes.axvspan(len(used), size, **style)
            style = {"color": CHANCE, "linewidth": 1, "linestyle": (0, (5, 3))}
            even = axes.axhline(1 / size, **style)
            axes.set_title(f"Codebook {index + 1}", fontsize=9.5, pad=16)
            style = {"fontsize": 8, "color": "#4B5563"}
            axes.text(0, 1.03, notes[index], transform=axes.transAxes, **style)
        lowest = frequencies[frequencies > 0].min()
        panels[0].set_yscale("log")
        panels[0].set_xlim(1, size)
        panels[0].set_xticks([1, size // 2, size])
        panels[0].set_ylim(lowest / 2, frequencies.max() * 2)
        panels[0].yaxis.set_major_formatter(percent_tick)
        panels[0].yaxis.set_minor_locator(NullLocator())
        figure.supylabel("share of frames", fontsize=9.5)
        names = ["if all codes were used equally often", "codes never used"]
        figure.legend([even, dead], names, loc="outside lower center", ncols=2)


def shares(
    rows: dict[str, Sequence[float]],
    columns: Sequence[str],
    xlabel: str,
    path: str | Path,
) -> None:
    """Draw shares as a table: the larger, the darker."""
    values = np.array(list(rows.values()))
    with new_figure(path, width=8, height=1.1 + 0.36 * len(rows)) as figure:
        axes = figure.add_subplot()
        axes.imshow(values, cmap="Blues", vmin=0, vmax=values.max(), aspect="auto")
        for (line, column), share in np.ndenumerate(values):
            color = "white" if share > 0.6 * values.max() else None
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
            axes.text(column, line, percent_tick(round(share, 2)), **style)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_xticks(range(len(columns)), list(columns))
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel(xlabel)


def spectrograms(
    mel: np.ndarray,
    reconstructions: dict[str, np.ndarray],
    path: str | Path,
    frame_rate: float = 100.0,
) -> None:
    """Draw a log-mel (frames, mels) above its reconstructions, each with its error."""
    mel = np.asarray(mel, dtype=float)
    decoded = {name: np.asarray(array) for name, array in reconstructions.items()}
    errors = {name: np.abs(array - mel) for name, array in decoded.items()}
    lines = 1 + len(decoded)
    # Percentiles, so that one loud moment does not make the rest dark.
    low, high = np.percentile(mel, [1, 99.5])
    error_high = max(np.percentile(error, 99.5) for error in errors.values())
    extent = (0, len(mel) / frame_rate, 0, mel.shape[1])
    common = {"origin": "lower", "aspect": "auto", "extent": extent}
    with new_figure(path, width=8, height=0.9 + 1.3 * lines) as figure:
        panels = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
        images = {"cmap": "magma", "vmin": low, "vmax": high, **common}
        mistakes = {"cmap": "cividis", "vmin": 0, "vmax": error_high, **common}
        shown = panels[0, 0].imshow(mel.T, **images)
        panels[0, 0].set_title("Original")
        for line, (name, array) in enumerate(decoded.items(), start=1):
            panels[line, 0].imshow(array.T, **images)
            panels[line, 0].set_title(f"Decoded from {name}")
            wrong = panels[line, 1].imshow(errors[name].T, **mistakes)
            panels[line, 1].set_title(f"|error|, mean {errors[name].mean():.2f}")
        for axes in panels.flatten():
            axes.grid(visible=False)
        for axes in panels[:, 0]:
            axes.set_ylabel("mel band")
        for axes in panels[-1]:
            axes.set_xlabel("time in s")
        # The free corner beside the original explains the two colour scales.
        panels[0, 1].axis("off")
        scales = (0.85, shown, "normalised log-mel"), (0.3, wrong, "|error|")
        for height, image, name in scales:
            inset = panels[0, 1].inset_axes([0.1, height, 0.8, 0.1])
            bar = figure.colorbar(image, cax=inset, orientation="horizontal")
            bar.set_label(name, fontsize=8.5)
            bar.outline.set_visible(False)
