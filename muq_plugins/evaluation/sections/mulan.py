"""What a model of audio and text has learned, as sections of a report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.report import Picture, Section, Table, number, percent

LANGUAGES = {"en": "English", "zh": "Chinese", "own": "as given"}


def contrastive_section(rows: list[dict], folder: Path) -> Section:
    """Contrastive loss over the training."""
    path = folder / "loss.png"
    figures.loss_curves(rows, path)
    return Section(
        "Do music and text find each other?",
        "Each clip of a batch must be told from which text it goes with, and back. "
        "Training hears another caption of a clip each time, which names only some of "
        "what is known; validation hears the full one.",
        [
            Picture(
                path,
                "Left: the contrastive loss. Right: share of the clips of a batch "
                "whose own text is the most similar. Thin: as logged. Bold: moving "
                "mean. The model was not trained on the validation clips.",
                "Line charts of the contrastive loss and of the accuracy within a "
                "batch, in training and validation.",
            )
        ],
    )


def retrieval_section(scores: dict[str, Any]) -> Section:
    """Retrieval of unseen clips by their captions, and back."""
    names = {
        "recall_at_1": "Recall at 1",
        "recall_at_5": "Recall at 5",
        "recall_at_10": "Recall at 10",
        "map_at_10": "mAP at 10",
        "median_rank": "Median rank",
    }
    shares = [name for name in names if name.startswith("recall")]
    number_of = {name: percent if name in shares else number for name in names}
    rows = []
    for language, directions in scores["retrieval"].items():
        for direction, found in directions.items():
            cells = [_estimate(found[name], number_of[name]) for name in names]
            rows.append([f"{direction}, {LANGUAGES[language]}", *cells])
            # Clips that share a caption make it another one in each direction.
            chance = found["chance"]
            by_chance = [number_of[name](chance[name]) for name in names]
            rows.append(["by chance", *by_chance])
    return Section(
        "Does it find unseen pieces?",
        f"Each of the {scores['clips']} clips of {scores['pieces']} pieces of the test "
        "part has a caption that says all that is known about it. Text to music: is "
        "the clip among the first that its caption finds? Music to text: is the "
        "caption among the first that the clip finds? A caption that several clips "
        "share is one text that fits them all. In brackets: 95% intervals, "
        "bootstrapped over pieces.",
        table=Table(["", *names.values()], rows),
    )


def tagging_sections(scores: dict[str, Any]) -> list[Section]:
    """Zero-shot tagging with the names of instruments and families."""
    if not scores["tagging"]:
        return []
    means, tags = [], []
    for kind, languages in scores["tagging"].items():
        for language, found in languages.items():
            means.append(
                [
                    f"{kind}, {LANGUAGES[language]}",
                    str(len(found["tags"])),
                    _estimate(found["roc_auc"]),
                    _estimate(found["average_precision"]),
                    f"{found['chance']:.2f}",
                ]
            )
        columns = [
            [_score(tag["roc_auc"]) for tag in found["tags"]]
            for found in languages.values()
        ]
        for tag, *values in zip(found["tags"], *columns, strict=True):
            tags.append([kind, tag["tag"], str(tag["positives"]), *values])
    names = [LANGUAGES[language] for language in languages]
    return [
        Section(
            "Does it know instruments by their names?",
            "A clip is compared with the bare name of each tag. No classifier is "
            "trained, but the names do occur in captions of the training. ROC-AUC is "
            "the chance that a clip with the tag scores higher than one without; 0.50 "
            "is chance. Average precision is to be compared with the share of clips "
            "that have a tag. Means over tags, with 95% intervals bootstrapped over "
            "pieces.",
            table=Table(
                ["Tags", "Number", "ROC-AUC", "Average precision", "Its chance"], means
            ),
        ),
        Section(
            "Tag by tag",
            "ROC-AUC of every tag of the test part.",
            table=Table(["Kind", "Tag", "Clips", *names], tags),
        ),
    ]


def _estimate(found: dict[str, float], write: Callable[[float], str] = number) -> str:
    value, low, high = (write(found[part]) for part in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _score(value: float | None) -> str:
    """A tag that no clip has, or all have, has no score."""
    return "-" if value is None else number(value)
