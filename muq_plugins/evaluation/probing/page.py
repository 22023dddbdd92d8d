"""The page of a probe: what can be read off which layer, and what that means."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from muq_plugins.evaluation.figures.lines import Level, Line, Panel, line_charts
from muq_plugins.evaluation.figures.style import (
    CHANCE,
    COUNTING,
    NEUTRAL,
    VALID,
    percent_tick,
)
from muq_plugins.evaluation.figures.values import shares
from muq_plugins.evaluation.intervals import FEWEST_GROUPS, interval
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    percent,
    write_page,
)
from muq_plugins.evaluation.probing.results import (
    HIDDEN,
    LINEAR,
    LOG_MEL,
    MIXTURE,
    TRAINED,
    UNTRAINED,
    Comparison,
    Row,
    TaskResult,
    load_results,
)
from muq_plugins.evaluation.scores import METRIC_NAMES

# The report shows this many numbers first.
FACTS = 6
DRAWS = 2000
COLORS = {TRAINED: VALID, UNTRAINED: NEUTRAL}
COLUMNS = 3


def probing_report(folder: str | Path, subtitle: str = "") -> Path:
    """Write the report of a probe from the files in its folder; the HTML file."""
    return write_page(folder, PROBE, load_results(folder), subtitle)


def probing_headline(results: list[TaskResult]) -> list[str]:
    """One line for each task, for the terminal.

    Example
    -------
    >>> row = Row(TRAINED, LINEAR, 3, 0.5, 0.4, 0.6, {}, chosen=True)
    >>> result = TaskResult("key", "single", None, None, "balanced_accuracy", 0.1,
    ...                     ["C", "D"], {}, 3, [row])
    >>> probing_headline([result])
    ['key 50.0% (chance 10.0%)']
    """
    return [str(_fact(result)) for result in results]


def _fact(result: TaskResult) -> Fact:
    """The trained encoder's score beside all references."""
    notes = [f"chance {percent(result.chance)}"]
    for name, word in ((LOG_MEL, "log-mel"), (UNTRAINED, "untrained")):
        if row := result.row(name, LINEAR):
            notes.append(f"{word} {percent(row.value)}")
    score = result.row(TRAINED, LINEAR).value
    return Fact(title_of(result), percent(score), ", ".join(notes))


def title_of(result: TaskResult) -> str:
    """What a score is called: the label, and the measure where it is another."""
    label = result.label.replace("_", " ") + " AP" * (result.metric == "clip_precision")
    return label[0].upper() + label[1:]


def gains(results: list[TaskResult]) -> Iterator[Verdict]:
    """The trained encoder against its untrained self and the log-mel, task by task."""
    for result in results:
        for gain in result.comparisons:
            if gain.reader == LINEAR:
                yield from _gain_verdict(result, gain)


def _gain_verdict(result: TaskResult, gain: Comparison) -> Iterator[Verdict]:
    few = result.test_groups < FEWEST_GROUPS or gain.low == gain.high
    if gain.reference != UNTRAINED:
        if gain.high >= 0 or few:
            return
        plain = result.called(LOG_MEL)
        level, words = "warning", f"plain {plain} know more than the encoder"
    elif few:
        kinds = f"different {result.group!r}" if result.group else "clips"
        level = "undecided"
        words = (
            "whether training has improved the encoder: the test part has only "
            f"{result.test_groups} {kinds}, too few to tell; give more test clips with "
            "labels"
        )
    elif gain.low > 0:
        level, words = "good", "training has improved the encoder"
    elif gain.high < 0:
        level = "problem"
        words = (
            "training has made the encoder worse; check the learning rate, and that "
            "the probe was given the trained weights"
        )
    else:
        level = "undecided"
        words = "whether training has helped is undecided; more test clips may tell"
    ours, metric = result.row(TRAINED, LINEAR).value, METRIC_NAMES[result.metric]
    theirs = f"{result.called(gain.reference)} {ours - gain.difference:.1%}"
    numbers = f"{metric.lower()} {ours:.1%}, {theirs}" + ("" if few else f" ({gain})")
    yield Verdict(level, f"{result.label}: {words}: {numbers}.")


