"""The page of a study, made from `study.json` and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.figures import Curves, Dots
from muq_plugins.evaluation.intervals import Paired
from muq_plugins.evaluation.page import (
    Fact,
    Picture,
    Section,
    Table,
    Verdict,
    announce,
    write_report,
)
from muq_plugins.evaluation.probing.results import TRAINED, UNTRAINED
from muq_plugins.evaluation.run_files import FIGURES_FOLDER
from muq_plugins.evaluation.study.numbers import (
    REFERENCES,
    Answer,
    Study,
    along,
    answer,
    contrast,
    ends,
    layer_scores,
    not_comparable,
    read_study,
)

# Resampling fewer pieces says nothing about other pieces.
FEWEST_PIECES = 5
NOTHING = "-"
OVER_SEEDS = (
    "Values are the mean ± the standard deviation over seeds; differences to the base "
    "are paired by seed and, for probes, by test clip, with their 95% interval in "
    "brackets."
)
PROBE_TEXT = (
    "The probe score is the mean over the tasks of how far a linear probe of the "
    "frozen encoder gets from chance (0%) to no error (100%); the tasks themselves are "
    "in balanced accuracy. Each task uses the layer that is chosen without the test "
    "part."
)
CODES_TEXT = (
    "All on the test part, as the mean over codebooks. Gain over counting is the "
    "entropy of the codes minus the cross-entropy on masked frames: how much better "
    "the model knows the codes than one that only counts them. Cross-entropy and "
    "accuracy themselves depend on how even the codes are and say little across "
    "targets."
)
MUSIC_TEXT = (
    "On pieces that were not trained on: music is found by its full caption, and "
    "captions by music; tags are the bare names of instruments. Values are the mean ± "
    "the standard deviation over seeds; differences to the base are paired by seed, "
    "with their 95% interval in brackets."
)
SEEDS_ONLY = (
    "\n\nSeeds only: what was found of each query was not kept, so the intervals "
    "leave out which pieces the test part has. They are too narrow to decide anything."
)
ANSWERS_TEXT = (
    "An answer is computed: supported if the whole 95% interval lies on the side that "
    "the question asks about, refuted if it lies on the other side, undecided "
    "otherwise. It holds for this budget, this model and these data. Half the width of "
    "the interval is the root of the sum of two squares: Student's interval over the "
    "seeds, of differences within a seed, and 1.96 standard errors over the test "
    "pieces, from 1,000 bootstrap draws that are the same for both sides. Slopes are "
    "per doubling, fitted for each seed; ratios of standard deviations have the "
    "interval of the F distribution."
)
# Columns of the table of codes: measure, scale and decimals.
CODES = {
    "Masked accuracy (%)": ("accuracy", 100, 1),
    "Cross-entropy (nat)": ("cross_entropy", 1, 3),
    "Code entropy (nat)": ("code_entropy", 1, 3),
    "Usage (%)": ("usage", 100, 1),
    "Perplexity": ("perplexity", 1, 1),
    "Reconstruction error": ("reconstruction", 1, 3),
}
# Columns of the table of costs; what has no decimals must be the same for all.
BUDGET = {
    "Updates": "updates",
    "Audio (s)": "audio_seconds",
    "Time (s)": "training_seconds",
    "Parameters": "parameters",
    "Tokenizer: updates": "tokenizer_updates",
    "Tokenizer: audio (s)": "tokenizer_audio_seconds",
    "Tokenizer: time (s)": "tokenizer_seconds",
}


def study_report(folder: str | Path) -> Path:
    """Writes `report.html`, `report.md` and figures beside a `study.json`."""
    folder = Path(folder)
    study = read_study(folder)
    about = study.about
    answers = [answer(study, question) for question in about["questions"]]
    sections = [answers_section(answers)] if answers else []
    for number, group in enumerate(about["groups"], start=1):
        sections += _group_sections(study, number, group, folder / FIGURES_FOLDER)
    sections.append(
        Section(
            "Was the budget the same?",
            "Updates and seconds of audio must be equal for all. The training of a "
            "tokenizer comes on top and is listed apart: targets without one have not "
            "been given its time for anything else.",
            table=budget_table(study),
        )
    )
    if about["tasks"]:
        sections.append(
            Section(
                "What was probed for?",
                "Pieces of the test part are in no other part; intervals resample "
                "them.",
                table=_tasks_table(about["tasks"]),
            )
        )
    sections.append(_experiments_section(study))
    settings = {"command": about["command"], "seeds": study.seeds, **about["budget"]}
    return write_report(
        folder,
        about["title"],
        study_facts(study),
        announce(study_verdicts(study, answers)),
        sections,
        "\n".join(f"{key}: {json.dumps(value)}" for key, value in settings.items()),
        ", ".join(f"{name} {value}" for name, value in about["machine"].items()),
    )


def study_headline(folder: str | Path) -> list[str]:
    """What came out, line by line for the terminal: numbers, warnings, answers."""
    study = read_study(folder)
    answers = [answer(study, question) for question in study.about["questions"]]
    lines = [*study_facts(study), *study_verdicts(study, answers)]
    return [str(line) for line in lines]


def study_facts(study: Study) -> list[Fact]:
    """How much was run, and the base beside the highest."""
    missing = len(study.about["missing"])
    facts = [
        Fact(
            "Runs",
            f"{len(study.runs)} of {len(study.runs) + missing}",
            f"experiments: {len(study.names)}, seeds: {len(study.seeds)}",
        )
    ]
    if not study.runs:
        return facts
    facts.append(
        Fact(
            "Budget",
            f"{_same(study.values['updates'])} updates",
            f"{_same(study.values['audio_seconds'])} s of audio for each run",
        )
    )
    measure, base = study.measure(study.headline), study.about["base"]
    levels = ", ".join(
        f"{name} {measure.show(level)}{measure.sign}"
        for name, level in _references(study).items()
    )
    means = {
        name: study.of(study.headline, name).mean()
        for name in study.names
        if study.runs_of(name)
    }
    best = max(means, key=means.__getitem__)
    shown = {"base": base} if base in means else {}
    shown |= {"highest": best} if best != base else {}
    for title, name in shown.items():
        values = study.of(study.headline, name)
        value = measure.show(values.mean()) + measure.sign
        if len(values) > 1:
            value += f" ± {measure.show(values.std(ddof=1))}"
        note = levels
        if title == "highest":
            difference = _against_base(study, study.headline, name)
            note = f"minus {study.label(base)}: {difference}"
        label = f"{measure.title}, {title}: {study.label(name)}"
        facts.append(Fact(label, value, note))
    return facts


def study_verdicts(study: Study, answers: list[Answer]) -> list[Verdict]:
    """Whether the study can be trusted, then its answers."""
    verdicts = [_budget_verdict(study)] if study.runs else []
    missing = study.about["missing"]
    if missing:
        names = [f"{study.label(name)} (seed {seed})" for name, seed in missing]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        words = (
            f"not finished, {len(names)} of {len(names) + len(study.runs)} runs: "
            f"{', '.join(names[:5])}{more}. Run the study again; what is finished is "
            "reused."
        )
        verdicts.append(Verdict("warning", words))
    if len(study.seeds) == 1:
        words = (
            "there is one seed, so nothing can be decided: another seed may turn every "
            "difference around."
        )
        verdicts.append(Verdict("warning", words))
    few = [
        f"{name} ({pieces})"
        for name, task in study.about["tasks"].items()
        if (pieces := len(set(task["pieces"]))) < FEWEST_PIECES
    ]
    if few:
        words = "too few test pieces for intervals that mean something"
        verdicts.append(Verdict("warning", f"{words}: {', '.join(few)}."))
    return verdicts + [Verdict(said.answer, said.sentence) for said in answers]


def _budget_verdict(study: Study) -> Verdict:
    """Whether all runs had the same updates and seconds of audio."""
    budgets = {key: (r["updates"], r["audio_seconds"]) for key, r in study.runs.items()}
    given = list(budgets.values())
    usual = max(sorted(set(given)), key=given.count)
    words = f"{usual[0]:,} updates and {usual[1]:,.10g} seconds of audio"
    others = [
        f"{study.label(name)} with seed {seed} ({updates:,} updates, {audio:,.10g} s)"
        for (name, seed), (updates, audio) in budgets.items()
        if (updates, audio) != usual
    ]
    if others:
        return Verdict(
            "problem",
            f"the budgets differ, so nothing below is a fair comparison: most runs had "
            f"{words}, but not {', '.join(others)}.",
        )
    return Verdict("good", f"all {len(given)} runs had the same budget: {words}.")


def answers_section(answers: list[Answer]) -> Section:
    """All questions with the numbers behind their answers."""
    rows = []
    for said in answers:
        found, cells = said.found, [NOTHING] * 5
        if isinstance(found, Paired):
            show = said.measure.show
            halves = (found.from_seeds, found.from_groups)
            cells = [
                f"{show(found.value, '+')} {said.unit}".strip(),
                NOTHING if math.isnan(found.low) else ends(said.measure, found),
                *(NOTHING if math.isnan(half) else f"±{show(half)}" for half in halves),
                ", ".join(show(value, "+") for value in found.per_seed),
            ]
        elif found is not None:
            cells[:2] = f"x {found.value:.2f}", f"[{found.low:.2f}, {found.high:.2f}]"
        rows.append([said.question, said.answer, *cells])
    text = ANSWERS_TEXT
    if len(rows) > 1:
        text += (
            f"\n\n{len(rows)} questions are asked and each interval is for its "
            "question alone, without a correction for their number: of twenty "
            "questions whose truth is no difference, about one is decided by chance."
        )
    header = ["Question", "Answer", "Result", "95% interval"]
    header += ["From seeds", "From test pieces", "Every seed"]
    return Section("Questions and answers", text, table=Table(header, rows))


def _group_sections(study: Study, number: int, group: dict, folder: Path):
    """Everything about a group of experiments: scores, curves, codes, layers."""
    title, members = group["title"], group["experiments"]
    names = along(members) if isinstance(members, dict) else members
    finished = [name for name in names if study.runs_of(name)]
    if not finished:
        return [Section(title, "No run of this group has finished.")]
    stem = re.sub(r"\W+", "_", title.lower()).strip("_")

    def path(kind):
        return folder / f"{number}_{stem}_{kind}.png"

    def text(words):
        first = study.about["groups"][0]["title"]
        return f"{words} {OVER_SEEDS}" if number == 1 else f"As for {first} above."

    pictures = [_scores_picture(study, group, finished, path("scores"))]
    if study.scores:
        words = MUSIC_TEXT + ("" if study.draws else SEEDS_ONLY)
        return [Section(title, words, pictures, music_table(study, names))]
    sections = []
    if study.about["tasks"]:
        about = f"{title}: what can be read off the encoders"
        table = probe_table(study, names)
        sections.append(Section(about, text(PROBE_TEXT), pictures, table))
        pictures = [_layers_picture(study, finished, path("layers"))]
        words = "The probe score of every layer, the mean over the tasks."
        sections.append(Section(f"{title}: layer by layer", words, pictures))
        pictures = []
    pictures.append(_learning_picture(study, finished, path("learning")))
    pictures.append(_use_picture(study, finished, path("codes")))
    about, table = f"{title}: codes and how they are learned", codes_table(study, names)
    sections.append(Section(about, text(CODES_TEXT), pictures, table))
    return sections


def probe_table(study: Study, names: Sequence[str]) -> Table:
    """What can be read off encoders, task by task, then the references."""
    base, tasks = study.about["base"], study.about["tasks"]
    rows = []
    for name in [*names, *(x for x in REFERENCES if _is_known(study, x))]:
        rows.append(
            [
                name if name in REFERENCES else _row_label(study, name),
                _measured(study, "probe", name),
                _against_base(study, "probe", name),
                *(_cell(100 * study.of(task, name), 1) for task in tasks),
            ]
        )
    chances = [f"{100 * task['chance']:.1f}" for task in tasks.values()]
    rows.append(["chance", "0.0", NOTHING, *chances])
    header = ["Experiment", study.measure("probe").column, f"Minus {study.label(base)}"]
    return Table([*header, *(f"{task} (%)" for task in tasks)], rows)


def music_table(study: Study, names: Sequence[str]) -> Table:
    """How well music and text find each other, then chance."""
    rows = []
    for name in names:
        cells = [_measured(study, measure, name) for measure in study.scores]
        cells.insert(1, _against_base(study, study.headline, name))
        rows.append([_row_label(study, name), *cells])
    shown = {name: study.measure(name) for name in study.scores}
    chances = [shown[name].show(test["chance"]) for name, test in study.scores.items()]
    rows.append(["chance", chances[0], NOTHING, *chances[1:]])
    first, *others = (measure.column for measure in shown.values())
    base = f"Minus {study.label(study.about['base'])}"
    return Table(["Experiment", first, base, *others], rows)


def codes_table(study: Study, names: Sequence[str]) -> Table:
    """The targets of experiments, and how well they are predicted."""
    asked = {question["measure"] for question in study.about["questions"]}
    shown = ["gain", *(name for name in ("gain_area", "loss_area") if name in asked)]
    rows = []
    for name in names:
        runs = study.runs_of(name)
        sizes = {f"{run['num_codebooks']} x {run['codebook_size']}" for run in runs}
        row = [_row_label(study, name), " or ".join(sorted(sizes)) or NOTHING]
        for measure in shown:
            row.append(_measured(study, measure, name))
            row.append(_against_base(study, measure, name))
        for measure, scale, decimals in CODES.values():
            row.append(_cell(scale * study.of(measure, name), decimals))
        rows.append(row)
    header = ["Experiment", "Codes"]
    for measure in shown:
        header.append(study.measure(measure).column)
        header.append(f"Minus {study.label(study.about['base'])}")
    return Table([*header, *CODES], rows)


def budget_table(study: Study) -> Table:
    """What every experiment was given, and what its tokenizer cost besides."""
    rows = []
    for name in study.names:
        row = [study.label(name), f"{len(study.runs_of(name))} of {len(study.seeds)}"]
        for key in BUDGET.values():
            values = study.of(key, name)
            timed = key in ("training_seconds", "tokenizer_seconds")
            row.append(_cell(values, 0, ",") if timed else _same(values))
        rows.append(row)
    return Table(["Experiment", "Runs", *BUDGET], rows)


def _tasks_table(tasks: dict[str, dict]) -> Table:
    return Table(
        ["Task", "Kind", "Classes", "Test clips", "Test pieces", "Chance (%)"],
        [
            [
                name,
                task.get("level") or NOTHING,
                str(len(task["classes"])),
                str(len(task["targets"])),
                str(len(set(task["pieces"]))),
                f"{100 * task['chance']:.1f}",
            ]
            for name, task in tasks.items()
        ],
    )


def _experiments_section(study: Study) -> Section:
    rows = []
    for name, about in study.about["experiments"].items():
        changes = [f"{key}: {value}" for key, value in about["overrides"].items()]
        rows.append(
            [name, about["label"], about["file"], ", ".join(changes) or NOTHING]
        )
    return Section(
        "What was run?",
        f"The base is {study.label(study.about['base'])}. Seeds: "
        f"{', '.join(map(str, study.seeds))}. All numbers and figures of this report "
        "come from study.json beside it.",
        table=Table(["Experiment", "Name here", "File", "Changed in it"], rows),
    )


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
    show = study.measure(measure).show
    change = show(found.value, "+")
    if not math.isnan(found.low):
        change += f" {ends(study.measure(measure), found)}"
    return _unbroken(change)


def _row_label(study: Study, name: str) -> str:
    """Name of an experiment, and how many of its seeds there are if not all."""
    done, wanted = len(study.runs_of(name)), len(study.seeds)
    label = study.label(name)
    return label if done == wanted else f"{label} ({done} of {wanted} seeds)"


def _is_known(study: Study, reference: str) -> bool:
    """Whether all probes of the base have read a reference too."""
    values = study.of("probe", reference)
    return bool(len(values)) and bool(np.isfinite(values).all())


def _references(study: Study) -> dict[str, float]:
    """The levels that scores are compared with."""
    if study.scores:
        return {"chance": study.scores[study.headline]["chance"]}
    if not study.about["tasks"]:
        return {"a model that only counts codes": 0.0}
    known = [name for name in REFERENCES if _is_known(study, name)]
    levels = {name: float(study.of("probe", name).mean()) for name in known}
    return {**levels, "chance": 0.0}


def _measured(study: Study, measure: str, name: str) -> str:
    values = study.of(measure, name)
    if study.measure(measure).unit == "points":
        return _cell(100 * values, 1)
    return _cell(values, 3)


def _cell(values: np.ndarray, decimals: int, comma: str = "") -> str:
    """Mean ± standard deviation over seeds; "-" if there is nothing to measure."""
    if not len(values) or np.isnan(values).any():
        return NOTHING
    form = f"{comma}.{decimals}f"
    if len(values) == 1:
        return f"{values.mean():{form}}"
    return _unbroken(f"{values.mean():{form}} ± {values.std(ddof=1):{form}}")


def _unbroken(words: str) -> str:
    """With spaces at which no line of a narrow column ends."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _same(values: np.ndarray) -> str:
    """What should be the same for all: one number, or all different ones."""
    numbers = np.unique(values[np.isfinite(values)])
    return " or ".join(f"{value:,.10g}" for value in numbers) or NOTHING


