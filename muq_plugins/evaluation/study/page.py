"""The answers of a study, and its page, made from `study.json` and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from muq_plugins.evaluation.figures.experiments import (
    Curves,
    Dots,
    code_use,
    panels_of_curves,
    scores_by_experiment,
    scores_by_number,
)
from muq_plugins.evaluation.intervals import (
    FEWEST_GROUPS,
    Estimate,
    Paired,
    holm,
    p_value,
    seeds_for,
    spread_p_value,
    spread_ratio,
)
from muq_plugins.evaluation.page import Fact, Page, Part, Table, Verdict, write_page
from muq_plugins.evaluation.probing.frame_labels import NOTES
from muq_plugins.evaluation.probing.results import TRAINED, UNTRAINED
from muq_plugins.evaluation.study.numbers import (
    BUDGET,
    CURVES,
    KINDS,
    OF_CODES,
    REFERENCES,
    SAME_SIZE,
    Measure,
    Study,
    along,
    contrast,
    entropy_of,
    is_notes,
    layer_scores,
    read_study,
    slope_weights,
)

NOTHING = "-"
SURE = 0.05  # p-values above it decide nothing
NARROW = 0.015  # half of an interval: what a study of points is asked for
# Columns of the table of codes: measure, scale and decimals.
CODES = {
    "Masked accuracy (%)": ("accuracy", 100, 1),
    "Cross-entropy (nat)": ("cross_entropy", 1, 3),
    "Code entropy (nat)": ("code_entropy", 1, 3),
    "Usage (%)": ("usage", 100, 1),
    "Perplexity": ("perplexity", 1, 1),
    "Reconstruction error": ("reconstruction", 1, 3),
}


class Group(NamedTuple):
    """Experiments that the page shows together, in order."""

    study: Study
    number: int
    title: str
    x: str  # what they differ in by a number; empty if there is none
    members: Mapping[str, float] | Sequence[str]

    @property
    def names(self) -> list[str]:
        """The experiments."""
        return along(self.members) if self.x else list(self.members)

    @property
    def finished(self) -> list[str]:
        """Those that have a run."""
        return [name for name in self.names if self.study.runs_of(name)]

    @property
    def coded(self) -> Group:
        """Without the experiments that name no codes."""
        names = [name for name in self.names if not self.study.is_silent(name)]
        members = {name: self.members[name] for name in names} if self.x else names
        return self._replace(members=members)

    @property
    def name(self) -> str:
        """What its figures are named after."""
        stem = re.sub(r"\W+", "_", self.title.lower()).strip("_")
        return f"{self.number}_{stem}"


def groups_of(study: Study) -> list[Group]:
    """The groups of a study, numbered from 1."""
    return [
        Group(study, number, about["title"], about.get("x", ""), about["experiments"])
        for number, about in enumerate(study.about["groups"], start=1)
    ]


def study_report(folder: str | Path) -> Path:
    """Writes `report.html`, `report.md` and figures beside a `study.json`."""
    study = read_study(folder)
    about = study.about
    settings = {"command": about["command"], "seeds": study.seeds, **about["budget"]}
    return write_page(
        folder,
        study_page(study),
        study,
        ", ".join(f"{name} {value}" for name, value in about["machine"].items()),
        "\n".join(f"{key}: {json.dumps(value)}" for key, value in settings.items()),
    )


def study_headline(folder: str | Path) -> list[str]:
    """What came out, line by line for the terminal: numbers, warnings, answers."""
    study = read_study(folder)
    page = study_page(study)
    return [str(line) for line in [*page.facts_of(study), *page.verdicts_of(study)]]


def study_page(study: Study) -> Page:
    """The page, which depends on what there is to show."""
    about = study.about
    parts = [Part("answers", table=answers_table)] if about["questions"] else []
    for group in groups_of(study):
        for part in _parts_of(group):
            parts.append(part._replace(each=lambda _, group=group: [group]))
    parts.append(Part("budget", table=budget_table))
    if about["tasks"]:
        parts.append(Part("tasks", table=_tasks_table))
    parts.append(Part("experiments", table=_experiments_table))
    verdicts = budget_verdict, limits, _answered
    return Page(about["title"], "study.md.j2", (_facts,), verdicts, tuple(parts))


def _parts_of(group: Group) -> list[Part]:
    """Scores, layers, codes: what a group is shown by."""
    scores = {"scores": _scores_figure}
    if not group.finished:
        return [Part("unfinished")]
    if group.study.scores:
        return [Part("music", scores, music_table)]
    codes = {**scores, "learning": _learning_figure, "codes": _codes_figure}
    parts = [Part("codes", codes, codes_table)] if group.coded.finished else []
    if group.study.about["tasks"]:
        layers = Part("layers", {"layers": _layers_figure})
        parts = [Part("probes", scores, probe_table), layers, *parts]
    return parts


def _facts(study: Study) -> Iterator[Fact]:
    """How much was run, and the base beside the highest."""
    runs = f"{len(study.runs)} of {len(study.runs) + len(study.about['missing'])}"
    counts = f"experiments: {len(study.names)}, seeds: {len(study.seeds)}"
    yield Fact("Runs", runs, counts)
    if not study.runs:
        return
    audio = f"{_same(study.values['audio_seconds'])} s of audio for each run"
    yield Fact("Budget", f"{_same(study.values['updates'])} updates", audio)
    measure, base = study.measure(study.headline), study.about["base"]
    found = {name: study.of(study.headline, name) for name in study.names}
    found = {name: values for name, values in found.items() if len(values)}
    best = max(found, key=lambda name: found[name].mean())
    levels = (
        f"{level} {measure.show(height)}{measure.sign}"
        for level, height in study.levels.items()
    )
    notes = {base: ("base", ", ".join(levels))} if base in found else {}
    if best != base:
        difference = _against_base(study, study.headline, best)
        notes[best] = "highest", f"minus {study.label(base)}: {difference}"
    for name, (title, note) in notes.items():
        value = measure.show(found[name].mean()) + measure.sign
        if len(found[name]) > 1:
            value += f" ± {measure.show(found[name].std(ddof=1))}"
        yield Fact(f"{measure.title}, {title}: {study.label(name)}", value, note)


def budget_verdict(study: Study) -> Iterator[Verdict]:
    """Whether all runs had the same updates and seconds of audio."""
    budgets = {key: (r["updates"], r["audio_seconds"]) for key, r in study.runs.items()}
    given = list(budgets.values())
    if not given:
        return
    usual = max(sorted(set(given)), key=given.count)
    words = f"{usual[0]:,} updates and {usual[1]:,.10g} seconds of audio"
    others = [
        f"{study.label(name)} with seed {seed} ({updates:,} updates, {audio:,.10g} s)"
        for (name, seed), (updates, audio) in budgets.items()
        if (updates, audio) != usual
    ]
    if others:
        yield Verdict(
            "problem",
            "the budgets differ, so nothing below is a fair comparison: most runs had "
            f"{words}, but not {', '.join(others)}.",
        )
    else:
        words = f"all {len(given)} runs had the same budget: {words}."
        yield Verdict("good", words)


def limits(study: Study) -> Iterator[Verdict]:
    """What the answers lack: runs, seeds, test pieces."""
    if missing := study.about["missing"]:
        count = f"{len(missing)} of {len(missing) + len(study.runs)} runs"
        again = "Run the study again; what is finished is reused."
        words = f"not finished, {count}: {_some(study, missing)}. {again}"
        yield Verdict("warning", words)
    if len(study.seeds) == 1:
        words = "there is one seed, so nothing can be decided: another seed may turn "
        yield Verdict("warning", f"{words}every difference around.")
    pieces = {name: len(set(t["pieces"])) for name, t in study.about["tasks"].items()}
    few = [f"{name} ({n})" for name, n in pieces.items() if n < FEWEST_GROUPS]
    if few:
        words = "too few test pieces for intervals that mean something"
        yield Verdict("warning", f"{words}: {', '.join(few)}.")


def _answered(study: Study) -> list[Verdict]:
    return [Verdict(said.answer, said.sentence) for said in _answers(study)]


def _answers(study: Study) -> list[Answer]:
    """The answers, corrected for how many questions were asked."""
    answers = [answer(study, question) for question in study.about["questions"]]
    found = []
    for said, corrected in zip(answers, holm([x.p for x in answers]), strict=True):
        if not math.isnan(said.p):
            if answers[1:]:
                words = f" ({_chance(corrected)} as one of {len(answers)})"
                said = said._replace(numbers=said.numbers + words)
            if corrected >= SURE:
                said = said._replace(answer="undecided")
            said = said._replace(corrected=corrected)
        found.append(said)
    return found


def _chance(p: float) -> str:
    """A p-value for a person."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