def depth(results: list[TaskResult]) -> Iterator[Verdict]:
    """Acoustic labels in low layers, semantic ones in high layers?

    In every resampling of the test part, each label has a best layer of the trained
    encoder under the linear probe. The question is whether the mean best layer of
    semantic labels lies above that of acoustic ones. Labels that the encoder does not
    know better than chance have no best layer and are left out, and so are those whose
    test part has too few pieces to resample.

    Example
    -------
    >>> def known(label, level, best):
    ...     row = Row(TRAINED, LINEAR, 0, 0.5, 0.4, 0.6, {}, chosen=True)
    ...     return TaskResult(label, "single", None, level, "balanced_accuracy", 0.1,
    ...                       ["C", "D"], {}, 9, [row], best_layers=best)
    >>> low, high = [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]
    >>> results = [known("family", "acoustic", low), known("key", "semantic", high)]
    >>> next(depth(results)).message[:56]
    'acoustic labels low, semantic labels high: supported at '
    """
    rng = np.random.default_rng(0)
    drawn, names = {"acoustic": [], "semantic": []}, {"acoustic": [], "semantic": []}
    for result in results:
        row = result.row(TRAINED, LINEAR)
        if result.level is None or not result.best_layers or row is None:
            continue
        if row.low <= result.chance or result.test_groups < FEWEST_GROUPS:
            continue
        shares = np.array(result.best_layers)
        layers = rng.choice(len(shares), size=DRAWS, p=shares / shares.sum())
        drawn[result.level].append(layers)
        names[result.level].append(result.label)
    if not all(drawn.values()):
        return
    acoustic, semantic = (np.mean(layers, axis=0) for layers in drawn.values())
    value, low, high = interval((semantic - acoustic).mean(), semantic - acoustic)
    answer = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
    yield Verdict(
        {"supported": "good", "refuted": "warning"}.get(answer, answer),
        f"acoustic labels low, semantic labels high: {answer} at this budget. The best "
        f"layer is {acoustic.mean():.1f} for {', '.join(names['acoustic'])} and "
        f"{semantic.mean():.1f} for {', '.join(names['semantic'])} (difference "
        f"{value:+.1f} layers, 95% interval {low:+.1f} to {high:+.1f}).",
    )


def _scores_table(results: list[TaskResult]) -> Table:
    """All tasks beside their references."""
    rows = []
    for result in results:
        for reader in (LINEAR, HIDDEN):
            ours = result.row(TRAINED, reader)
            if ours is None:
                continue
            references = (result.row(name, reader) for name in (LOG_MEL, UNTRAINED))
            row = [f"{result.label} ({reader})", percent(result.chance)]
            row += [percent(row.value) if row else "-" for row in references]
            mixture = with_interval(result, result.row(TRAINED, reader, MIXTURE))
            rows.append([*row, with_interval(result, ours), ours.place, mixture])
    header = ["Label (probe)", "Chance", "Log-mel", "Untrained", "Trained"]
    return Table([*header, "Layer", "Mixture"], rows)


class Reading(NamedTuple):
    """All results of one kind of probe."""

    reader: str
    results: list[TaskResult]

    @property
    def best(self) -> str:
        """The best layer of each label."""
        return "; ".join(
            f"{result.label}: best in layer {max(curve, key=lambda r: r.value).layer}"
            for result in self.results
            if (curve := result.curve(TRAINED, self.reader))
        )


def _readings(results: list[TaskResult]) -> list[Reading]:
    readings = []
    for reader in (LINEAR, HIDDEN):
        read = [result for result in results if result.row(TRAINED, reader)]
        readings += [Reading(reader, read)] * bool(read)
    return readings


def _layers_figure(reading: Reading, path: Path) -> None:
    panels = [layers_panel(result, reading.reader) for result in reading.results]
    layers_figure(panels, path)


def layers_figure(panels: list[Panel], path: Path) -> None:
    """Panels of curves over the layers, beside and below each other."""
    columns = min(COLUMNS, len(panels))
    line_charts(
        panels,
        path,
        height=0.6 + 2.5 * ceil(len(panels) / columns),
        width=8 if columns > 1 else 4.5,
        columns=columns,
        key=True,
    )


