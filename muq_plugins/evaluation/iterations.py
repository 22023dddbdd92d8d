"""The report of iterative training: what moved from one model to the next."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from muq_plugins.evaluation.intervals import ends
from muq_plugins.evaluation.page import (
    Fact,
    Page,
    Part,
    Table,
    Verdict,
    number,
    percent,
    write_page,
)
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    TRAINED,
    TaskResult,
    load_final_probe,
)
from muq_plugins.evaluation.run_files import (
    METRICS_FILE,
    load_diagnostics,
    read_metrics,
    select,
)
from muq_plugins.files import write_json
from muq_plugins.lobes import codes

ITERATIONS_FILE = "iterations.json"
UNKNOWN = "-"

# What is compared: key of the JSON, header of the column, how it is written.
COLUMNS = {
    "steps": ("Updates", "{:,}".format),
    "code_entropy": ("Target entropy (nat)", number),
    "usage": ("Code usage", percent),
    "cross_entropy": ("Masked cross-entropy (nat)", number),
    "learned": ("Below a counting model (nat)", number),
    "accuracy": ("Masked accuracy", percent),
    "probe": ("Probe", percent),
}


class Model(NamedTuple):
    """One model of the chain: its name, its numbers, and its final probe if any."""

    name: str
    row: dict  # by the keys of COLUMNS; None where there is no number
    probe: TaskResult | None

    @property
    def cells(self) -> dict[str, str]:
        """Its numbers as they are written."""
        return {
            header: UNKNOWN if self.row[key] is None else write(self.row[key])
            for key, (header, write) in COLUMNS.items()
        }


def iterations_report(folder: str | Path, runs: Sequence[str | Path]) -> Path:
    """Compares the models of iterative training and writes a report about them."""
    models = [_model(Path(run)) for run in runs]
    write_json(Path(folder) / ITERATIONS_FILE, [model.row for model in models])
    return write_page(folder, PAGE, models, settings="")


def _model(run: Path) -> Model:
    row = {"run": str(run), **dict.fromkeys(COLUMNS)}
    if (run / METRICS_FILE).is_file():
        rows = select(read_metrics(run / METRICS_FILE), stage="pretrain", kind="test")
        for test in rows[-1:]:
            row["steps"] = test["step"]
            if "cross_entropy" in test:  # else it names no codes
                row |= {key: test[key] for key in COLUMNS if key in test}
                row["learned"] = test["code_entropy"] - test["cross_entropy"]
    counts = load_diagnostics(run).get("code_counts")
    if counts is not None:
        row["usage"] = float(codes.usage(counts).mean())
        row["perplexity"] = codes.perplexity(counts).tolist()
    if probe := load_final_probe(run):
        trained = probe.row(TRAINED, LINEAR)
        row["probe"], *row["probe_interval"] = trained.value, trained.low, trained.high
    # A folder that is named after a seed does not tell a run from others.
    name = f"{run.parent.name}/{run.name}" if run.name.isdecimal() else run.name
    return Model(name, row, probe)


def _facts(models: list[Model]) -> Iterator[Fact]:
    """The numbers of the last model, and those of the models before."""
    *before, last = (model.cells for model in models)
    for header, value in last.items():
        earlier = ", ".join(cells[header] for cells in before) or "nothing"
        if value != UNKNOWN:
            yield Fact(header, value, f"before: {earlier}")


def _verdicts(models: list[Model]) -> Iterator[Verdict]:
    """Whether each model is better than its teacher, as far as the probe can tell."""
    pairs = list(itertools.pairwise(models))
    for teacher, student in pairs:
        if student.probe and teacher.probe:
            yield _gain_verdict(teacher, student)
    if not any(student.probe and teacher.probe for teacher, student in pairs):
        ends = [f"--encoder {models[place].row['run']}" for place in (0, -1)]
        yield Verdict(
            "undecided",
            "there is no probe to compare models by: the one at the end of a training "
            "(final_probe) needs music with notes or labels of families. Run "
            "recipes/MuQ/probe.py with hparams/probe.yaml, or with probe_csv.yaml on "
            f"labels of your own, for each model ({', '.join(ends)}).",
        )


def _gain_verdict(teacher: Model, student: Model) -> Verdict:
    gain = student.probe.gain(teacher.probe)
    if gain is None:
        words = f"{student.name} and its teacher were not probed on the same clips"
        return Verdict("undecided", words)
    value, low, high = gain
    level = "undecided" if low <= 0 <= high else "good" if value > 0 else "warning"
    words = f"{student.name} probes {100 * value:+.1f} points against its teacher"
    return Verdict(level, f"{words} ({ends(low, high)}, one seed)")


def _table(models: list[Model]) -> Table:
    header = ["Model", *(header for header, _ in COLUMNS.values())]
    return Table(header, [[model.name, *model.cells.values()] for model in models])


PAGE = Page(
    "Iterative training",
    "iterations.md.j2",
    (_facts,),
    (_verdicts,),
    (Part("moved", table=_table),),
)
