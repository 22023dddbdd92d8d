"""Has the pre-trained model learned more than to count codes?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from muq_plugins.evaluation.distillation import FILE, FOLDER
from muq_plugins.evaluation.figures.lines import line_charts
from muq_plugins.evaluation.figures.values import Bars, bars, intervals
from muq_plugins.evaluation.intervals import Estimate
from muq_plugins.evaluation.page import (
    HTML_FILE,
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    number,
    percent,
)
from muq_plugins.evaluation.pages.run import (
    CODES,
    OPTIMISATION,
    Run,
    code_use,
    codebook_table,
    curves,
    finite_list,
    judgeable,
    music,
    name_codebooks,
    of_each,
    reading,
    short_title,
    training_time,
)
from muq_plugins.evaluation.pages.tokenizer import (
    LEVELS,
    earlier_levels,
    earlier_verdicts,
    use_of_codes,
)
from muq_plugins.evaluation.probing.page import gains, layers_panel, title_of
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    LOG_MEL,
    TRAINED,
    UNTRAINED,
    TaskResult,
)
from muq_plugins.evaluation.run_files import select, series
from muq_plugins.files import read_json
from muq_plugins.lobes import codes
from muq_plugins.lobes.objectives.base import Measure, is_at_chance, references_of

# A number this close to that of a model that looks at nothing, as a share of it, is
# that of one.
NOTHING_SEEN = 0.02
# Training rows are averaged over this many, because one batch says little.
TRAIN_ROWS = 20


def loss(run: Run) -> Iterator[Fact]:
    """What says how much was learned, beside what needs no learning."""
    for name in run.main:
        measure, value = run.measures[name], run.final[name]
        held = references_of(run.final, measure).items()
        words = [f"{words}: {reading(measure, x)}" for words, x in held]
        note = "; ".join([run.part, ", ".join(words)])
        title = measure.title.partition(",")[0]
        yield Fact(title, reading(measure, value), note)


def accuracy(run: Run) -> Iterator[Fact]:
    """How much is guessed right, beside always guessing the same."""
    row = run.final
    if "accuracy" not in row or "chance" not in row:
        return
    note = f"chance: {percent(math.exp(-row['chance']))}"
    if guessing := _guessing(run):
        mean = float(np.mean(guessing))
        note = f"always guessing the most frequent code: {percent(mean)}"
    title = run.measures["accuracy"].title
    yield Fact(title, percent(row["accuracy"]), f"{run.part}; {note}")


def heard(run: Run) -> Iterator[Fact]:
    """How well frames are described that are heard, where the loss counts them."""
    for name in run.measured:
        if name.startswith("visible_") and name in run.final:
            measure = run.measures[name]
            title = measure.title.partition(",")[0]
            yield Fact(title, reading(measure, run.final[name]), run.part)


def health(run: Run) -> Iterator[Fact]:
    """What must not become too bad, whatever has been learned."""
    for measure, value in _limited(run):
        bound = "at least" if measure.better > 0 else "at most"
        note = f"{run.part}; healthy: {bound} {reading(measure, measure.limit)}"
        yield Fact(measure.title.partition(",")[0], reading(measure, value), note)


def random_target(run: Run) -> Iterator[Fact]:
    """That nobody has trained what makes the codes, whose meaning depends on it."""
    if parts := run.final.get("random_target"):
        yield Fact("Target", "random weights", f"nobody has trained the {parts}")


def probe_score(run: Run, kind: str) -> Iterator[Fact]:
    """What a linear probe of a kind reads off the encoder, if that ended the run."""
    for probe in probes(run, kind):
        *others, last = probe.chosen()
        comparison = [
            f"{probe.called(row.features)} {percent(row.value)}" for row in others
        ]
        note = ", ".join([*comparison, f"chance {percent(probe.chance)}"])
        yield Fact(f"{title_of(probe)}, {last.features}", percent(last.value), note)


def learned(run: Run) -> Iterator[Verdict]:
    """The loss beside chance, and beside a model that looks at nothing."""
    for name in run.main:
        held = references_of(run.final, run.measures[name])
        if run.final[name] is not None:
            yield from _judged(run, name, list(held.items()))


def _judged(run: Run, name: str, held: list[tuple[str, float]]) -> Iterator[Verdict]:
    """A number beside its references, the strictest first."""
    measure, value = run.measures[name], run.final[name]
    numbers = f"{short_title(measure)} {reading(measure, value)} on the {run.part}"
    plain = percent if measure.unit == "share" else number
    sign = measure.better
    strictest, reached = held[0] if held else ("", -sign * math.inf)
    margin = sign * (value - reached)
    if run.warming_up and (not held or margin <= 0):
        yield Verdict(
            "warning",
            f"it is too early to judge: {numbers}, but the learning rate was still in "
            "its warm-up. Train longer, or shorten the warm-up.",
        )
    elif held and sign < 0 and is_at_chance(value, held[-1][1]):
        guessing, chance = held[-1]
        numbers += f", {guessing} is {plain(chance)}"
        trained = _in_training(run, name)
        if trained is not None and chance - trained >= measure.margin:
            words = (
                f"nothing that was learned carries over to other music: {numbers}, "
                f"but {reading(measure, trained)} in training. Use more music."
            )
        else:
            words = (
                f"the model is stuck: {numbers}. Check the learning rate and its "
                "warm-up, that the gradient norm is not zero, that a target that has "
                "to be trained was, and that the clips are not silent."
            )
        yield Verdict("problem", words)
    elif held:
        side = "below" if value < reached else "above"
        numbers += f", {plain(abs(margin))} {side} {strictest} ({plain(reached)})"
        longer = f"{numbers}. Train longer, or raise the learning rate."
        level = "problem"
        if margin >= measure.margin:
            level, words = "good", f"{measure.learned}: {numbers}"
        elif margin > 0:
            level = "warning"
            asked = f"{plain(measure.margin)} {side} is asked"
            words = f"has begun to learn: {numbers}, where {asked}. Train longer."
        elif margin >= -NOTHING_SEEN * abs(reached):
            words = f"has learned what {strictest} knows and nothing else: {longer}"
        else:
            words = f"has not even learned what {strictest} knows: {longer}"
        yield Verdict(level, f"the model {words}")


def unhealthy(run: Run) -> Iterator[Verdict]:
    """What has become too bad, whatever has been learned."""
    for measure, value in _limited(run):
        if measure.better * (value - measure.limit) < 0:
            bound = "at least" if measure.better > 0 else "at most"
            yield Verdict(
                "problem",
                f"{measure.beyond}. {measure.title.partition(',')[0]} "
                f"{reading(measure, value)} on the {run.part}, where {bound} "
                f"{reading(measure, measure.limit)} is healthy.",
            )


def _limited(run: Run) -> Iterator[tuple[Measure, float]]:
    """The measures that have a limit, and what they are in the end."""
    for name in run.measured:
        measure, value = run.measures[name], run.final.get(name)
        if measure.limit is not None and value is not None:
            yield measure, value


def _in_training(run: Run, name: str) -> float | None:
    """What a measure was in the end on what is learned from."""
    _, values = series(select(run.rows, kind="train"), name)
    values = values[np.isfinite(values)][-TRAIN_ROWS:]
    return float(values.mean()) if values.size else None


def overfit(run: Run) -> Iterator[Verdict]:
    """Whether validation lags behind training, or has risen.

    A gap as large as the margin that counts as learning has eaten that much of it.
    """
    for name in run.main:
        measure = run.measures[name]
        if run.valid.get(name) is None or measure.moving:
            continue
        steps, valid = series(select(run.rows, kind="valid"), name)
        train, worse = _in_training(run, name), -measure.better * valid  # by sign
        if train is not None and worse[-1] + measure.better * train >= measure.margin:
            gap = f"{reading(measure, train)} in training and "
            gap += f"{reading(measure, valid[-1])} in validation"
            yield Verdict(
                "warning",
                f"overfitting: {short_title(measure)} {gap}. Use more music, or fewer "
                "steps.",
            )
        best = int(np.nanargmin(worse))
        if worse[-1] - worse[best] >= measure.margin:
            now = reading(measure, valid[-1])
            yield Verdict(
                "warning",
                f"validation was best at step {steps[best]} "
                f"({reading(measure, valid[best])}) and is at {now} now. Train for "
                "fewer steps.",
            )


def per_codebook(run: Run) -> Iterator[Verdict]:
    """Codebooks that are not learned, which the mean over all of them may hide."""
    losses = finite_list(run.final, "cross_entropy_per_codebook")
    counting = finite_list(run.final, "code_entropy_per_codebook")
    if not losses or not counting:
        return
    behind = np.flatnonzero(np.array(losses) >= np.array(counting)).tolist()
    if 0 < len(behind) < len(losses):
        yield Verdict(
            "warning",
            f"{name_codebooks(behind)}: predicted no better than by a counting model, "
            f"while others are (on the {run.part}). Train longer.",
        )


def guessed(run: Run) -> Iterator[Verdict]:
    """The accuracy beside that of always guessing the most frequent code."""
    found = np.array(finite_list(run.final, "accuracy_per_codebook"))
    guessing = np.array(_guessing(run))
    if not found.size or not guessing.size:
        return
    numbers = (
        f"{found.mean():.1%} of the masked codes of the {run.part} are guessed right, "
        f"{guessing.mean():.1%} by always guessing the most frequent code"
    )
    if behind := np.flatnonzero(found <= guessing).tolist():
        yield Verdict(
            "warning",
            f"{name_codebooks(behind)}: no better guessed than by the most frequent "
            f"code alone. Over all codebooks {numbers}.",
        )
    else:
        yield Verdict(
            "good",
            "every codebook is guessed better than by its most frequent code: "
            f"{numbers}",
        )


def use_of_target(run: Run) -> Iterator[Verdict]:
    """Codebooks of a target that was not trained here, and hardly says anything."""
    if (run.earlier and not run.objective) or run.code_counts is None:
        return
    use = codes.use_of_codes(run.code_counts)
    for verdict in use_of_codes(use, run.code_counts):
        if verdict.level == "problem":
            yield Verdict(
                "warning",
                f"the target: {verdict.message.split('. Check')[0]} on the test part. "
                "What hardly varies teaches little: look at the features that it is "
                "made of, or choose another quantizer.",
            )


def probes(run: Run, kind: str | None = None) -> list[TaskResult]:
    """The probe at the end of a run, if there was one and it is of the kind."""
    probe = run.probe
    return [probe] if probe is not None and kind in (None, probe.kind) else []


def _guessing(run: Run) -> list[float]:
    """What always guessing gets; codes are counted on the test part, at the end."""
    if run.code_counts is None or not run.test:
        return []
    return codes.most_frequent_share(run.code_counts).tolist()


def _loss_figure(run: Run, path: Path) -> None:
    names = [name for name, measure in run.measures.items() if measure.references]
    # Beside another chart there is no room above, and what is better may be higher.
    legend = "above" if len(names) == 1 else "best"
    curves(*names, height=4.2, legend=legend, on=len(names) - 1)(run, path)


def _codebooks_figure(run: Run, path: Path) -> None:
    row, level = run.final, None
    if row.get("chance") is not None:
        level = (row["chance"], "chance\nln V")
    accuracy = "Masked accuracy", "masked codes guessed right"
    accuracy = *accuracy, row["accuracy_per_codebook"], _guessing(run)
    losses = "Masked cross-entropy", "nats", row["cross_entropy_per_codebook"]
    losses = *losses, row.get("code_entropy_per_codebook", []), level
    charts = [Bars(*accuracy, shares=True), Bars(*losses)]
    bars(charts, ("the model", "a model that only counts codes"), path)


def _codebooks_table(run: Run) -> Table:
    columns = {
        "Accuracy": map(percent, run.final["accuracy_per_codebook"]),
        "Cross-entropy (nat)": map(number, run.final["cross_entropy_per_codebook"]),
    }
    if entropy := run.final.get("code_entropy_per_codebook"):
        columns["Counting model (nat)"] = map(number, entropy)
    if guessing := _guessing(run):
        columns["Most frequent code"] = map(percent, guessing)
    return codebook_table(columns)


def _frames_figure(probe: TaskResult, path: Path) -> None:
    panel = layers_panel(probe, numbers="all")._replace(
        title=f"Which {probe.label} sound? Read off single frames of each layer",
        xlabel="layer, 0: front end",
    )
    line_charts([panel], path, height=4.2, key=True)


def _frames_table(probe: TaskResult) -> Table:
    """Every layer beside what it has to beat."""
    rows = []
    every = zip(
        *(probe.curve(name, LINEAR) for name in (TRAINED, UNTRAINED)),
        *(probe.against(name) for name in (UNTRAINED, LOG_MEL)),
        strict=True,
    )
    for ours, untrained, gain, over in every:
        of_each = f"±{100 * np.std(untrained.initialisations):.1f}"
        cells = [ours.place + " (chosen)" * ours.chosen, percent(ours.value)]
        cells += [f"{ours.low:.1%} to {ours.high:.1%}"]
        cells += [f"{percent(untrained.value)} {of_each}"]
        rows.append([*cells, _points(gain), _points(over)])
    header = ["Layer", "Trained", "95% interval", "Untrained"]
    return Table([*header, "Minus untrained", "Minus log-mel"], rows)


def _points(found: Estimate) -> str:
    """A difference in points, with its interval."""
    return "{} ({} to {})".format(*(f"{100 * value:+.1f}" for value in found))


def _probe_figure(probe: TaskResult, path: Path) -> None:
    scores = {row.features: (row.value, row.low, row.high) for row in probe.chosen()}
    label = "balanced accuracy on unseen pieces, with 95% interval"
    intervals(scores, probe.chance, label, path)


def _probe_table(probe: TaskResult) -> Table:
    rows = []
    for row in probe.chosen():
        ends = f"{row.low:.1%} to {row.high:.1%}"
        cells = [row.features, row.place, percent(row.value), ends]
        accuracy, f1 = row.metrics["accuracy"], row.metrics["macro_f1"]
        rows.append([*cells, percent(accuracy), number(f1)])
    header = ["Features", "Layer", "Balanced accuracy", "95% interval"]
    return Table([*header, "Accuracy", "F1"], rows)


def _classes_table(probe: TaskResult) -> Table:
    recalls = {row.features: probe.recalls(row) for row in probe.chosen()}
    clips = np.bincount(probe.predictions["targets"], minlength=len(probe.classes))
    rows = [
        [name, str(count), *(percent(found[name]) for found in recalls.values())]
        for name, count in zip(probe.classes, clips.tolist(), strict=True)
        if count
    ]
    return Table(["Class", "Test clips", *recalls], rows)


def _comparison(run: Run) -> list[dict]:
    """What a student has kept of its teacher, if the run was a distillation."""
    file = run.folder / FOLDER / FILE
    return [read_json(file, "distil again")] if file.is_file() else []


def _comparison_table(found: dict) -> Table:
    teacher, student, *_ = found["models"]
    cosines = [f"{x:.3f}" for x in (student["frames"], teacher["constant"])]
    name = "Teacher and student"
    header = ["", "Cosine of frames to the teacher", "A constant answer"]
    return Table(header, [[name, *cosines]], {name: f"{FOLDER}/{HTML_FILE}"})


PRETRAINING = Page(
    title="Pre-training",
    template="pretraining.md.j2",
    facts=(
        partial(probe_score, kind="frames"),
        of_each(loss, "label"),
        of_each(accuracy, "label"),
        of_each(code_use, "label"),
        of_each(heard, "label"),
        of_each(health, "label"),
        of_each(random_target, "label"),
        partial(probe_score, kind="single"),
        music,
        training_time,
    ),
    verdicts=(
        judgeable,
        of_each(learned, "message"),
        of_each(unhealthy, "message"),
        of_each(overfit, "message"),
        of_each(per_codebook, "message"),
        of_each(guessed, "message"),
        of_each(use_of_target, "message"),
        lambda run: gains(probes(run)),
        earlier_verdicts,
    ),
    parts=(
        Part(
            "frames",
            {"frames": _frames_figure},
            _frames_table,
            each=partial(probes, kind="frames"),
        ),
        Part("learned", {"loss": _loss_figure}, each=lambda run: run.objectives),
        Part("student", table=_comparison_table, each=_comparison),
        Part(
            "codebooks",
            {"accuracy_per_codebook": _codebooks_figure},
            _codebooks_table,
            each=lambda run: [
                view for view in run.objectives if "accuracy_per_codebook" in view.final
            ],
        ),
        Part(
            "probe",
            {"probe": _probe_figure},
            _probe_table,
            each=partial(probes, kind="single"),
        ),
        Part("classes", table=_classes_table, each=partial(probes, kind="single")),
        CODES,
        LEVELS._replace(each=earlier_levels),
        OPTIMISATION,
    ),
)
