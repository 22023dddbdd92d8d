"""The numbers that head a report and end a run in the terminal."""

import math
from typing import Any

import numpy as np

from muq_plugins.evaluation.probe_result import ProbeResult
from muq_plugins.evaluation.report import Fact, number, percent
from muq_plugins.evaluation.run_files import is_validated, select, series
from muq_plugins.lobes import codes


def pretrain_facts(
    rows: list[dict], code_counts: np.ndarray | None, probe: list[ProbeResult]
) -> list[Fact]:
    """The numbers that matter of a pre-training, the most important first."""
    facts = []
    if is_validated(rows, "cross_entropy"):
        row = select(rows, kind="valid")[-1]
        chance = row["chance"]
        size = round(math.exp(chance))
        facts.append(
            Fact(
                "Masked cross-entropy",
                f"{number(row['cross_entropy'])} nat",
                f"a counting model: {number(row['code_entropy'])}, "
                f"chance ln {size} = {chance:.2f}",
            )
        )
        note = f"chance: {percent(1 / size)}"
        if code_counts is not None:
            guessing = float(codes.most_frequent_share(code_counts).mean())
            note = f"always guessing the most frequent code: {percent(guessing)}"
        facts.append(Fact("Masked accuracy", percent(row["accuracy"]), note))
    facts += _usage_facts(code_counts)
    if probe:
        *others, last = probe
        comparison = [f"{r.name} {percent(r.balanced_accuracy)}" for r in others]
        facts.append(
            Fact(
                f"Probe, {last.name}",
                percent(last.balanced_accuracy),
                ", ".join([*comparison, f"chance {percent(last.chance)}"]),
            )
        )
    return facts + _training_facts(rows)


def tokenizer_facts(rows: list[dict], code_counts: np.ndarray | None) -> list[Fact]:
    """The numbers that matter of a tokenizer, the most important first."""
    facts = []
    if is_validated(rows, "reconstruction_error_per_level"):
        errors = select(rows, kind="valid")[-1]["reconstruction_error_per_level"]
        facts.append(
            Fact(
                "Reconstruction error",
                number(errors[-1]),
                f"{number(errors[0])} with nothing decoded, {number(errors[1])} from "
                "the first codebook alone",
            )
        )
    return facts + _usage_facts(code_counts) + _training_facts(rows)


def mulan_facts(rows: list[dict], scores: dict[str, Any]) -> list[Fact]:
    """The numbers that matter of a model of audio and text."""
    facts = []
    for direction in ("text to music", "music to text"):
        found = [by[direction] for by in scores.get("retrieval", {}).values()]
        if found:
            languages = " / ".join(scores["retrieval"])
            # Languages may differ in how many clips share a caption.
            chances = [percent(f["chance"]["recall_at_10"]) for f in found]
            facts.append(
                Fact(
                    f"{direction.capitalize()}, recall at 10",
                    " / ".join(percent(f["recall_at_10"]["value"]) for f in found),
                    f"captions {languages}; {scores['clips']} unseen clips, chance: "
                    f"{' / '.join(dict.fromkeys(chances))}",
                )
            )
    for kind, by in scores.get("tagging", {}).items():
        facts.append(
            Fact(
                f"Zero-shot tagging by {kind}, ROC-AUC",
                " / ".join(number(found["roc_auc"]["value"]) for found in by.values()),
                f"names {' / '.join(by)}; chance: 0.50",
            )
        )
    return facts + _training_facts(rows)


def usage_fact(usage, perplexity, size: tuple[int, int]) -> Fact:
    """How the codes are used."""
    return Fact(
        "Code usage",
        _span(100 * np.asarray(usage), "{:.3g}") + "%",
        f"{size[0]} x {size[1]} codes, perplexity "
        + _span(np.asarray(perplexity), "{:.0f}"),
    )


def _usage_facts(code_counts: np.ndarray | None) -> list[Fact]:
    if code_counts is None:
        return []
    used, effective = codes.usage(code_counts), codes.perplexity(code_counts)
    return [usage_fact(used, effective, code_counts.shape)]


def _training_facts(rows: list[dict]) -> list[Fact]:
    _, speed = series(select(rows, kind="train"), "audio_seconds_per_second")
    speed = speed[np.isfinite(speed)]
    note = _duration(rows[-1]["time"])
    if speed.size:
        note += f", {speed.mean():,.0f} seconds of audio per second"
    return [Fact("Training", f"{rows[-1]['step']:,} steps", note)]


def _span(values, form: str) -> str:
    """The smallest and the largest value, or one number if they read the same."""
    low, high = form.format(float(values.min())), form.format(float(values.max()))
    return low if low == high else f"{low}–{high}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