class Answer(NamedTuple):
    """What the runs say about a question."""

    question: str
    answer: str  # "supported", "refuted", "undecided" or "unfinished"
    numbers: str  # with the interval, or why there is none
    compared: str = ""
    measure: Measure | None = None
    unit: str = ""
    found: Paired | Estimate | None = None
    p: float = math.nan  # of this question alone; NaN if it decides nothing
    corrected: float = math.nan  # as one of all questions of the study

    @property
    def more(self) -> str:
        """What would make the interval of a difference in points narrow enough."""
        found, in_points = self.found, self.measure and self.measure.unit == "points"
        if not (in_points and isinstance(found, Paired)) or not found.half > NARROW:
            return ""
        if seeds := seeds_for(found, NARROW):
            return f"{seeds} seeds"
        if found.from_groups >= NARROW:
            return "more test pieces"
        return "over 1000 seeds"

    @property
    def sentence(self) -> str:
        """The answer as a finding of the report."""
        if self.answer == "unfinished":
            return f"{self.question} Not finished, {self.numbers}."
        words = f"{self.answer.capitalize()} at this budget: {self.numbers}"
        if self.more:
            words += f"; ±{self.measure.show(NARROW)} would take {self.more}"
        return f"{self.question} {words}. Compared: {self.compared}."


