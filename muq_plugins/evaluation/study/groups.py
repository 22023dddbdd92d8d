"""Experiments that a report shows together: figures, tables and how to read them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from muq_plugins.evaluation import figures
from muq_plugins.evaluation.figures import Curves, Dots
from muq_plugins.evaluation.probing.result import LOG_MEL, TRAINED, UNTRAINED
from muq_plugins.evaluation.report import Picture, Section
from muq_plugins.evaluation.study import tables
from muq_plugins.evaluation.study.cells import has_features
from muq_plugins.evaluation.study.estimates import Estimate, Term, estimate
from muq_plugins.evaluation.study.measures import headline_measure, probe_score
from muq_plugins.evaluation.study.record import Group
from muq_plugins.evaluation.study.study import Study

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


def group_sections(study: Study, group: Group, folder: Path) -> list[Section]:
    """Everything about a group of experiments."""
    if not _finished(study, group):
        return [Section(group.title, "No run of this group has finished.")]
    stem = re.sub(r"\W+", "_", group.title.lower()).strip("_")
    stem = f"{study.groups.index(group) + 1}_{stem}"
    sections = []
    is_first = group is study.groups[0]
    as_above = f"As for {study.groups[0].title} above."
    if study.tasks:
        sections.append(
            Section(
                f"{group.title}: what can be read off the encoders",
                f"{PROBE_TEXT} {OVER_SEEDS}" if is_first else as_above,
                [_scores_picture(study, group, folder / f"{stem}_scores.png")],
                tables.probe_table(study, group),
            )
        )
        sections.append(
            Section(
                f"{group.title}: layer by layer",
                "The probe score of every layer, the mean over the tasks.",
                [_layers_picture(study, group, folder / f"{stem}_layers.png")],
            )
        )
        pictures = []
    else:
        pictures = [_scores_picture(study, group, folder / f"{stem}_scores.png")]
    pictures.append(_learning_picture(study, group, folder / f"{stem}_learning.png"))
    pictures.append(_use_picture(study, group, folder / f"{stem}_codes.png"))
    sections.append(
        Section(
            f"{group.title}: codes and how they are learned",
            f"{CODES_TEXT} {OVER_SEEDS}" if is_first else as_above,
            pictures,
            tables.codes_table(study, group),
        )
    )
    return sections


def references(study: Study) -> dict[str, float]:
    """The levels that probe scores are compared with."""
    measure = headline_measure(study)
    if not study.tasks:
        return {"a model that only counts codes": 0.0}
    levels = {}
    for features in (UNTRAINED, LOG_MEL):
        if has_features(study, features):
            runs = study.runs_of(study.base)
            levels[features] = float(
                np.mean([measure.value(study, run, features) for run in runs])
            )
    return {**levels, "chance": 0.0}


def _finished(study: Study, group: Group) -> list[str]:
    return [name for name in group.experiments if study.runs_of(name)]


def _scores_picture(study: Study, group: Group, path: Path) -> Picture:
    measure = headline_measure(study)
    scale = 100 if measure.unit == "points" else 1
    names = _finished(study, group)
    scores = [
        _dots(study.label(n), estimate(study, measure, {Term(n): 1.0}), scale)
        for n in names
    ]
    levels = {name: scale * level for name, level in references(study).items()}
    what = f"{measure.lower_case}, 0 being {list(levels)[-1]}"
    if group.x_name is not None:
        x = [group.x[group.experiments.index(name)] for name in names]
        axes = group.x_name, measure.column
        figures.scores_by_number(x, scores, levels, axes, path)
        return Picture(
            path,
            f"The {what}. Intervals are over seeds and test pieces, and so wider than "
            "those of differences, in which the test pieces are the same."
            if study.tasks
            else f"The {what}. Intervals are over seeds.",
            f"Chart of the {measure.lower_case} against {group.x_name}.",
        )
    differences = []
    for name in names:
        found = None
        if name != study.base:
            weights = {Term(name): 1.0, Term(study.base): -1.0}
            found = estimate(study, measure, weights)
        dots = None if found is None else _dots(study.label(name), found, scale)
        differences.append(dots)
    base = study.label(study.base)
    unit = "points" if scale > 1 else measure.unit
    axes = measure.column, f"minus {base} ({unit})"
    figures.scores_by_experiment(scores, differences, levels, axes, path)
    return Picture(
        path,
        f"Left: the {what}. Right: the difference to {base} within each seed, on the "
        "same test clips; an interval that crosses the line is undecided.",
        f"Chart of the {measure.lower_case} of each experiment and of its difference "
        f"to {base}.",
    )


def _dots(label: str, found: Estimate, scale: int) -> Dots:
    interval = None
    if found.half_width is not None:
        interval = scale * found.low, scale * found.high
    return Dots(label, [scale * v for v in found.per_seed.values()], interval)


def _learning_picture(study: Study, group: Group, path: Path) -> Picture:
    def curves(name: str) -> Curves:
        runs = study.runs_of(name)
        runs = [r for r in runs if r.learning_updates == runs[0].learning_updates]
        values = [
            [loss - run.code_entropy for loss in run.learning_cross_entropy]
            for run in runs
        ]
        return Curves(study.label(name), runs[0].learning_updates, values)

    figures.panels_of_curves(
        [curves(name) for name in _finished(study, group)],
        curves(study.base) if study.runs_of(study.base) else None,
        ("update", "cross-entropy\nminus entropy (nat)"),
        path,
        zero="a model that only counts codes",
    )
    return Picture(
        path,
        "Masked cross-entropy on the validation part minus the entropy of the codes, "
        "so that targets can be compared; lower is better. Thin: every seed. Shaded: "
        "from the lowest to the highest seed.",
        "Learning curves, one chart for each experiment.",
    )


def _layers_picture(study: Study, group: Group, path: Path) -> Picture:
    tasks = tuple(study.tasks)

    def curves(name: str, features: str, label: str) -> Curves:
        values = [
            [
                probe_score(study, run, tasks, features, layer)
                for layer in range(
                    min(len(run.probe[t][features].layers) for t in tasks)
                )
            ]
            for run in study.runs_of(name)
        ]
        return Curves(label, list(range(len(values[0]))), values)

    base = study.base if study.runs_of(study.base) else None
    figures.panels_of_curves(
        [curves(n, TRAINED, study.label(n)) for n in _finished(study, group)],
        None if base is None else curves(base, TRAINED, study.label(base)),
        ("layer", "probe score"),
        path,
        reference=curves(base, UNTRAINED, "untrained encoder")
        if has_features(study, UNTRAINED)
        else None,
        shares=True,
    )
    return Picture(
        path,
        "Layer 0 is the front end, a filtered log-mel. Thin: every seed. Shaded: from "
        "the lowest to the highest seed.",
        "Probe score against the layer, one chart for each experiment.",
    )


def _use_picture(study: Study, group: Group, path: Path) -> Picture:
    names = _finished(study, group)
    usage, perplexity = [], []
    for name in names:
        runs = study.runs_of(name)
        same = [run for run in runs if run.num_codebooks == runs[0].num_codebooks]
        usage.append(np.mean([run.usage for run in same], axis=0).tolist())
        shares = [np.array(run.perplexity) / run.codebook_size for run in same]
        perplexity.append(np.mean(shares, axis=0).tolist())
    figures.code_use([study.label(name) for name in names], usage, perplexity, path)
    return Picture(
        path,
        "Left: share of the codes that occur in the test part. Right: number of "
        "equally frequent codes that would carry as much information, as a share of "
        "the codebook.",
        "Charts of code usage and perplexity of each experiment.",
    )
