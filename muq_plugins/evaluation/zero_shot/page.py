"""The report of a zero-shot evaluation: one JSON file, and a page made from it
alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muq_plugins.evaluation.page import (
    Fact,
    Section,
    Table,
    Verdict,
    announce,
    number,
    worst_first,
    write_report,
)
from muq_plugins.evaluation.run_files import HYPERPARAMETERS_FILE
from muq_plugins.files import write_json

SCORES_FILE = "zero_shot.json"
NAMES = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "median_rank": "median rank",
    "map_at_10": "mAP@10",
    "mean_average_precision": "mAP",
}


def save_zero_shot(folder: str | Path, scores: dict[str, Any]) -> Path:
    """Keep what an evaluation found."""
    path = Path(folder) / SCORES_FILE
    write_json(path, scores)
    return path


def zero_shot_report(folder: str | Path) -> tuple[Path, list[str]]:
    """Write the report of a zero-shot evaluation."""
    folder = Path(folder)
    scores = json.loads((folder / SCORES_FILE).read_text("utf-8"))
    facts, verdicts, sections = [], [], [_about(scores)]
    if tagging := scores.get("tagging"):
        _tagging(tagging, facts, verdicts, sections)
    if accuracy := scores.get("accuracy"):
        chance = accuracy["chance"]
        facts.append(Fact("Accuracy", _text(accuracy), f"chance {chance:.3f}"))
        verdicts.append(_above("accuracy", accuracy["low"], chance))
    for name, direction in scores.get("retrieval", {}).items():
        _retrieval(name, direction, facts, verdicts, sections)
    hyperparameters = folder / HYPERPARAMETERS_FILE
    page = write_report(
        folder,
        "Zero-shot evaluation",
        facts,
        announce(worst_first(verdicts)),
        sections,
        hyperparameters.read_text("utf-8") if hyperparameters.exists() else "",
        f"{scores['model']} on {scores['data']}",
    )
    return page, [str(fact) for fact in facts]


def _about(scores) -> Section:
    text = (
        f"{scores['clips']} clips of {scores['data']}. Each is heard whole, in pieces "
        f"of {scores['clip_seconds']:g} s of which the last is completed with the "
        "start of the recording; its latent is the mean over the pieces. Scores are "
        "dot products of latents of audio and text, without any training. Intervals "
        "are 95 %, from a bootstrap over groups of clips."
    )
    if prompts := scores.get("prompts"):
        listed = "; ".join(f'"{prompt}"' for prompt in prompts)
        text += (
            f"\n\nThe latent of a tag is the mean direction of its prompts: {listed}."
        )
    return Section("What was measured", text)


def _tagging(tagging, facts, verdicts, sections):
    area, precision = tagging["roc_auc"], tagging["average_precision"]
    facts.append(Fact("Tagging ROC-AUC", _text(area), "chance 0.500"))
    chance = tagging["chance"]
    facts.append(Fact("Tagging PR-AUC", _text(precision), f"chance {chance:.3f}"))
    verdicts.append(_above("ROC-AUC", area["low"], 0.5))
    text = (
        "Macro averages over the tags. PR-AUC is average precision, with clips of "
        "equal score found together."
    )
    for key, words in (
        ("without_positive", "no clip has"),
        ("without_negative", "every clip has"),
    ):
        if tagging[key]:
            text += f" Not scored, as {words} them: {', '.join(tagging[key])}."
    rows = [
        [
            tag["tag"],
            str(tag["positives"]),
            *(
                "-" if tag[key] is None else f"{tag[key]:.3f}"
                for key in ("roc_auc", "average_precision")
            ),
        ]
        for tag in sorted(tagging["tags"], key=lambda tag: -(tag["roc_auc"] or 0))
    ]
    table = Table(["tag", "clips", "ROC-AUC", "PR-AUC"], rows)
    sections.append(Section("Tags", text, table=table))


def _retrieval(name, scores, facts, verdicts, sections):
    chance = scores["chance"]
    title = name[0].upper() + name[1:]
    best = scores["recall_at_10"]
    facts.append(
        Fact(f"{title}, R@10", _text(best), f"chance {chance['recall_at_10']:.3f}")
    )
    verdicts.append(_above(f"{name}, R@10", best["low"], chance["recall_at_10"]))
    rows = []
    for key, words in NAMES.items():
        form = number if key == "median_rank" else "{:.3f}".format
        low, high = form(scores[key]["low"]), form(scores[key]["high"])
        value, by_chance = form(scores[key]["value"]), form(chance[key])
        rows.append([words, value, f"{low} to {high}", by_chance])
    text = (
        f"{scores['queries']} queries, {scores['items']} items to find. R@k: a right "
        "one is among the first k. Items of equal similarity count as if in every "
        "order."
    )
    table = Table(["score", "value", "95 % interval", "chance"], rows)
    sections.append(Section(title, text, table=table))


def _above(name, low, chance) -> Verdict:
    if low > chance:
        return Verdict("good", f"{name} is above chance")
    return Verdict(
        "warning",
        f"{name} is not above chance: its interval starts at {low:.3f}, chance is "
        f"{chance:.3f}. Is the model trained, and on texts like these?",
    )


def _text(estimate) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
