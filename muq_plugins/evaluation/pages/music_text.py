"""Do music and text find each other?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from muq_plugins.evaluation.intervals import FEWEST_GROUPS
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    number,
    percent,
)
from muq_plugins.evaluation.pages.run import (
    OPTIMISATION,
    Run,
    curves,
    judgeable,
    music,
    training_time,
)
from muq_plugins.evaluation.zero_shot.scores import load_scores
from muq_plugins.lobes.objectives.base import is_at_chance

LANGUAGES = {"en": "English", "zh": "Chinese", "own": "as given"}
# What retrieval is measured by: title, and how it is written.
MEASURES = {
    "recall_at_1": ("Recall at 1", percent),
    "recall_at_5": ("Recall at 5", percent),
    "recall_at_10": ("Recall at 10", percent),
    "map_at_10": ("mAP at 10", number),
    "median_rank": ("Median rank", number),
}


def recall(run: Run) -> Iterator[Fact]:
    """How many of the unseen clips are found by their captions, and back."""
    for scores in _scores("retrieval")(run):
        for direction in ("text to music", "music to text"):
            found = [by[direction] for by in scores["retrieval"].values()]
            # Languages may differ in how many clips share a caption.
            chances = [percent(f["chance"]["recall_at_10"]) for f in found]
            yield Fact(
                f"{direction.capitalize()}, recall at 10",
                " / ".join(percent(f["recall_at_10"]["value"]) for f in found),
                f"captions {' / '.join(scores['retrieval'])}; {scores['clips']} "
                f"unseen clips, chance: {' / '.join(dict.fromkeys(chances))}",
            )


def tagging(run: Run) -> Iterator[Fact]:
    """How well the names of instruments tell clips apart."""
    for kind, by in load_scores(run.folder).get("tagging", {}).items():
        areas = " / ".join(number(found["roc_auc"]["value"]) for found in by.values())
        note = f"names {' / '.join(by)}; chance: 0.50"
        yield Fact(f"Zero-shot tagging by {kind}, ROC-AUC", areas, note)


def learned(run: Run) -> Iterator[Verdict]:
    """The loss beside that of guessing."""
    loss, chance = run.final.get("loss"), run.final.get("chance")
    if loss is not None and not run.warming_up and is_at_chance(loss, chance):
        yield Verdict(
            "problem",
            f"the model is stuck at chance: contrastive loss {loss:.2f} on the "
            f"{run.part}, guessing {chance:.2f}. Look whether the training loss falls: "
            "if it does, use more music or fewer steps; if not, change the learning "
            "rate.",
        )


def found(run: Run) -> Iterator[Verdict]:
    """Whether unseen clips are found."""
    for scores in _scores("retrieval")(run):
        for language, by in scores["retrieval"].items():
            for direction, of in by.items():
                verdict = _retrieval_verdict(of, scores)
                words = f"{direction}, {language}: {verdict.message}"
                yield verdict._replace(message=words)


def _retrieval_verdict(of: dict[str, Any], scores: dict) -> Verdict:
    recall, chance = of["recall_at_10"], of["chance"]["recall_at_10"]
    if scores["pieces"] < FEWEST_GROUPS or chance >= 1:
        return Verdict(
            "undecided",
            f"the test part has {scores['clips']} clips of {scores['pieces']} pieces, "
            "too few to say whether clips are found. Give more test music.",
        )
    numbers = (
        f"recall at 10 {recall['value']:.1%} (95% interval {recall['low']:.1%} to "
        f"{recall['high']:.1%}), by chance {chance:.1%}"
    )
    if recall["low"] > chance:
        return Verdict("good", f"unseen clips are found, {numbers}")
    if recall["high"] < chance:
        words = f"unseen clips are found less often than by chance, {numbers}"
        return Verdict("warning", f"{words}. Check that captions are of their clips.")
    words = f"whether unseen clips are found is undecided, {numbers}"
    return Verdict("undecided", f"{words}. Train longer, or give more test music.")


def _scores(kind: str) -> Callable[[Run], list[dict]]:
    """The scores of a run, if they have anything of that kind."""
    return lambda run: [s for s in [load_scores(run.folder)] if s.get(kind)]


def _retrieval_table(scores: dict[str, Any]) -> Table:
    rows = []
    for language, directions in scores["retrieval"].items():
        for direction, of in directions.items():
            cells = [_estimate(of[key], write) for key, (_, write) in MEASURES.items()]
            rows.append([f"{direction}, {LANGUAGES[language]}", *cells])
            # Clips that share a caption make it another one in each direction.
            chance = of["chance"]
            cells = [write(chance[key]) for key, (_, write) in MEASURES.items()]
            rows.append(["by chance", *cells])
    return Table(["", *(title for title, _ in MEASURES.values())], rows)


def _tagging_table(scores: dict[str, Any]) -> Table:
    rows = []
    for kind, languages in scores["tagging"].items():
        for language, of in languages.items():
            areas = _estimate(of["roc_auc"]), _estimate(of["average_precision"])
            row = [f"{kind}, {LANGUAGES[language]}", str(len(of["tags"])), *areas]
            rows.append([*row, f"{of['chance']:.2f}"])
    header = ["Tags", "Number", "ROC-AUC", "Average precision", "Its chance"]
    return Table(header, rows)


def _tags_table(scores: dict[str, Any]) -> Table:
    rows: list[list[str]] = []
    for kind, languages in scores["tagging"].items():
        for tags in zip(*(of["tags"] for of in languages.values()), strict=True):
            # A tag that no clip has, or all have, has no score.
            areas = [tag["roc_auc"] for tag in tags]
            cells = ["-" if area is None else number(area) for area in areas]
            rows.append([kind, tags[0]["tag"], str(tags[0]["positives"]), *cells])
    names = [LANGUAGES[language] for language in languages]
    return Table(["Kind", "Tag", "Clips", *names], rows)


def _estimate(of: dict[str, float], write: Callable[[float], str] = number) -> str:
    value, low, high = (write(of[part]) for part in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


LOSS = curves("loss", "accuracy", height=3.2, legend="upper left", on=1)
MUSIC_TEXT = Page(
    title="Music and text",
    template="music_text.md.j2",
    facts=(recall, tagging, music, training_time),
    verdicts=(judgeable, learned, found),
    parts=(
        Part("retrieval", table=_retrieval_table, each=_scores("retrieval")),
        Part("learned", {"loss": LOSS}),
        Part("tagging", table=_tagging_table, each=_scores("tagging")),
        Part("tags", table=_tags_table, each=_scores("tagging")),
        OPTIMISATION,
    ),
)