def answer(study: Study, question: dict) -> Answer:
    """Answers a question by numbers alone, as if it were the only one.

    Supported if the whole 95 % interval lies on the side that the question asks about,
    refuted if it lies on the other side, else undecided. An interval that leaves the
    test pieces out is too narrow to decide where pieces are scored; what a loss says,
    of which none are kept, says that it leaves them out.
    """
    kind = next(kind for kind in KINDS if kind in question)
    text, x = question["question"], question.get("rises", {})
    names = along(x) if x else [question[kind], question["than"]]
    if missing := [run for run in study.about["missing"] if run[0] in names]:
        return Answer(text, "unfinished", f"missing: {_some(study, missing)}")
    measure = study.measure(question["measure"])
    first, last = study.label(names[0]), study.label(names[-1])
    what = measure.lower_case
    if measure.better < 0 and kind != "less_spread":
        what += ", where lower is better"
    compared = {
        "better": f"{what}: {first} minus {last}",
        "rises": f"{what}: slope from {first} to {last}",
        "less_spread": f"standard deviation of the {what}: {first} divided by {last}",
    }[kind]
    unit = (measure.unit + (" per doubling" if x else "")).strip()
    about = compared, measure, unit
    if reason := not_comparable(study, question["measure"], names):
        return Answer(text, "undecided", reason, *about)
    over = f"over {len(study.seeds)} seeds"
    if kind == "less_spread":
        both = [study.of(question["measure"], name) for name in names]
        if len(study.seeds) == 1:
            return Answer(text, "undecided", "one seed", *about)
        found = spread_ratio(*both)
        if found is None:
            words = "at least one of the two does not vary at all"
            return Answer(text, "undecided", words, *about)
        words = f"ratio {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] {over}"
        said = _decided(1 - found.high, 1 - found.low)
        p = spread_p_value(found.value, *map(len, both))
        return Answer(text, said, f"{words}, {_chance(p)}", *about, found, p)
    weights = slope_weights([x[name] for name in names]) if x else [1.0, -1.0]
    weights = dict(zip(names, weights, strict=True))
    found = contrast(study, question["measure"], weights)
    low, high = sorted(measure.better * end for end in (found.low, found.high))
    said = _decided(low, high)
    words, p = f"{measure.show(found.value, '+')} {unit}".strip(), p_value(found)
    if len(found.per_seed) == 1:
        words = f"one seed, {words}"
    elif math.isnan(found.low):
        words += f" {over}, which say nothing: their 95% interval exceeds the scale"
    else:
        words += f" {measure.ends(found)}, ±{measure.show(found.half)}, {over}"
        if question["measure"] in study.scores and math.isnan(found.from_groups):
            said, p = "undecided", math.nan
            words += " only, without the choice of test pieces"
        else:
            seeds_alone = math.isnan(found.from_groups)
            words += " alone" * seeds_alone + f", {_chance(p)}"
    return Answer(text, said, words, *about, found, p)


