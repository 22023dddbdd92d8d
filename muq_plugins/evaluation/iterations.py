"""The report of iterative training: what moved from one model to the next."""

from __future__ import annotations

from pathlib import Path

from muq_plugins.evaluation.page import (
    Fact,
    Section,
    Table,
    Verdict,
    announce,
    number,
    percent,
    write_report,
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


def iterations_report(folder: str | Path, runs: list[str | Path]) -> Path:
    """Compares the models of iterative training and writes a report about them."""
    folder = Path(folder)
    measured = [_measure(Path(run)) for run in runs]
    probes = [load_final_probe(run) for run in runs]
    write_json(folder / ITERATIONS_FILE, measured)
    last = measured[-1]
    facts = [
        Fact(header, write(last[key]), _before(measured[:-1], key, write))
        for key, (header, write) in COLUMNS.items()
        if last[key] is not None
    ]
    return write_report(
        folder,
        "Iterative training",
        facts,
        announce(_verdicts(runs, probes)),
        [
            Section(
                "What moved from one model to the next?",
                "Each model predicts codes of what the one above it has learned; all "
                "were trained from scratch. Codes differ from model to model, and with "
                "them how hard they are to predict: cross-entropies and accuracies of "
                "two rows cannot be compared, but the probe can. Everything is "
                "measured on the test part; the probe reads the instrument family off "
                "the frozen encoder.",
                table=Table(
                    ["Model", *(header for header, _ in COLUMNS.values())],
                    [
                        [
                            _name(row["run"]),
                            *(
                                UNKNOWN if row[key] is None else write(row[key])
                                for key, (_, write) in COLUMNS.items()
                            ),
                        ]
                        for row in measured
                    ],
                ),
            )
        ],
    )


def _name(run: str | Path) -> str:
    """What tells a run from others: a folder that is named after a seed does not."""
    path = Path(run)
    return f"{path.parent.name}/{path.name}" if path.name.isdecimal() else path.name


def _measure(run: Path) -> dict:
    """The numbers of one run; None where there is none."""
    row = dict.fromkeys(COLUMNS)
    if (run / METRICS_FILE).is_file():
        rows = select(read_metrics(run / METRICS_FILE), stage="pretrain", kind="test")
        for test in rows[-1:]:
            row.update({key: test[key] for key in COLUMNS if key in test})
            row["steps"] = test["step"]
            row["learned"] = test["code_entropy"] - test["cross_entropy"]
    counts = load_diagnostics(run).get("code_counts")
    if counts is not None:
        row["usage"] = float(codes.usage(counts).mean())
        row["perplexity"] = codes.perplexity(counts).tolist()
    if probe := load_final_probe(run):
        trained = probe.row(TRAINED, LINEAR)
        row["probe"], *row["probe_interval"] = trained.value, trained.low, trained.high
    return {"run": str(run), **row}


def _before(rows: list[dict], key: str, write) -> str:
    """The same number of the models before."""
    values = [UNKNOWN if row[key] is None else write(row[key]) for row in rows]
    return "before: " + ", ".join(values or ["nothing"])


def _verdicts(runs: list, probes: list[TaskResult | None]) -> list[Verdict]:
    """Whether each model is better than its teacher, as far as the probe can tell."""
    verdicts = []
    for index in range(1, len(runs)):
        if not (probes[index] and probes[index - 1]):
            continue
        name = _name(runs[index])
        difference = probes[index].gain(probes[index - 1])
        if difference is None:
            message = f"{name} and its teacher were not probed on the same clips"
            verdicts.append(Verdict("undecided", message))
            continue
        gain, low, high = difference
        level = "undecided" if low <= 0 <= high else "good" if gain > 0 else "warning"
        verdicts.append(
            Verdict(
                level,
                f"{name} probes {100 * gain:+.1f} points against its teacher (95% "
                f"interval {100 * low:+.1f} to {100 * high:+.1f}, one seed)",
            )
        )
    return verdicts or [Verdict("undecided", "there is no probe to compare models by")]