def _scores_picture(study: Study, group: dict, names: list[str], path: Path):
    measure, base = study.measure(study.headline), study.about["base"]
    scale, unit = (100, "points") if measure.unit == "points" else (1, measure.unit)

    def dots(name, weights):
        found = contrast(study, study.headline, weights)
        if found is None:
            return None
        interval = None
        if not math.isnan(found.low):
            interval = scale * found.low, scale * found.high
        values = [scale * value for value in found.per_seed]
        return Dots(study.label(name), values, interval)

    scores = [dots(name, {name: 1.0}) for name in names]
    levels = {name: scale * level for name, level in _references(study).items()}
    zero = "" if study.scores else f", 0 being {list(levels)[-1]}"
    what = f"The {measure.lower_case}{zero}."
    if "x" in group:
        x = [group["experiments"][name] for name in names]
        axes = group["x"], measure.column
        figures.scores_by_number(x, scores, levels, axes, path)
        return Picture(
            path,
            f"{what} Intervals are over seeds and test pieces, and so wider than those "
            "of differences, in which the test pieces are the same."
            if study.headline in study.draws
            else f"{what} Intervals are over seeds.",
            f"Chart of the {measure.lower_case} against {group['x']}.",
        )
    differences = [
        None if name == base else dots(name, {name: 1.0, base: -1.0}) for name in names
    ]
    label = study.label(base)
    axes = measure.column, f"minus {label}" + (f" ({unit})" if unit else "")
    figures.scores_by_experiment(scores, differences, levels, axes, path)
    return Picture(
        path,
        f"Left: {what[0].lower()}{what[1:]} Right: the difference to {label} within "
        "each seed, on the same test clips; an interval that crosses the line is "
        "undecided.",
        f"Chart of the {measure.lower_case} of each experiment and of its difference "
        f"to {label}.",
    )


