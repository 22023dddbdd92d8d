"""Which encoder is the best beginning of an audio tower? Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from muq_plugins.evaluation.health import Verdict, announce
from muq_plugins.evaluation.report import (
    Fact,
    Section,
    Table,
    number,
    percent,
    write_report,
)
from muq_plugins.evaluation.zero_shot.scores import load_scores
from muq_plugins.files import write_json

TOWERS_FILE = "towers.json"

# Measure: header, where it is in the scores of a run, how it is written.
_EN, _ZH = ("retrieval", "en"), ("retrieval", "zh")
MEASURES = {
    "map_at_10": ("mAP at 10", (*_EN, "text to music", "map_at_10"), number),
    "recall_at_1": ("R at 1", (*_EN, "text to music", "recall_at_1"), percent),
    "recall_at_5": ("R at 5", (*_EN, "text to music", "recall_at_5"), percent),
    "recall_at_10": ("R at 10", (*_EN, "text to music", "recall_at_10"), percent),
    "median_rank": ("Median rank", (*_EN, "text to music", "median_rank"), number),
    "back": ("Music to text", (*_EN, "music to text", "map_at_10"), number),
    "chinese": ("Chinese", (*_ZH, "text to music", "map_at_10"), number),
    "roc_auc": ("ROC-AUC", ("tagging", "instrument", "en", "roc_auc"), number),
    "average_precision": (
        "PR-AUC",
        ("tagging", "instrument", "en", "average_precision"),
        number,
    ),
}
QUESTIONS = ("map_at_10", "roc_auc")


def compare_towers(
    folder: str | Path,
    runs: Mapping[str, Mapping[int, str | Path]],
    comparisons: Sequence[tuple[str, str]],
    about: Mapping[str, Any],
) -> Path:
    """Compares runs of MuQ-MuLan that differ in their encoder, and reports."""
    folder = Path(folder)
    table = _read(runs)
    chance, (clips, pieces) = _chance(runs), _size(runs)
    content = {
        **about,
        "clips": clips,
        "pieces": pieces,
        "chance": chance,
        "runs": [
            {"tower": tower, "seed": seed, **values}
            for tower, seeds in table.items()
            for seed, values in seeds.items()
        ],
    }
    write_json(folder / TOWERS_FILE, content)
    first = next(iter(table))
    facts = [
        Fact(
            f"{MEASURES[name][0]}, {first}",
            _spread(table[first], name),
            f"chance: {MEASURES[name][2](chance[name])}",
        )
        for name in QUESTIONS
    ]
    return write_report(
        folder,
        "What should an audio tower begin with?",
        facts,
        announce(_verdicts(table, comparisons)),
        [
            Section(
                "Unseen pieces",
                f"{clips} clips of {pieces} pieces that were not trained on. Mean of "
                f"the seeds, in brackets the lowest and the highest of them. The first "
                f"five columns find music by its full English caption; then captions "
                f"by music (mAP at 10), music by its Chinese caption (mAP at 10), and "
                f"zero-shot tagging with the names of instruments (macro means).",
                table=Table(
                    ["Encoder", *(header for header, *_ in MEASURES.values())],
                    [
                        *(
                            [tower, *(_spread(seeds, name) for name in MEASURES)]
                            for tower, seeds in table.items()
                        ),
                        [
                            "chance",
                            *(MEASURES[name][2](chance[name]) for name in MEASURES),
                        ],
                    ],
                ),
            )
        ],
    )


def _read(runs) -> dict[str, dict[int, dict[str, float]]]:
    """Tower to seed to measure to number."""
    seeds = [set(of_tower) for of_tower in runs.values()]
    if not seeds or not seeds[0] or any(other != seeds[0] for other in seeds):
        raise ValueError(
            f"Every tower needs the same seeds, got "
            f"{ {tower: sorted(of_tower) for tower, of_tower in runs.items()} }."
        )
    return {
        tower: {
            seed: {name: _value(folder, name) for name in MEASURES}
            for seed, folder in sorted(of_tower.items())
        }
        for tower, of_tower in runs.items()
    }


def _scores(folder: str | Path) -> dict:
    scores = load_scores(folder)
    if not scores:
        raise ValueError(
            f"{folder} has no scores: run recipes/MuQ/train_mulan.py to its end."
        )
    return scores


def _value(folder: str | Path, name: str) -> float:
    found = _scores(folder)
    for key in MEASURES[name][1]:
        found = found[key]
    return found["value"]


def _any_run(runs) -> str | Path:
    return next(iter(next(iter(runs.values())).values()))


def _size(runs) -> tuple[int, int]:
    scores = _scores(_any_run(runs))
    return scores["clips"], scores["pieces"]


def _chance(runs) -> dict[str, float]:
    """What guessing gives, for every measure."""
    chance = {}
    for name, (_, (*path, key), _) in MEASURES.items():
        found = _scores(_any_run(runs))
        for part in path:
            found = found[part]
        if path[0] == "retrieval":
            chance[name] = found["chance"][key]
        else:  # the area under a curve of guesses, or the share of positives
            chance[name] = 0.5 if key == "roc_auc" else found["chance"]
    return chance


def _spread(seeds: Mapping[int, Mapping[str, float]], name: str) -> str:
    values = [of_seed[name] for of_seed in seeds.values()]
    write = MEASURES[name][2]
    low, high = write(min(values)), write(max(values))
    return f"{write(float(np.mean(values)))} ({low} to {high})"


def _verdicts(table, comparisons) -> list[Verdict]:
    """Whether one tower beats another, by a t interval over the seeds."""
    verdicts = []
    for name in QUESTIONS:
        for tower, other in comparisons:
            for label in (tower, other):
                if label not in table:
                    raise ValueError(
                        f"There is no tower {label!r} to compare: there are "
                        f"{', '.join(table)}."
                    )
            verdicts.append(_verdict(table, tower, other, name))
    return verdicts or [Verdict("undecided", "nothing is compared")]


def _verdict(table, first: str, other: str, name: str) -> Verdict:
    header = MEASURES[name][0]
    ours, theirs = (
        np.array([of_seed[name] for of_seed in table[tower].values()])
        for tower in (first, other)
    )
    gain = float((ours - theirs).mean())
    what = f"{first} against {other}, {header}: {gain:+.3f}"
    if len(ours) < 2:
        return Verdict("undecided", f"{what} (one seed)")
    if np.ptp(ours - theirs) == 0:  # no spread to make an interval from
        return Verdict("undecided", f"{what}, the same for every seed")
    low, high = ttest_rel(ours, theirs).confidence_interval()
    level = "undecided" if low <= 0 <= high else "good" if gain > 0 else "warning"
    return Verdict(level, f"{what} (95% interval over seeds {low:+.3f} to {high:+.3f})")
