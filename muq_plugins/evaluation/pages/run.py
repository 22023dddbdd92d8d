"""A run as its page sees it, and what the pages of all stages have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from muq_plugins.errors import duration
from muq_plugins.evaluation.figures.lines import (
    Level,
    Line,
    Panel,
    line_charts,
    scientific,
    train_line,
    valid_line,
)
from muq_plugins.evaluation.figures.style import CHANCE, COUNTING, INK, percent_tick
from muq_plugins.evaluation.figures.values import histograms
from muq_plugins.evaluation.page import Fact, Part, Table, Verdict, number, percent
from muq_plugins.evaluation.probing.results import TaskResult, load_final_probe
from muq_plugins.evaluation.run_files import (
    HISTORY_FILE,
    METRICS_FILE,
    load_diagnostics,
    read_metrics,
    select,
    series,
)
from muq_plugins.files import read_json_lines
from muq_plugins.lobes import codes
from muq_plugins.lobes.objectives.base import Measure, references_of

# Fewer recordings than this say little about others.
FEWEST_FILES = 5
SHARED = "run.md.j2"


@dataclass(frozen=True)
class Run:
    """A run folder, read once: rows of its stage, arrays, and what its numbers mean."""

    folder: Path
    stage: str
    measures: Mapping[str, Measure]
    earlier: tuple[Run, ...] = ()  # the tokenizers that a pre-training stands on
    objective: str = ""  # one of several: numbers and arrays are its own then
    name: str = ""  # of a tokenizer: folders of several may be called the same

    @cached_property
    def objectives(self) -> list[Run]:
        """A pre-training as each of its objectives sees it; itself if there is one."""
        names = [name.partition("/")[0] for name in self.measures if "/" in name]
        return [
            replace(self, objective=name, measures=_measures_of(name, self.measures))
            for name in dict.fromkeys(names)
        ] or [self]

    @property
    def place(self) -> str:
        """Where its figures are, beside those of other objectives."""
        return f"{self.objective}/" if self.objective else ""

    @cached_property
    def rows(self) -> list[dict]:
        """The rows of this stage, the oldest first."""
        rows = select(read_metrics(self.folder / METRICS_FILE), stage=self.stage)
        rows = [_own(self.objective, row) for row in rows]
        if not rows:
            raise ValueError(
                f"{self.folder / METRICS_FILE} has no rows of the {self.stage} stage "
                "to report on"
            )
        return rows

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `save_diagnostics`, by name."""
        return _own(self.objective, load_diagnostics(self.folder))

    @property
    def code_counts(self) -> np.ndarray | None:
        """How often each code was chosen on unseen clips (N, V)."""
        return self.arrays.get("code_counts")

    @cached_property
    def valid(self) -> dict:
        """The last validation; empty before the first."""
        return (select(self.rows, kind="valid") or [{}])[-1]

    @cached_property
    def test(self) -> dict:
        """What was measured at the end; empty before."""
        return (select(self.rows, kind="test") or [{}])[-1]

    @cached_property
    def music(self) -> dict[str, int]:
        """Recordings of each part, when the run was started last; empty if unknown."""
        rows = read_json_lines(self.folder / HISTORY_FILE)
        return next((row["data"] for row in reversed(rows) if "data" in row), {})

    @cached_property
    def probe(self) -> TaskResult | None:
        """The probe that ended it, if there was one."""
        return load_final_probe(self.folder)

    @property
    def final(self) -> dict:
        """What statements about the result rest on: the test part once it is there."""
        return self.test or self.valid

    @property
    def part(self) -> str:
        """The part of the corpus that `final` was measured on."""
        return "test part" if self.test else "validation part"

    @property
    def warming_up(self) -> bool:
        """Whether the learning rate was still rising at the end."""
        _, rates = series(select(self.rows, kind="train"), "lr")
        return len(rates) > 1 and rates[-1] == rates.max() > rates[-2]

    @property
    def measured(self) -> list[str]:
        """The measures that its rows have: not every quantizer has every term."""
        return [name for name in self.measures if any(name in r for r in self.rows)]

    @property
    def main(self) -> list[str]:
        """The measures that say what has been learned, and that were measured."""
        names = [name for name in self.measured if name in self.final]
        return [name for name in names if self.measures[name].margin is not None]

    def numbers(self, name: str) -> str:
        """A measure and what it is held against, as they are in the end."""
        measure = self.measures[name]
        held = references_of(self.final, measure).items()
        words = [f"{short_title(measure)} {reading(measure, self.final[name])}"]
        return ", ".join([*words, *(f"{x} {reading(measure, v)}" for x, v in held)])


