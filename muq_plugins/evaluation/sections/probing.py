"""What a probe of all layers has found, as sections of a report."""

from __future__ import annotations

from pathlib import Path

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.probing.metrics import METRIC_NAMES
from muq_plugins.evaluation.probing.result import (
    HIDDEN,
    LINEAR,
    LOG_MEL,
    MIXTURE,
    TRAINED,
    UNTRAINED,
    Row,
    TaskResult,
)
from muq_plugins.evaluation.report import Picture, Section, Table, percent

EXPLANATIONS = {
    LINEAR: "The weakest reader there is, so that the score belongs to the features.",
    HIDDEN: "One hidden layer finds what is there, but not on a straight line.",
}


def scores_section(results: list[TaskResult]) -> Section:
    """All tasks beside their references."""
    rows = []
    for result in results:
        for reader in (LINEAR, HIDDEN):
            ours = result.row(TRAINED, reader)
            if ours is None:
                continue
            references = (result.row(name, reader) for name in (LOG_MEL, UNTRAINED))
            rows.append(
                [
                    f"{result.label} ({reader})",
                    percent(result.chance),
                    *(percent(row.value) if row else "-" for row in references),
                    _with_interval(ours),
                    "-" if ours.layer is None else str(ours.layer),
                    _with_interval(result.row(TRAINED, reader, MIXTURE)),
                ]
            )
    return Section(
        "What can be read off it?",
        "Each clip becomes one vector a layer, the average over its frames; the "
        "encoder is frozen. Classes count the same: the score is the balanced accuracy "
        "of labels with one class a clip, the macro average precision of labels with "
        "several. Chance is the best answer that is always the same. The layer is "
        "chosen without the test part. Intervals (95%) are bootstrapped over the "
        "pieces of the test part, which no other part has.",
        table=Table(
            [
                "Label (probe)",
                "Chance",
                "Log-mel",
                "Untrained",
                "Trained",
                "Layer",
                "Mixture",
            ],
            rows,
        ),
    )


def layer_section(results: list[TaskResult], reader: str, folder: Path) -> Section:
    """The curves over the layers."""
    path = folder / f"layers_{reader.replace(' ', '_')}.png"
    figures.layer_curves(results, reader, path)
    best = "; ".join(
        f"{result.label}: best in layer {max(curve, key=lambda row: row.value).layer}"
        for result in results
        if (curve := result.curve(TRAINED, reader))
    )
    name = "linear probe" if reader == LINEAR else "probe with a hidden layer"
    return Section(
        f"Layer by layer: {name}",
        EXPLANATIONS[reader],
        [
            Picture(
                path,
                "Score on the test part against the layer; 0 is the front end, a "
                "filtered log-mel. Shaded: 95% interval of the trained encoder. "
                "Diamonds, if there are any: the learned mixture of all layers.",
                f"One chart for each label: score of every layer. {best}.",
            )
        ],
    )


def mixture_section(results: list[TaskResult], folder: Path) -> list[Section]:
    """What the learned mixtures of layers are made of."""
    if not any(result.row(TRAINED, HIDDEN, MIXTURE) for result in results):
        return []
    path = folder / "mixture.png"
    figures.mixture_weights(results, HIDDEN, path)
    return [
        Section(
            "Which layers does a probe choose?",
            "A probe with a hidden layer learns a softmax over the layers with the "
            "rest, as in SUPERB. Layers are standardised first, so that a share says "
            "how much of a layer is used. Equal shares mean that it did not matter.",
            [
                Picture(
                    path,
                    "Share of each layer in the mixture, the mean over seeds.",
                    "A table of shares: labels against layers.",
                )
            ],
        )
    ]


def task_section(result: TaskResult) -> Section:
    """All scores of a task."""
    others = [name for name in result.rows[0].metrics if name != result.metric]
    group = f"{result.group!r}" if result.group else "clip"
    many = len(result.classes) > 30
    names = f"{len(result.classes)} classes" if many else ", ".join(result.classes)
    text = (
        f"{names}. {result.clips['train']} clips to train on, "
        f"{result.clips['valid']} to stop and choose by, {result.clips['test']} to "
        f"test on. The test part has {result.test_groups} values of {group} that no "
        "other part has."
    )
    return Section(
        f"All scores: {result.label}",
        "\n\n".join([text, *result.notes]),
        table=Table(
            [
                "Features",
                "Probe",
                "Layer",
                METRIC_NAMES[result.metric],
                "Over seeds",
                *(METRIC_NAMES[name] for name in others),
            ],
            [
                [
                    row.features,
                    row.reader,
                    _layer(row),
                    _with_interval(row),
                    "-" if row.seed_std is None else f"±{100 * row.seed_std:.1f}",
                    *(percent(row.metrics[name]) for name in others),
                ]
                for row in result.rows
            ],
        ),
    )


def _layer(row: Row) -> str:
    if row.layer is None:
        return "-"
    return f"{row.layer} (chosen)" if row.chosen else str(row.layer)


def _with_interval(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.low == row.high:  # one piece: resampling it gives no interval
        return percent(row.value)
    return f"{percent(row.value)} ({row.low:.1%} to {row.high:.1%})"
