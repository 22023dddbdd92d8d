"""The report of a zero-shot evaluation, made from its JSON file alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from muq_plugins.evaluation.intervals import FEWEST_GROUPS
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    number,
    write_page,
)
from muq_plugins.files import read_json, write_json

SCORES_FILE = "zero_shot.json"
# Of the texts that are least alike; above it a model does not tell any apart.
ALIKE = 0.99
MEDIAN = "median_rank"
NAMES = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "recall_at_100": "R@100",
    "median_rank": "median rank",
    "map_at_10": "mAP@10",
    "mean_average_precision": "mAP",
}


def save_zero_shot(folder: str | Path, scores: dict[str, Any]) -> None:
    """Keep what an evaluation found."""
    write_json(Path(folder) / SCORES_FILE, scores)


def zero_shot_report(folder: str | Path) -> tuple[Path, list[str]]:
    """Write the report of a zero-shot evaluation."""
    folder = Path(folder)
    scores = read_json(folder / SCORES_FILE, "evaluate again")
    subtitle = f"{scores['model']} on {scores['data']}"
    page = write_page(folder, PAGE, scores, subtitle)
    return page, [str(fact) for fact in PAGE.facts_of(scores)]


class Score(NamedTuple):
    """A number of the summary."""

    title: str
    judged: str  # its name in a verdict; empty: it gets none
    found: dict[str, float]  # value, low and high
    chance: float


def _summary(scores: dict) -> Iterator[Score]:
    if tagging := scores.get("tagging"):
        yield Score("Tagging ROC-AUC", "ROC-AUC", tagging["roc_auc"], 0.5)
        precision = tagging["average_precision"]
        yield Score("Tagging PR-AUC", "", precision, tagging["chance"])
    if accuracy := scores.get("accuracy"):
        yield Score("Accuracy", "accuracy", accuracy, accuracy["chance"])
    for name, way in scores.get("retrieval", {}).items():
        names = f"{name[0].upper()}{name[1:]}, R@10", f"{name}, R@10"
        yield Score(*names, way["recall_at_10"], way["chance"]["recall_at_10"])


def _facts(scores: dict) -> Iterator[Fact]:
    for title, _, found, chance in _summary(scores):
        interval = f"[{found['low']:.3f}, {found['high']:.3f}]"
        yield Fact(title, f"{found['value']:.3f} {interval}", f"chance {chance:.3f}")


def _verdicts(scores: dict) -> Iterator[Verdict]:
    """Whether all was heard, and texts are told apart, and it is better than chance."""
    clips = scores["clips"]
    if left_out := len(scores.get("left_out", ())):  # not known of older scores
        yield Verdict(
            "warning",
            f"{left_out} of {clips + left_out} recordings, without a file or broken, "
            "are left out: no score here is comparable with one on all of them",
        )
    alike = scores.get("texts_alike")  # not known of older scores, nor of one text
    if alike is not None and alike > ALIKE:
        yield Verdict(
            "problem",
            f"all texts are the same to this model: no two have a cosine below "
            f"{alike:.4f}. Its text tower, or a file of it, is broken or untrained, "
            "and no score here means anything",
        )
    groups = scores.get("groups", clips)  # not known of older scores
    for _, name, found, chance in _summary(scores):
        if not name:
            continue
        if groups < FEWEST_GROUPS or chance >= 1:
            yield Verdict(
                "undecided",
                f"{clips} clips, in {groups} groups, are too few to say whether {name} "
                "is above chance",
            )
        elif found["low"] > chance:
            yield Verdict("good", f"{name} is above chance")
        else:
            level, words = "undecided", f"whether {name} is above chance is undecided"
            remedy = "Give more clips, or a model that is trained, on texts like these."
            if found["high"] < chance:
                level, words = "warning", f"{name} is below chance"
                remedy = "Check that the labels are of these recordings."
            yield Verdict(
                level,
                f"{words}: its interval is {found['low']:.3f} to {found['high']:.3f}, "
                f"chance is {chance:.3f}. {remedy}",
            )


def _tags_table(tagging: dict) -> Table:
    best_first = sorted(tagging["tags"], key=lambda tag: -(tag["roc_auc"] or 0))
    rows = []
    for tag in best_first:
        values = tag["roc_auc"], tag["average_precision"]
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        rows.append([tag["tag"], str(tag["positives"]), *cells])
    return Table(["tag", "clips", "ROC-AUC", "PR-AUC"], rows)


def _way_table(way: dict) -> Table:
    rows = []
    for key, words in NAMES.items():
        # Older scores lack one; and of few items all are among the first.
        if way["chance"].get(key) in (None, 1):
            continue
        form = number if key == MEDIAN else "{:.3f}".format
        low, high = form(way[key]["low"]), form(way[key]["high"])
        value, by_chance = form(way[key]["value"]), form(way["chance"][key])
        rows.append([words, value, f"{low} to {high}", by_chance])
    return Table(["score", "value", "95 % interval", "chance"], rows)


def _kinds_table(by_text: dict) -> Table:
    rows = []
    for kind, ways in by_text.items():
        for name, way in ways.items():
            cells = [f"{way[key]['value']:.3f}" for key in NAMES if key != MEDIAN]
            rows.append([f"{kind}, {name}", *cells, number(way[MEDIAN]["value"])])
    names = [words for key, words in NAMES.items() if key != MEDIAN]
    return Table(["text and direction", *names, NAMES[MEDIAN]], rows)


def _tagged(scores: dict) -> list[dict]:
    return list(filter(None, [scores.get("tagging")]))


def _ways(scores: dict) -> list[dict]:
    return [{"name": x, **way} for x, way in scores.get("retrieval", {}).items()]


def _by_text(scores: dict) -> list[dict]:
    return list(filter(None, [scores.get("retrieval_by_text")]))


PAGE = Page(
    "Zero-shot evaluation",
    "zero_shot.md.j2",
    (_facts,),
    (_verdicts,),
    (
        Part("about"),
        Part("tags", table=_tags_table, each=_tagged),
        Part("retrieval", table=_way_table, each=_ways),
        Part("texts", table=_kinds_table, each=_by_text),
    ),
)