def _panels(study: Study, names: list[str], curves, axes, path, **more) -> None:
    """One panel an experiment, with the base behind it."""
    base = study.about["base"]
    behind = curves(base) if study.runs_of(base) else None
    figures.panels_of_curves([curves(n) for n in names], behind, axes, path, **more)


def _learning_picture(study: Study, names: list[str], path: Path) -> Picture:
    def curves(name):
        runs = study.runs_of(name)
        steps = runs[0]["learning"]["updates"]
        values = [
            [loss - run["code_entropy"] for loss in run["learning"]["cross_entropy"]]
            for run in runs
            if run["learning"]["updates"] == steps
        ]
        return Curves(study.label(name), steps, values)

    axes = "update", "cross-entropy\nminus entropy (nat)"
    _panels(study, names, curves, axes, path, zero="a model that only counts codes")
    return Picture(
        path,
        "Masked cross-entropy on the validation part minus the entropy of the codes, "
        "so that targets can be compared; lower is better. Thin: every seed. Shaded: "
        "from the lowest to the highest seed.",
        "Learning curves, one chart for each experiment.",
    )


def _layers_picture(study: Study, names: list[str], path: Path) -> Picture:
    def curves(name, features=TRAINED, label=None):
        values = layer_scores(study, name, features)
        label = label or study.label(name)
        return Curves(label, list(range(len(values[0]))), values)

    reference = None
    if _is_known(study, UNTRAINED):
        reference = curves(study.about["base"], UNTRAINED, UNTRAINED)
    axes = "layer", "probe score"
    _panels(study, names, curves, axes, path, reference=reference, shares=True)
    return Picture(
        path,
        "Layer 0 is the front end, a filtered log-mel. Thin: every seed. Shaded: from "
        "the lowest to the highest seed.",
        "Probe score against the layer, one chart for each experiment.",
    )


def _use_picture(study: Study, names: list[str], path: Path) -> Picture:
    usage, perplexity = [], []
    for name in names:
        runs = study.runs_of(name)
        runs = [r for r in runs if r["num_codebooks"] == runs[0]["num_codebooks"]]
        usage.append(np.mean([run["usage"] for run in runs], axis=0))
        shares = [np.array(run["perplexity"]) / run["codebook_size"] for run in runs]
        perplexity.append(np.mean(shares, axis=0))
    figures.code_use([study.label(name) for name in names], usage, perplexity, path)
    return Picture(
        path,
        "Left: share of the codes that occur in the test part. Right: number of "
        "equally frequent codes that would carry as much information, as a share of "
        "the codebook.",
        "Charts of code usage and perplexity of each experiment.",
    )
