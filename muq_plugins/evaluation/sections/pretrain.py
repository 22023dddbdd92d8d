"""What a pre-training has learned, as sections of a report."""

from pathlib import Path

import numpy as np

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.probe_result import ProbeResult
from muq_plugins.evaluation.report import Picture, Section, Table, number, percent
from muq_plugins.evaluation.run_files import select
from muq_plugins.evaluation.sections.common import codebook_table
from muq_plugins.lobes import codes


def cross_entropy_section(rows: list[dict], folder: Path) -> Section:
    """Masked cross-entropy over the training."""
    path = folder / "loss.png"
    figures.loss_curves(rows, path)
    test = ""
    for row in select(rows, kind="test")[-1:]:
        test = (
            f"\n\nOn the test part, which nothing was chosen by: cross-entropy "
            f"{number(row['cross_entropy'])} nat, a counting model "
            f"{number(row['code_entropy'])}, accuracy {percent(row['accuracy'])}."
        )
    return Section(
        "Has it learned from the music?",
        "The model names the codes of frames that it does not hear. Guessing costs "
        "ln V nats a code. A model that knows how often each code occurs, and nothing "
        "else, pays the entropy of the codes. Only what lies below that line was "
        "learned from the music around the gap." + test,
        [
            Picture(
                path,
                "Masked cross-entropy against training steps. Thin: as logged. Bold: "
                "moving mean. The model was not trained on the validation clips.",
                "Line chart of masked cross-entropy in training and validation, with "
                "lines for chance and for a model that only counts codes.",
            )
        ],
    )


def prediction_section(
    rows: list[dict], code_counts: np.ndarray | None, folder: Path
) -> Section:
    """Accuracy and cross-entropy of every codebook in the last validation."""
    path = folder / "accuracy_per_codebook.png"
    figures.accuracy_per_codebook(rows, path, code_counts)
    row = select(rows, kind="valid")[-1]
    columns = {
        "Accuracy": [percent(x) for x in row["accuracy_per_codebook"]],
        "Cross-entropy (nat)": [number(x) for x in row["cross_entropy_per_codebook"]],
    }
    if "code_entropy_per_codebook" in row:
        entropy = row["code_entropy_per_codebook"]
        columns["Counting model (nat)"] = [number(x) for x in entropy]
    if code_counts is not None:
        guessing = codes.most_frequent_share(code_counts).tolist()
        columns["Most frequent code"] = [percent(x) for x in guessing]
    return Section(
        "Which codebooks does it predict?",
        "The first codebook holds the coarse shape of the spectrum and is the easiest "
        "to predict; each later one describes what the ones before it left over.",
        [
            Picture(
                path,
                f"The last validation, step {row['step']}. Orange: a model that only "
                "counts codes, which always guesses the most frequent one.",
                "Bar charts of masked accuracy and masked cross-entropy of each "
                "codebook, with marks for a model that only counts codes.",
            )
        ],
        codebook_table(columns),
    )


def probe_sections(results: list[ProbeResult], folder: Path) -> list[Section]:
    """How well a label can be read off the encoder."""
    path = folder / "probe.png"
    figures.probe_bars(results, path)
    last = results[-1]
    comparison = Section(
        "Does it know what it hears?",
        "Each clip becomes one vector, the mean of the encoder's hidden state over its "
        "frames, after the layer that cross-validation on the training part chooses. A "
        f"logistic regression then tells {', '.join(last.classes)} apart. It "
        f"was trained on {last.train_clips} clips and tested on {len(last.labels)} "
        f"clips of {len(set(last.groups))} other pieces; the encoder was not trained "
        "for it.",
        [
            Picture(
                path,
                "Balanced accuracy: each class counts the same, so that guessing is "
                f"right in {last.chance:.1%}. Intervals are bootstrapped over pieces.",
                "Bar chart of balanced accuracy: "
                + ", ".join(f"{r.name} {r.balanced_accuracy:.1%}" for r in results),
            )
        ],
        Table(
            [
                "Features",
                "Layer",
                "Size",
                "Balanced accuracy",
                "95% interval",
                "Accuracy",
                "F1",
            ],
            [
                [
                    result.name,
                    "-" if result.layer is None else str(result.layer),
                    str(result.feature_size),
                    percent(result.balanced_accuracy),
                    f"{result.interval[0]:.1%} to {result.interval[1]:.1%}",
                    percent(result.accuracy),
                    number(result.macro_f1),
                ]
                for result in results
            ],
        ),
    )
    recalls = [result.recalls for result in results]
    classes = Section(
        "Class by class",
        "Share of the test clips of each class that is recognised.",
        table=Table(
            ["Class", "Test clips", *(result.name for result in results)],
            [
                [
                    name,
                    str(last.labels.count(name)),
                    *(percent(recall[name]) for recall in recalls),
                ]
                for name in recalls[0]
            ],
        ),
    )
    return [comparison, classes]