def _decided(low: float, high: float) -> str:
    """The answer if what lies above 0 speaks for it."""
    return "supported" if low > 0 else "refuted" if high < 0 else "undecided"


def not_comparable(study: Study, measure: str, names: Sequence[str]) -> str:
    """Why a measure says nothing about some experiments; empty if it does."""
    if measure not in OF_CODES:
        return ""
    if silent := [study.label(name) for name in names if study.is_silent(name)]:
        return f"not comparable, as no codes are named by {' and '.join(silent)}"
    runs = [run for name in names for run in study.runs_of(name)]
    sizes = sorted({run["codebook_size"] for run in runs})
    if measure in SAME_SIZE and len(sizes) > 1:
        words = " and ".join(map(str, sizes))
        return f"not comparable, as codebooks have {words} entries"
    if measure in CURVES:
        steps = {tuple(run["learning"]["updates"]) for run in runs}
        if len(steps) > 1:
            return "not comparable, as the runs were validated after different updates"
        if any(len(once) < 2 for once in steps):
            return "not measured, as the runs were validated too seldom for a curve"
    return ""


def _some(study: Study, runs: Sequence[tuple[str, int]]) -> str:
    """The first few of some runs."""
    names = [f"{study.label(name)} (seed {seed})" for name, seed in runs]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def answers_table(study: Study) -> Table:
    """All questions with the numbers behind their answers."""
    rows = []
    for said in _answers(study):
        found, cells = said.found, [NOTHING] * 7
        if isinstance(found, Paired):
            show = said.measure.show
            halves = (found.from_seeds, found.from_groups)
            cells = [
                f"{show(found.value, '+')} {said.unit}".strip(),
                said.measure.ends(found) or NOTHING,
                NOTHING,
                *(NOTHING if math.isnan(half) else f"±{show(half)}" for half in halves),
                said.more or NOTHING,
                ", ".join(show(value, "+") for value in found.per_seed),
            ]
        elif found is not None:
            cells[:2] = f"x {found.value:.2f}", f"[{found.low:.2f}, {found.high:.2f}]"
        if not math.isnan(said.p):
            cells[2] = ", ".join(map(_chance, (said.p, said.corrected)))
        rows.append([said.question, said.answer, *cells])
    header = ["Question", "Answer", "Result", "95% interval", "p alone, corrected"]
    more = f"±{100 * NARROW:g} points take"
    return Table([*header, "From seeds", "From test pieces", more, "Every seed"], rows)


def probe_table(group: Group) -> Table:
    """What can be read off encoders, task by task, then the references."""
    study, tasks = group.study, dict(group.study.about["tasks"])
    if study.headline == NOTES:  # which has a column of its own
        tasks = {name: about for name, about in tasks.items() if not is_notes(name)}
    names = [*group.names, *filter(study.knows, REFERENCES)]
    others = {f"{task} (%)": (task, 100, 1) for task in tasks}
    chances = [f"{100 * task['chance']:.1f}" for task in tasks.values()]
    shown = {study.headline: study.levels["chance"], "probe": 0.0}
    table = _compared(study, names, list(shown), others)
    for chance in [*shown.values()][::-1]:
        chances = [f"{100 * chance:.1f}", NOTHING, *chances]
    table.rows.append(["chance", *chances])
    return table


