"""How well a label can be read off different features."""

from pathlib import Path

from matplotlib.ticker import PercentFormatter

from muq_plugins.evaluation.figures.style import CHANCE, INK, NEUTRAL, VALID, new_figure
from muq_plugins.evaluation.probe_result import ProbeResult


def probe_bars(results: list[ProbeResult], path: str | Path) -> None:
    """Draw the balanced accuracy of every kind of features with its 95% interval."""
    if not results:
        raise ValueError("there is no probe result to draw")
    scores = [result.balanced_accuracy for result in results]
    colors = [NEUTRAL] * (len(results) - 1) + [VALID]
    with new_figure(path, width=8, height=1.1 + 0.5 * len(results)) as figure:
        axes = figure.add_subplot()
        axes.barh([r.name for r in results], scores, height=0.6, color=colors)
        for line, result in enumerate(results):
            low, high = result.interval
            axes.plot([low, high], [line, line], color=INK, linewidth=1.4)
            axes.plot([low, high], [line, line], "|", color=INK, markersize=7)
            axes.annotate(
                f"{result.balanced_accuracy:.1%}",
                xy=(max(high, result.balanced_accuracy), line),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold",
            )
        chance = results[0].chance
        axes.axvline(chance, color=CHANCE, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(
            "chance",
            xy=(chance, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            color=CHANCE,
            fontsize=8.5,
        )
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("balanced accuracy on unseen pieces, with 95% interval")
        axes.tick_params(axis="y", length=0, labelsize=9.5)
        axes.grid(axis="y", visible=False)
