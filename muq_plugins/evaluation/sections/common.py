"""Sections that the reports of all stages have."""

from pathlib import Path

import numpy as np

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.report import Picture, Section, Table, percent
from muq_plugins.lobes import codes


def codes_section(
    code_counts: np.ndarray, folder: Path, heard: str = "unseen clips"
) -> Section:
    """How often each code is used."""
    path = folder / "codes.png"
    figures.code_histograms(code_counts, path)
    frames, size = int(code_counts.sum(axis=1).max()), code_counts.shape[1]
    return Section(
        "Are the codes used?",
        f"Counted on {frames:,} frames of {heard}. Usage is the share of the "
        f"{size} codes that occur at all; perplexity is the number of equally frequent "
        "codes that would carry as much information.",
        [
            Picture(
                path,
                "Share of frames of each code, most frequent first, on a logarithmic "
                "scale.",
                "One chart for each codebook: the frequency of its codes in falling "
                "order, with codes never used marked.",
            )
        ],
        codebook_table(
            {
                "Usage": [percent(x) for x in codes.usage(code_counts).tolist()],
                "Perplexity": [f"{x:.0f}" for x in codes.perplexity(code_counts)],
                "Entropy (nat)": [f"{x:.2f}" for x in codes.entropy(code_counts)],
                "Dead codes": [str(x) for x in codes.dead_codes(code_counts).tolist()],
            }
        ),
    )


def optimisation_section(rows: list[dict], folder: Path) -> Section:
    """Learning rate, gradient norm and speed."""
    path = folder / "optimisation.png"
    figures.optimisation_curves(rows, path)
    return Section(
        "Did the training run smoothly?",
        "A gradient norm that jumps or grows announces a training that diverges. A "
        "speed that sinks points at the reading of the audio.",
        [
            Picture(
                path,
                "Learning rate, gradient norm before clipping, and seconds of audio "
                "trained on per second.",
                "Line charts of learning rate, gradient norm and speed against steps.",
            )
        ],
    )


def codebook_table(columns: dict[str, list[str]]) -> Table:
    """A table with one line for each codebook."""
    rows = zip(*columns.values(), strict=True)
    return Table(
        ["Codebook", *columns],
        [[str(number), *cells] for number, cells in enumerate(rows, start=1)],
    )