def music_table(group: Group) -> Table:
    """How well music and text find each other, then chance."""
    study = group.study
    shown = {name: study.measure(name) for name in study.scores}
    others = {shown[name].column: (name, *shown[name].form) for name in shown}
    del others[shown[study.headline].column]
    table = _compared(study, group.names, [study.headline], others)
    chances = [shown[name].show(test["chance"]) for name, test in study.scores.items()]
    table.rows.append(["chance", chances[0], NOTHING, *chances[1:]])
    return table


def codes_table(group: Group) -> Table:
    """The targets of experiments, and how well they are predicted."""
    group, study = group.coded, group.study
    asked = {question["measure"] for question in study.about["questions"]}
    shown = ["gain", *(name for name in CURVES if name in asked)]
    table = _compared(study, group.names, shown, CODES)
    table.header.insert(1, "Codes")
    for name, row in zip(group.names, table.rows, strict=True):
        runs = study.runs_of(name)
        sizes = {f"{run['num_codebooks']} x {run['codebook_size']}" for run in runs}
        row.insert(1, " or ".join(sorted(sizes)) or NOTHING)
    return table


def _compared(
    study: Study,
    names: Sequence[str],
    measures: Sequence[str],
    others: Mapping[str, tuple[str, int, int]],
) -> Table:
    """A line for each name: measures beside their difference to the base, then others.

    ``others`` are column: measure, scale and decimals.
    """
    header, rows = ["Experiment"], []
    for measure in measures:
        base = study.label(study.about["base"])
        header += [study.measure(measure).column, f"Minus {base}"]
    for name in names:
        done, wanted = len(study.runs_of(name)), len(study.seeds)
        row = [name if name in REFERENCES else study.label(name)]
        if name not in REFERENCES and done < wanted:
            row = [f"{row[0]} ({done} of {wanted} seeds)"]
        for measure in measures:
            scale, decimals = study.measure(measure).form
            row.append(_cell(scale * study.of(measure, name), decimals))
            row.append(_against_base(study, measure, name))
        for measure, scale, decimals in others.values():
            row.append(_cell(scale * study.of(measure, name), decimals))
        rows.append(row)
    return Table([*header, *others], rows)


def budget_table(study: Study) -> Table:
    """What every experiment was given, and what its tokenizer cost besides."""
    rows = []
    for name in study.names:
        row = [study.label(name), f"{len(study.runs_of(name))} of {len(study.seeds)}"]
        for key in BUDGET.values():
            values = study.of(key, name)
            # What is not a time must be the same for all.
            timed = key in ("training_seconds", "tokenizer_seconds")
            row.append(_cell(values, 0, ",") if timed else _same(values))
        rows.append(row)
    return Table(["Experiment", "Runs", *BUDGET], rows)


def _tasks_table(study: Study) -> Table:
    header = ["Task", "Kind", "Classes", "Test clips", "Test pieces", "Chance (%)"]
    rows = []
    for name, task in study.about["tasks"].items():
        sizes = map(len, (task["classes"], task["pieces"], set(task["pieces"])))
        chance = f"{100 * task['chance']:.1f}"
        rows.append([name, task.get("level") or NOTHING, *map(str, sizes), chance])
    return Table(header, rows)


def _experiments_table(study: Study) -> Table:
    rows = []
    for name, about in study.about["experiments"].items():
        changes = ", ".join(f"{key}: {x}" for key, x in about["overrides"].items())
        rows.append([name, about["label"], about["file"], changes or NOTHING])
    return Table(["Experiment", "Name here", "File", "Changed in it"], rows)


def _against_base(study: Study, measure: str, name: str) -> str:
    """A cell with the difference to the base, "base", or "-"."""
    base = study.about["base"]
    if name == base:
        return "base"
    rows = [base if name in REFERENCES else name, base]
    if not_comparable(study, measure, rows):
        return NOTHING
    found = contrast(study, measure, {name: 1.0, base: -1.0})
    unknown = measure in study.draws and found and math.isnan(found.from_groups)
    if found is None or unknown:
        return NOTHING
    change = study.measure(measure).show(found.value, "+")
    return _unbroken(f"{change} {study.measure(measure).ends(found)}".strip())


