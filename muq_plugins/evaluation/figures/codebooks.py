"""What each codebook does: how it is used, what it adds, how well it is predicted."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    NEUTRAL,
    VALID,
    new_figure,
    percent_tick,
    reference_line,
)
from muq_plugins.evaluation.run_files import select
from muq_plugins.lobes import codes


def accuracy_per_codebook(
    rows: list[dict],
    path: str | Path,
    code_counts: torch.Tensor | np.ndarray | None = None,
) -> None:
    """Draw masked accuracy and cross-entropy of every codebook in the last
    validation.
    """
    row = _valid_rows_with(rows, "accuracy_per_codebook")[-1]
    accuracy = np.array(row["accuracy_per_codebook"], dtype=float)
    losses = np.array(row["cross_entropy_per_codebook"], dtype=float)
    guessing = [] if code_counts is None else codes.most_frequent_share(code_counts)
    with new_figure(path, width=8, height=3.7) as figure:
        left, right = figure.subplots(1, 2)
        _draw_bars(left, accuracy, guessing, "{:.0%}")
        left.yaxis.set_major_formatter(percent_tick)
        left.set_title("Masked accuracy")
        left.set_ylabel("masked codes guessed right")
        _draw_bars(right, losses, row.get("code_entropy_per_codebook", []), "{:.2f}")
        if row.get("chance") is not None:
            reference_line(right, row["chance"], "chance\nln V", CHANCE)
        right.set_title("Masked cross-entropy")
        right.set_ylabel("nats")
        handles, _ = right.get_legend_handles_labels()
        figure.legend(handles=handles[::-1], loc="outside lower center", ncols=2)


def code_histograms(code_counts: torch.Tensor | np.ndarray, path: str | Path) -> None:
    """Draw how often each code is used, most frequent first, one panel a codebook."""
    counts = np.asarray(code_counts, dtype=float)
    num_codebooks, size = counts.shape
    usage = codes.usage(counts).tolist()
    perplexity = codes.perplexity(counts).tolist()
    frequencies = np.sort(counts / counts.sum(axis=1, keepdims=True))[:, ::-1]
    columns = min(4, num_codebooks)
    lines = math.ceil(num_codebooks / columns)
    width = 8 if columns > 1 else 5
    with new_figure(path, width=width, height=1.0 + 1.75 * lines) as figure:
        panels = figure.subplots(
            lines, columns, sharex=True, sharey=True, squeeze=False
        ).flatten()
        for index, axes in enumerate(panels[:num_codebooks]):
            used = frequencies[index][frequencies[index] > 0]
            ranks = np.arange(1, len(used) + 1)
            axes.fill_between(ranks, used, 1e-9, color=VALID, alpha=0.2, linewidth=0)
            axes.plot(ranks, used, color=VALID, linewidth=1.6)
            dead = axes.axvspan(
                len(used), size, color=COUNTING, alpha=0.18, linewidth=0
            )
            even = axes.axhline(
                1 / size, color=CHANCE, linewidth=1, linestyle=(0, (5, 3))
            )
            axes.set_title(f"Codebook {index + 1}", fontsize=9.5, pad=16)
            axes.text(
                0,
                1.03,
                f"usage {usage[index]:.0%}, perplexity {perplexity[index]:.0f}",
                transform=axes.transAxes,
                fontsize=8,
                color="#4B5563",
            )
            if index + columns >= num_codebooks:
                axes.set_xlabel("rank of the code")
                axes.tick_params(labelbottom=True)
        for axes in panels[num_codebooks:]:
            axes.remove()
        panels[0].set_yscale("log")
        panels[0].set_xlim(1, size)
        panels[0].set_xticks([1, size // 2, size])
        panels[0].set_ylim(
            frequencies[frequencies > 0].min() / 2, frequencies.max() * 2
        )
        panels[0].yaxis.set_major_formatter(percent_tick)
        panels[0].yaxis.set_minor_locator(NullLocator())
        figure.supylabel("share of frames", fontsize=9.5)
        figure.legend(
            [even, dead],
            ["if all codes were used equally often", "codes never used"],
            loc="outside lower center",
            ncols=2,
        )


def error_by_level(rows: list[dict], path: str | Path) -> None:
    """Draw the reconstruction error after each codebook, first and last validation."""
    valid = _valid_rows_with(rows, "reconstruction_error_per_level")
    last = valid[-1]["reconstruction_error_per_level"]
    levels = np.arange(len(last))
    with new_figure(path, width=8, height=3.4) as figure:
        axes = figure.add_subplot()
        if len(valid) > 1:
            first = valid[0]["reconstruction_error_per_level"]
            label = f"first validation, step {valid[0]['step']}"
            axes.plot(levels, first, color=NEUTRAL, marker="o", markersize=4)
            axes.lines[-1].set_label(label)
        label = f"last validation, step {valid[-1]['step']}"
        axes.plot(levels, last, color=VALID, marker="o", markersize=5, label=label)
        for level in range(0, len(last), math.ceil(len(last) / 9)):
            axes.annotate(
                f"{last[level]:.2f}",
                xy=(level, last[level]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
                color=VALID,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
        axes.set_ylim(0, 1.12 * max(last))
        axes.margins(x=0.08)
        axes.set_title("Reconstruction error by number of codebooks decoded")
        axes.set_ylabel("mean |error| of the features")
        axes.set_xlabel("codebooks decoded (0: nothing)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower left")


def _valid_rows_with(rows: list[dict], key: str) -> list[dict]:
    found = [row for row in select(rows, kind="valid") if row.get(key)]
    if not found:
        raise ValueError(f"there is no validation row with {key} to draw")
    return found


def _draw_bars(axes: Axes, values: np.ndarray, counting, text: str) -> None:
    """A bar for each codebook, its value on it, and a tick where counting gets."""
    position = np.arange(1, len(values) + 1)
    width = 0.4 if len(values) < 3 else 0.7
    axes.bar(position, values, width=width, color=VALID, label="the model")
    if len(counting):
        axes.hlines(
            counting,
            position - width / 2 - 0.06,
            position + width / 2 + 0.06,
            color=COUNTING,
            linewidth=2.2,
            label="a model that only counts codes",
        )
    for x, value in zip(position, values, strict=True):
        if len(values) > 8:
            break  # a narrow bar has no room for its value; the report has a table
        axes.annotate(
            text.format(value),
            xy=(x, value),
            xytext=(0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color="white",
        )
    axes.set_xlabel("codebook")
    axes.set_xlim(0.4, len(values) + 0.6)
    axes.set_xticks(position)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.14)