def layers_panel(result: TaskResult, reader: str = LINEAR, numbers: str = "") -> Panel:
    """Curves over the layers, the mixture beside them, and the references."""
    lines, depth = [], 0
    for name in (UNTRAINED, TRAINED):
        if not (curve := result.curve(name, reader)):
            continue
        depth = max(depth, len(curve))
        is_trained = name == TRAINED
        band = [row.low for row in curve], [row.high for row in curve]
        if not is_trained:
            every = [row.initialisations or [row.value] for row in curve]
            band = [min(values) for values in every], [max(values) for values in every]
        x, y = [row.layer for row in curve], [row.value for row in curve]
        marker = "o" if is_trained else ""
        lines.append(Line(x, y, name, COLORS[name], marker, band, numbers=numbers))
        if mixture := result.row(name, reader, MIXTURE):
            lines.append(Line([depth], [mixture.value], "", COLORS[name], "D"))
    levels = [Level(result.chance, "chance", CHANCE, dashes=":")]
    if log_mel := result.row(LOG_MEL, reader):
        name = result.called(LOG_MEL)
        levels.insert(0, Level(log_mel.value, name, COUNTING, dashes="--"))
    mixed = any(row.layer == MIXTURE for row in result.rows if row.reader == reader)
    return Panel(
        result.label.replace("_", " "),
        lines,
        levels,
        xlabel="layer",
        ylabel=METRIC_NAMES[result.metric].lower(),
        write=percent_tick,
        ticks=layer_ticks(depth, mixed),
    )


def layer_ticks(depth: int, mixed: bool) -> tuple[list[int], list[str]]:
    """Places and names of some of the layers, and of a mixture behind them."""
    places = list(range(0, depth, max(1, ceil(depth / 7))))
    return [*places, *[depth] * mixed], [*map(str, places), *["mix"] * mixed]


def _mixed(results: list[TaskResult]) -> list[dict[str, list[float]]]:
    """What the learned mixtures of layers are made of; none without layers to mix."""
    weights = {
        result.label: row.weights
        for result in results
        if (row := result.row(TRAINED, HIDDEN, MIXTURE)) is not None
    }
    return [weights] * bool(weights)


def mixture_figure(weights: dict[str, list[float]], path: Path) -> None:
    """What shares learned mixtures have of each layer, by name."""
    layers = len(next(iter(weights.values())))
    names = ["0 (front end)", *(str(layer) for layer in range(1, layers))]
    shares(weights, names, "layer", path)


def task_table(result: TaskResult) -> Table:
    """One line for each kind of features, reader and layer."""
    others = [name for name in result.rows[0].metrics if name != result.metric]
    rows = []
    for row in result.rows:
        layer = row.place + " (chosen)" * (row.chosen and row.layer is not None)
        spread = "-" if row.seed_std is None else _plus_minus(row.seed_std)
        if row.initialisations:
            spread = f"{_plus_minus(np.std(row.initialisations))} (initialisations)"
        features = result.called(row.features)
        cells = [features, row.reader, layer, with_interval(result, row), spread]
        rows.append([*cells, *(percent(row.metrics[name]) for name in others)])
    metric, *names = (METRIC_NAMES[name] for name in (result.metric, *others))
    header = ["Features", "Probe", "Layer", metric, "Over seeds", *names]
    return Table(header, rows)


def _plus_minus(deviation: float) -> str:
    return f"±{100 * deviation:.1f}"


def with_interval(result: TaskResult, row: Row | None) -> str:
    """A score with its interval, for a table."""
    if row is None:
        return "-"
    ends = f"{row.low:.1%} to {row.high:.1%}"
    few = result.test_groups < FEWEST_GROUPS
    return f"{percent(row.value)} ({'too few for an interval' if few else ends})"


PROBE = Page(
    title="Probe",
    template="probing.md.j2",
    facts=(lambda results: [_fact(result) for result in results[:FACTS]],),
    verdicts=(gains, depth),
    parts=(
        Part("scores", table=_scores_table),
        Part(
            "layers",
            {
                f"layers_{reader.replace(' ', '_')}": _layers_figure
                for reader in (LINEAR, HIDDEN)
            },
            each=_readings,
        ),
        Part("mixture", {"mixture": mixture_figure}, each=_mixed),
        Part("task", table=task_table, each=lambda results: results),
    ),
)