def _cell(values: np.ndarray, decimals: int, comma: str = "") -> str:
    """Mean ± standard deviation over seeds; "-" if there is nothing to measure.

    What is the same for every seed, such as a reference, has no deviation.
    """
    if not len(values) or np.isnan(values).any():
        return NOTHING
    form = f"{comma}.{decimals}f"
    if np.ptp(values) == 0:
        return f"{values.mean():{form}}"
    return _unbroken(f"{values.mean():{form}} ± {values.std(ddof=1):{form}}")


def _unbroken(words: str) -> str:
    """With spaces at which no line of a narrow column ends."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _same(values: np.ndarray) -> str:
    """What should be the same for all: one number, or all different ones."""
    numbers = np.unique(values[np.isfinite(values)])
    return " or ".join(f"{value:,.10g}" for value in numbers) or NOTHING


def _scores_figure(group: Group, path: Path) -> None:
    study, names = group.study, group.finished
    measure, base = study.measure(study.headline), study.about["base"]
    scale, unit = measure.form[0], measure.unit

    def dots(name: str, weights: dict[str, float]) -> Dots | None:
        found = contrast(study, study.headline, weights)
        if found is None:
            return None
        known = not math.isnan(found.low)
        interval = (scale * found.low, scale * found.high) if known else None
        values = [scale * value for value in found.per_seed]
        return Dots(study.label(name), values, interval)

    scores = [dots(name, {name: 1.0}) for name in names]
    levels = {name: scale * level for name, level in study.levels.items()}
    differences = [
        None if name == base else dots(name, {name: 1.0, base: -1.0}) for name in names
    ]
    minus = f"minus {study.label(base)}" + (f" ({unit})" if unit else "")
    if group.x:
        x = [group.members[name] for name in names]
        axes = group.x, measure.column, minus
        return scores_by_number(x, scores, differences, levels, axes, path)
    axes = measure.column, minus
    return scores_by_experiment(scores, differences, levels, axes, path)


def _panels(group: Group, curves, axes: tuple[str, str], path: Path, **more) -> None:
    """One panel an experiment, with the base behind it."""
    base = group.study.about["base"]
    behind = curves(base) if group.study.runs_of(base) else None
    shown = [curves(name) for name in group.finished]
    panels_of_curves(shown, behind, axes, path, **more)


def _learning_figure(group: Group, path: Path) -> None:
    def curves(name: str) -> Curves | None:
        if group.study.is_silent(name):  # the base may be
            return None
        runs = group.study.runs_of(name)
        steps = runs[0]["learning"]["updates"]
        values = [
            [loss - entropy_of(run) for loss in run["learning"]["cross_entropy"]]
            for run in runs
            if run["learning"]["updates"] == steps
        ]
        return Curves(group.study.label(name), steps, values)

    axes = "update", "cross-entropy\nminus entropy (nat)"
    _panels(group.coded, curves, axes, path, zero="a model that only counts codes")


def _layers_figure(group: Group, path: Path) -> None:
    study = group.study

    def curves(name: str, features: str = TRAINED, label: str = "") -> Curves:
        values = layer_scores(study, name, features)
        label = label or study.label(name)
        return Curves(label, list(range(len(values[0]))), values)

    reference = None
    if study.knows(UNTRAINED):
        reference = curves(study.about["base"], UNTRAINED, UNTRAINED)
    axes = "layer", study.measure(study.headline).lower_case
    _panels(group, curves, axes, path, reference=reference, shares=True)


def _codes_figure(group: Group, path: Path) -> None:
    group, usage, perplexity = group.coded, [], []
    for name in group.finished:
        runs = group.study.runs_of(name)
        runs = [r for r in runs if r["num_codebooks"] == runs[0]["num_codebooks"]]
        usage.append(np.mean([run["usage"] for run in runs], axis=0))
        shares = [np.array(run["perplexity"]) / run["codebook_size"] for run in runs]
        perplexity.append(np.mean(shares, axis=0))
    labels = [group.study.label(name) for name in group.finished]
    code_use(labels, usage, perplexity, path)
