"""Curves over the steps of a training."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    INK,
    TRAIN,
    VALID,
    new_figure,
    reference_line,
)
from muq_plugins.evaluation.run_files import select, series

# Training rows are noisy: the bold line is their mean over this share of the rows.
SMOOTHING = 0.05
TOKENIZER_TERMS = {
    "reconstruction_error": "Reconstruction error (L1)",
    "commitment_loss": "Commitment loss",
    "codebook_loss": "Codebook loss",
}


def loss_curves(rows: list[dict], path: str | Path) -> None:
    """Draw what is minimised against the steps.

    Pre-training: the masked cross-entropy, with the two levels that give it a meaning:
    chance, and the codes' own entropy, which is what a counting model gets. Tokenizer:
    the three terms of the loss. Audio and text: the contrastive loss and the accuracy
    within a batch, with what guessing gives.
    """
    stages = {row.get("stage") for row in rows}
    if stages == {"pretrain"}:
        with new_figure(path, width=8, height=4.2) as figure:
            _draw_cross_entropy(figure, rows)
    elif stages == {"mulan"}:
        with new_figure(path, width=8, height=3.2) as figure:
            _draw_contrast(figure, rows)
    elif stages == {"tokenizer"}:
        with new_figure(path, width=8, height=3) as figure:
            _draw_tokenizer_terms(figure, rows)
    else:
        raise ValueError(f"loss_curves needs the rows of one stage, got {stages}")


def optimisation_curves(rows: list[dict], path: str | Path) -> None:
    """Draw learning rate, gradient norm and speed against the steps."""
    panels = {
        "lr": "Learning rate",
        "grad_norm": "Gradient norm",
        "audio_seconds_per_second": "Audio-seconds per s",
    }
    train = select(rows, kind="train")
    with new_figure(path, width=8, height=2.7) as figure:
        for axes, (key, title) in zip(
            figure.subplots(1, 3), panels.items(), strict=True
        ):
            steps, values = series(train, key)
            _draw_train(axes, steps, values, smooth=key != "lr")
            if key == "lr":
                axes.yaxis.set_major_formatter(_scientific)
            axes.set_title(title)
            _finish(axes)
            axes.set_ylim(bottom=0)


def _draw_cross_entropy(figure: Figure, rows: list[dict]) -> None:
    axes = figure.add_subplot()
    _draw_train(axes, *series(select(rows, kind="train"), "cross_entropy"))
    valid = select(rows, kind="valid")
    _draw_valid(axes, *series(valid, "cross_entropy"))
    last = valid[-1] if valid else {}
    chance, counting = last.get("chance"), last.get("code_entropy")
    if chance is not None:
        reference_line(axes, chance, f"chance\nln V = {chance:.2f}", CHANCE)
    if counting is not None:
        label = f"a model that\nonly counts\ncodes: {counting:.2f}"
        reference_line(axes, counting, label, COUNTING, va="top")
    axes.set_title("Masked cross-entropy, mean over codebooks")
    axes.set_ylabel("nats")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    _finish(axes)


def _draw_contrast(figure: Figure, rows: list[dict]) -> None:
    panels = {"loss": "Contrastive loss", "accuracy": "Own text found in the batch"}
    valid = select(rows, kind="valid")
    both = figure.subplots(1, 2)
    for axes, (key, title) in zip(both, panels.items(), strict=True):
        _draw_train(axes, *series(select(rows, kind="train"), key))
        _draw_valid(axes, *series(valid, key))
        axes.set_title(title)
        _finish(axes)
    if valid and valid[-1].get("chance") is not None:
        reference_line(both[0], valid[-1]["chance"], "chance", CHANCE)
    both[1].set_ylim(bottom=0)
    both[1].legend(loc="upper left")


def _draw_tokenizer_terms(figure: Figure, rows: list[dict]) -> None:
    panels = figure.subplots(1, 3)
    for axes, (key, title) in zip(panels, TOKENIZER_TERMS.items(), strict=True):
        _draw_train(axes, *series(select(rows, kind="train"), key))
        _draw_valid(axes, *series(select(rows, kind="valid"), key))
        axes.set_title(title)
        _finish(axes)
    panels[0].legend(loc="upper right")


def _draw_train(axes: Axes, steps, values, smooth: bool = True) -> None:
    """Every row as a thin line, their moving mean as a bold one."""
    if not smooth:
        axes.plot(steps, values, color=INK)
        return
    axes.plot(steps, values, color=TRAIN, alpha=0.35, linewidth=1)
    axes.plot(steps, _moving_mean(values), color=TRAIN, label="training")


def _draw_valid(axes: Axes, steps, values) -> None:
    axes.plot(steps, values, color=VALID, marker="o", markersize=4, label="validation")
    if values.size and np.isfinite(values[-1]):
        axes.annotate(
            f"{values[-1]:.2f}",
            xy=(steps[-1], values[-1]),
            xytext=(4, 7),
            textcoords="offset points",
            ha="right",
            color=VALID,
            fontweight="bold",
            fontsize=9,
        )


def _moving_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the rows around each row; rows that are not finite do not count."""
    half = round(SMOOTHING * len(values) / 2)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array(
        [w[np.isfinite(w)].mean() if np.isfinite(w).any() else np.nan for w in windows]
    )


def _scientific(value: float, position: int | None = None) -> str:
    """Small numbers as a person writes them: 5e-4."""
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-") if value else "0"


def _finish(axes: Axes) -> None:
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10])
    )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(y=0.12)
