"""The page of MARBLE: a table to paste, layers, and what may be put beside it."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from pathlib import Path

from muq_plugins.evaluation.figures.lines import Level, Line, Panel
from muq_plugins.evaluation.figures.radar import radar
from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    NEUTRAL,
    TRAIN,
    VALID,
    percent_tick,
)
from muq_plugins.evaluation.intervals import FEWEST_GROUPS
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    percent,
    write_page,
)
from muq_plugins.evaluation.probing.page import (
    layer_ticks,
    layers_figure,
    mixture_figure,
    task_table,
    with_interval,
)
from muq_plugins.evaluation.probing.results import (
    HIDDEN,
    MIXTURE,
    TaskResult,
    load_results,
)
from muq_plugins.evaluation.scores import METRIC_NAMES

# Of encoders: the one that was asked for, and others of the same palette.
COLORS = (VALID, COUNTING, "#009E73", "#CC79A7", NEUTRAL, TRAIN, "#E69F00")
# The report shows this many numbers first.
FACTS = 6
FEWEST_AXES = 3
TRAINED_ONLY = ("Probe", "Over seeds")


def marble_report(folder: str | Path, subtitle: str = "") -> Path:
    """Write the report from the files in its folder; the HTML file."""
    return write_page(folder, MARBLE, load_results(folder), subtitle)


def marble_headline(results: list[TaskResult]) -> list[str]:
    """One line for each task, for the terminal."""
    facts = map(_fact, results)
    return [f"{fact.label} {fact.value} ({fact.note})" for fact in facts]


def encoders_of(result: TaskResult) -> list[str]:
    """The names of the encoders, the one that was asked for first."""
    return list(result.about["encoders"])


def _fact(result: TaskResult) -> Fact:
    ours, *others = encoders_of(result)
    notes = [f"constant {percent(result.chance)}"]
    notes += [f"{name} {percent(result.row(name, HIDDEN).value)}" for name in others]
    value = percent(result.row(ours, HIDDEN).value)
    return Fact(result.about["title"], value, ", ".join(notes))


def _comparisons(results: list[TaskResult]) -> Iterator[Verdict]:
    """The encoder against each of the others, over all tasks."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for one in result.comparisons:
            points = [f"{100 * x:+.1f}" for x in (one.difference, one.low, one.high)]
            words = "{} {} ({} to {})".format(result.about["title"], *points)
            side = _side(one.low, one.high)
            if result.test_groups < FEWEST_GROUPS:
                side, words = "undecided", f"{result.about['title']} (too few tested)"
            found.setdefault((one.reference, side), []).append(words)
    for (reference, side), words in found.items():
        level = {"better": "good", "worse": "warning"}.get(side, side)
        yield Verdict(
            level,
            f"Against {reference} {side} on {len(words)} of {len(results)} "
            f"{'tasks' if len(results) > 1 else 'task'}, in points with their 95% "
            f"interval: {'; '.join(words)}.",
        )


def _below_constant(results: list[TaskResult]) -> Iterator[Verdict]:
    """What was learned in training and does not hold in the test."""
    words = []
    for result in results:
        rows = ((name, result.row(name, HIDDEN)) for name in encoders_of(result))
        below = [
            f"{name} {percent(row.value)}"
            for name, row in rows
            if row is not None and row.high < result.chance
        ]
        if below and result.test_groups >= FEWEST_GROUPS:
            words.append(f"{result.about['title']} ({', '.join(below)})")
    if words:
        yield Verdict(
            "warning",
            f"below a constant answer: {'; '.join(words)}. What was learned there does "
            "not hold of other recordings: give more to train on, or leave the task "
            "out.",
        )


def _side(low: float, high: float) -> str:
    if low > 0:
        return "better"
    return "worse" if high < 0 else "undecided"


def _scores_table(results: list[TaskResult]) -> Table:
    """Every task and encoder, to paste."""
    names = list(dict.fromkeys(name for one in results for name in encoders_of(one)))
    rows = []
    for result in results:
        cells = [result.about["title"], METRIC_NAMES[result.metric]]
        cells.append(percent(result.chance))
        cells += [_cell(result, name) for name in names]
        rows.append(cells)
    return Table(["Task", "Metric", "Constant", *names], rows)


def _cell(result: TaskResult, name: str) -> str:
    """A score, its interval, and of which hidden state it is if there are several."""
    row = result.row(name, HIDDEN)
    several = row is not None and row.layer is not None
    return with_interval(result, row) + f", layer {row.place}" * several


