"""Do audio and text of a model find each other?"""

from __future__ import annotations

from typing import Any

from muq_plugins.evaluation.health.verdict import (
    NOT_VALIDATED,
    Verdict,
    non_finite_verdicts,
    worst_first,
)
from muq_plugins.evaluation.run_files import select
from muq_plugins.lobes.stages import is_at_chance


def mulan_verdicts(rows: list[dict], scores: dict[str, Any]) -> list[Verdict]:
    """Judge the training of two towers."""
    rows = select(rows, stage="mulan")
    verdicts = non_finite_verdicts(rows)
    valid = select(rows, kind="valid")
    if not valid:
        verdicts.append(Verdict("warning", NOT_VALIDATED))
    elif valid[-1].get("loss") is not None:
        loss, chance = valid[-1]["loss"], valid[-1]["chance"]
        if is_at_chance(loss, chance):
            verdicts.append(
                Verdict(
                    "problem",
                    f"the model is stuck at chance: contrastive loss {loss:.2f} on "
                    f"unseen clips, guessing {chance:.2f}. Look whether the training "
                    "loss falls: if it does, use more music or fewer steps; if not, "
                    "change the learning rate.",
                )
            )
    for language, directions in scores.get("retrieval", {}).items():
        for direction, found in directions.items():
            verdicts.append(_retrieval_verdict(f"{direction}, {language}", found))
    return worst_first(verdicts)


def _retrieval_verdict(what: str, found: dict[str, Any]) -> Verdict:
    recall, chance = found["recall_at_10"], found["chance"]["recall_at_10"]
    numbers = (
        f"recall at 10 {recall['value']:.1%} (95% interval {recall['low']:.1%} to "
        f"{recall['high']:.1%}), by chance {chance:.1%}"
    )
    if recall["low"] > chance:
        return Verdict("good", f"{what}: unseen clips are found, {numbers}")
    return Verdict(
        "warning", f"{what}: no better than chance, {numbers}. Train longer."
    )