def _own(objective: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What is the objective's, by its own names, and what is everybody's."""
    if not objective:
        return dict(values)
    prefix = f"{objective}/"
    own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return {k: v for k, v in values.items() if "/" not in k} | own


def _measures_of(objective: str, measures: Mapping[str, Measure]) -> dict[str, Measure]:
    return {
        name: measure._replace(references=_own(objective, measure.references))
        for name, measure in _own(objective, measures).items()
    }


def of_each(find: Callable[[Run], Iterable], field: str) -> Callable[[Run], Iterator]:
    """What is said of each objective of a run, with its name if there are several."""

    def said(run: Run) -> Iterator:
        for view in run.objectives:
            for item in find(view):
                words = f"{view.objective}: {getattr(item, field)}"
                yield item._replace(**{field: words}) if view.objective else item

    return said


def short_title(measure: Measure) -> str:
    """What a measure is, in a sentence."""
    title = measure.title.partition(",")[0]
    return title[0].lower() + title[1:]


def reading(measure: Measure, value: float | None) -> str:
    """A number as it is read: with its unit, or in percent."""
    if measure.unit == "share":
        return percent(value)
    return f"{number(value)} {measure.unit}".strip()


def curves(
    *names: str, height: float, legend: str, on: int = 0
) -> Callable[[Run, Path], None]:
    """Draws measures of a stage over its training, each with its references."""

    def draw(run: Run, path: Path) -> None:
        panels = []
        shown = [name for name in names if name in run.measured] or names[:1]
        for index, name in enumerate(shown):
            measure = run.measures[name]
            train, valid = (
                series(select(run.rows, kind=kind), name) for kind in ("train", "valid")
            )
            panels.append(
                Panel(
                    measure.title,
                    [train_line(*train), valid_line(*valid)],
                    _levels(run.valid, measure),
                    ylabel="" if measure.unit == "share" else measure.unit,
                    legend=legend if index == on else "",
                    from_zero=measure.unit == "share",
                    write=percent_tick if measure.unit == "share" else None,
                )
            )
        line_charts(panels, path, height)

    return draw


def _levels(row: Mapping[str, Any], measure: Measure) -> list[Level]:
    """What gives a measure its meaning, as a row has it."""
    looks = (CHANCE, False), (COUNTING, True)
    return [
        Level(row[key], known.mark.format(row[key]), *look)
        for (key, known), look in zip(measure.references.items(), looks, strict=False)
        if row.get(key) is not None
    ]


def _optimisation_figure(run: Run, path: Path) -> None:
    lr, norm, speed = (
        series(select(run.rows, kind="train"), key)
        for key in ("lr", "grad_norm", "audio_seconds_per_second")
    )
    rate = Panel("Learning rate", [Line(*lr, color=INK)])
    panels = [
        rate._replace(write=scientific),
        Panel("Gradient norm", [train_line(*norm)]),
        Panel("Audio-seconds per s", [train_line(*speed)]),
    ]
    panels = [panel._replace(from_zero=True) for panel in panels]
    line_charts(panels, path, height=2.7)


OPTIMISATION = Part(
    "optimisation", {"optimisation": _optimisation_figure}, template=SHARED
)


class Counted(NamedTuple):
    """Counts (N, V), and on what they were counted."""

    counts: np.ndarray
    heard: str = "unseen clips"
    objective: str = ""  # one of several
    place: str = ""  # of its figure

    @property
    def frames(self) -> int:
        """How many frames were counted."""
        return int(self.counts.sum(axis=1).max())

    @property
    def size(self) -> int:
        """How many codes a codebook has."""
        return self.counts.shape[1]


def _codes_figure(counted: Counted, path: Path) -> None:
    used, effective = codes.usage(counted.counts), codes.perplexity(counted.counts)
    pairs = zip(used.tolist(), effective.tolist(), strict=True)
    notes = [f"usage {share:.0%}, perplexity {size:.0f}" for share, size in pairs]
    histograms(counted.counts, notes, path)


def _codes_table(counted: Counted) -> Table:
    counts = counted.counts
    return codebook_table(
        {
            "Usage": [percent(x) for x in codes.usage(counts).tolist()],
            "Perplexity": [f"{x:.0f}" for x in codes.perplexity(counts)],
            "Entropy (nat)": [f"{x:.2f}" for x in codes.entropy(counts)],
            "Dead codes": [str(x) for x in codes.dead_codes(counts).tolist()],
        }
    )


def _counted(run: Run) -> list[Counted]:
    heard = "the test part" if run.test else "unseen clips"
    return [
        Counted(view.code_counts, heard, view.objective, view.place)
        for view in run.objectives
        if view.code_counts is not None
    ]


CODES = Part("codes", {"codes": _codes_figure}, _codes_table, _counted, SHARED)


def codebook_table(columns: dict[str, list[str]]) -> Table:
    """One line for each codebook, numbered from 1, of columns by name."""
    rows = zip(*columns.values(), strict=True)
    return Table(
        ["Codebook", *columns],
        [[str(place), *cells] for place, cells in enumerate(rows, start=1)],
    )


def code_use(run: Run) -> Iterator[Fact]:
    """How the codes are used."""
    counts = run.code_counts
    if counts is not None:
        found = codes.usage(counts), codes.perplexity(counts)
        yield usage_fact(*found, counts.shape, "test part; " if run.test else "")


def usage_fact(usage, perplexity, size: tuple[int, int], part: str = "") -> Fact:
    """How the codes are used, from one number a codebook."""
    return Fact(
        "Code usage",
        _span(100 * np.asarray(usage), "{:.3g}") + "%",
        f"{part}{size[0]} x {size[1]} codes, perplexity "
        + _span(np.asarray(perplexity), "{:.0f}"),
    )


def training_time(run: Run) -> Iterator[Fact]:
    """How long it took."""
    rows = run.rows
    _, speed = series(select(rows, kind="train"), "audio_seconds_per_second")
    speed = speed[np.isfinite(speed)]
    note = duration(rows[-1]["time"])
    if speed.size:
        note += f", {speed.mean():,.0f} seconds of audio per second"
    yield Fact("Training", f"{rows[-1]['step']:,} steps", note)


def music(run: Run) -> Iterator[Fact]:
    """How many recordings each part has; the tokenizer of a run has its music."""
    if parts := run.music:
        note = f"{parts['valid']:,} for validation, {parts['test']:,} for the test"
        files = f"{parts['train']:,} file{'s' * (parts['train'] != 1)}"
        yield Fact("Music", files, f"to learn from; {note}")


def judgeable(run: Run) -> Iterator[Verdict]:
    """Whether all numbers are finite, of unseen clips, and of enough of these."""
    if bad := [row for row in run.rows if row.get("non_finite")]:
        again = f", and again in {len(bad) - 1} later rows" if len(bad) > 1 else ""
        yield Verdict(
            "problem",
            f"not finite at step {bad[0]['step']}: {', '.join(bad[0]['non_finite'])}"
            f"{again}. Look at the gradient norm before that step; lower the learning "
            "rate, lengthen the warm-up, or train in fp32.",
        )
    if not run.valid:
        words = "there is no validation yet: nothing can be said about unseen clips"
        yield Verdict("warning", words)
    files = run.music.get("test", FEWEST_FILES)
    if files < FEWEST_FILES:
        yield Verdict(
            "warning",
            f"the final numbers rest on {files} file{'s' * (files != 1)}: they say "
            "more about these than about other music. Use more music, or a larger "
            "share of it to test on (data.test_fraction, in a new output folder).",
        )


def finite_list(row: dict, key: str) -> list[float]:
    """One number per codebook of a row; none if it is missing or one is not finite."""
    values = row.get(key) or []
    return [] if any(value is None for value in values) else list(values)


def name_codebooks(positions: list[int]) -> str:
    """Name codebooks for a person, who counts from 1.

    Example
    -------
    >>> name_codebooks([0]), name_codebooks([0, 1, 2])
    ('codebook 1', 'codebooks 1, 2 and 3')
    """
    *names, last = (str(position + 1) for position in positions)
    return f"codebooks {', '.join(names)} and {last}" if names else f"codebook {last}"


def _span(values, form: str) -> str:
    """The smallest and the largest value, or one number if they read the same."""
    low, high = form.format(float(values.min())), form.format(float(values.max()))
    return low if low == high else f"{low}–{high}"