def _panel(result: TaskResult) -> Panel:
    """Curves over the layers of every encoder, and its mixture beside them."""
    lines, levels = [], [Level(result.chance, "constant", CHANCE, dashes=":")]
    depth = max(
        [len(result.curve(name, HIDDEN)) for name in encoders_of(result)], default=0
    )
    for number, name in enumerate(encoders_of(result)):
        color = COLORS[number % len(COLORS)]
        curve = result.curve(name, HIDDEN)
        if not curve:
            row = result.row(name, HIDDEN)
            levels.append(Level(row.value, name, color, dashes="--"))
            continue
        band = [row.low for row in curve], [row.high for row in curve]
        x, y = [row.layer for row in curve], [row.value for row in curve]
        lines.append(Line(x, y, name, color, "o", band))
        if mixture := result.row(name, HIDDEN, MIXTURE):
            lines.append(Line([depth], [mixture.value], "", color, "D"))
    return Panel(
        result.about["title"],
        lines,
        levels,
        xlabel="layer",
        ylabel=METRIC_NAMES[result.metric],
        write=percent_tick,
        ticks=layer_ticks(depth, mixed=True),
    )


def _comparable(results: list[TaskResult]) -> list[list[TaskResult]]:
    """The tasks for a radar, which needs three; of fewer the table says all."""
    return [results] * (len(results) >= FEWEST_AXES)


def _radar_figure(results: list[TaskResult], path: Path) -> None:
    """How far each encoder is on the way from a constant answer to a perfect one."""
    names = list(dict.fromkeys(name for one in results for name in encoders_of(one)))
    values = {name: [_way(one, name) for one in results] for name in names}
    radar([one.about["title"] for one in results], values, COLORS, path)


def _way(result: TaskResult, name: str) -> float:
    row = result.row(name, HIDDEN)
    if row is None or row.value is None or result.chance == 1:
        return nan
    return max(0.0, (row.value - result.chance) / (1 - result.chance))


def _heard_table(results: list[TaskResult]) -> Table:
    """What each encoder reads."""
    every = {name: it for one in results for name, it in one.about["heard"].items()}
    rows = [
        [name, f"{rate} Hz", f"{frames:g} Hz", str(layers)]
        for name, (rate, frames, layers) in every.items()
    ]
    return Table(["Encoder", "Audio", "Frames", "Hidden states"], rows)


def _task_table(result: TaskResult) -> Table:
    """All rows; without what only those have that were trained."""
    table = task_table(result)
    if result.kind != "similarity":
        return table
    kept = [n for n, name in enumerate(table.header) if name not in TRAINED_ONLY]
    header, *rows = ([cells[n] for n in kept] for cells in (table.header, *table.rows))
    return Table(header, rows)


def _with_layers(results: list[TaskResult]) -> list[list[TaskResult]]:
    """The tasks that have a curve; none if no task has."""
    curved = [
        result
        for result in results
        if any(len(result.curve(name, HIDDEN)) > 1 for name in encoders_of(result))
    ]
    return [curved] * bool(curved)


def _layers_figure(results: list[TaskResult], path: Path) -> None:
    layers_figure([_panel(result) for result in results], path)


def _mixed(results: list[TaskResult]) -> list[dict[str, list[float]]]:
    """Learned mixtures of the encoder that was asked for, by task; none without."""
    rows = {
        result.about["title"]: result.row(encoders_of(result)[0], HIDDEN, MIXTURE)
        for result in results
    }
    weights = {title: row.weights for title, row in rows.items() if row is not None}
    return [weights] * bool(weights)


def _published(results: list[TaskResult], comparable: bool) -> list[list[TaskResult]]:
    """The tasks with published scores that are, or are not, to be compared."""
    some = [result for result in results if _rows_beside(result, comparable)]
    return [some] * bool(some)


def _rows_beside(result: TaskResult, comparable: bool) -> list[dict]:
    published = result.about["published"]
    return [one for one in published if (one["not_comparable"] is None) == comparable]


def _published_table(results: list[TaskResult], comparable: bool) -> Table:
    rows = []
    for result in results:
        for one in _rows_beside(result, comparable):
            scores = ", ".join(
                f"{METRIC_NAMES[name]} {percent(value)}"
                for name, value in one["scores"].items()
            )
            cells = [result.about["title"], one["model"], scores, one["by"]]
            rows.append(cells + [one["not_comparable"]] * (not comparable))
    header = ["Task", "Model", "Score", "Published in"]
    return Table(header + ["Why not"] * (not comparable), rows)


MARBLE = Page(
    title="MARBLE",
    template="marble.md.j2",
    facts=(lambda results: [_fact(result) for result in results[:FACTS]],),
    verdicts=(_comparisons, _below_constant),
    parts=(
        Part("scores", table=_scores_table),
        Part("radar", {"radar": _radar_figure}, each=_comparable),
        Part("layers", {"layers": _layers_figure}, each=_with_layers),
        Part("mixture", {"mixture": mixture_figure}, each=_mixed),
        Part(
            "published",
            table=lambda results: _published_table(results, True),
            each=lambda results: _published(results, True),
        ),
        Part(
            "not_comparable",
            table=lambda results: _published_table(results, False),
            each=lambda results: _published(results, False),
        ),
        Part("heard", table=_heard_table),
        Part("task", table=_task_table, each=lambda results: results),
    ),
)
