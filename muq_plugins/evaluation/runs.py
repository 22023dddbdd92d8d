"""The runs below a folder, with their states and key numbers; their index page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from muq_plugins.errors import UserError
from muq_plugins.evaluation.page import (
    HTML_FILE,
    MARKDOWN_FILE,
    Fact,
    Page,
    Part,
    Table,
    percent,
    write_page,
)
from muq_plugins.evaluation.pages import read_run
from muq_plugins.evaluation.probing.results import SCORES_FILE, load_results
from muq_plugins.evaluation.run_files import METRICS_FILE
from muq_plugins.evaluation.study.numbers import STUDY_FILE, read_study
from muq_plugins.evaluation.study.page import study_page

KINDS = {
    "pretrain": "Pre-training",
    "tokenizer": "Tokenizers",
    "mulan": "Music and text",
    "probe": "Probes",
    "study": "Studies",
}
FACTS = 4  # of a run


class FoundRun(NamedTuple):
    """A folder with results: what ran there, how far it is, and what came out."""

    folder: Path
    kind: str  # one of KINDS
    state: str  # in words
    changed: float  # seconds since the epoch
    facts: list[Fact]  # the most important first

    def __str__(self):
        numbers = [
            f"{fact.label[0].lower()}{fact.label[1:]} {fact.value}"
            for fact in self.facts
        ]
        return ", ".join([f"{self.folder}: {self.kind}, {self.state}", *numbers])


class Kind(NamedTuple):
    """Runs of one kind, and the folder that their index lies in."""

    title: str
    folder: Path
    runs: list[FoundRun]


def find_runs(folder: str | Path) -> tuple[list[FoundRun], list[str]]:
    """The runs below a folder, the newest first, and what cannot be read, with why.

    What lies within a run, its tokenizer for one, belongs to it.
    """
    found, problems = [], []
    for place, folders, files in os.walk(folder):
        file = next((name for name in READERS if name in files), None)
        folders[:] = [] if file else [x for x in folders if not x.startswith(".")]
        if file is None:
            continue
        try:
            kind, state, facts = READERS[file](Path(place))
        except (ValueError, KeyError, TypeError, OSError) as error:
            problems.append(f"{place}: {error}")
        else:
            changed = Path(place, file).stat().st_mtime
            found.append(FoundRun(Path(place), kind, state, changed, facts[:FACTS]))
    return sorted(found, key=lambda run: -run.changed), problems


def check_no_run(folder: str | Path, what: str) -> None:
    """Refuses a folder whose own report a command would replace by another one."""
    for file in READERS:
        if Path(folder, file).is_file():
            raise UserError(
                f"{what} {folder} is the folder of a run, with {file}: its own report "
                f"would be replaced. Give another folder."
            )


def runs_report(folder: str | Path, runs: Sequence[FoundRun]) -> Path:
    """Write the index page of the runs below a folder into it; the HTML file."""
    kinds = [
        Kind(title, Path(folder), own)
        for kind, title in KINDS.items()
        if (own := [run for run in runs if run.kind == kind])
    ]
    part = Part("kind", table=_table, each=lambda kinds: kinds)
    page = Page("Runs", "runs.md.j2", (), (), (part,))
    return write_page(folder, page, kinds, str(folder), settings="")


def _table(kind: Kind) -> Table:
    labels = list(dict.fromkeys(fact.label for run in kind.runs for fact in run.facts))
    rows, links = [], {}
    for run in kind.runs:
        name = run.folder.relative_to(kind.folder)
        values = {fact.label: fact.value for fact in run.facts}
        when = datetime.fromtimestamp(run.changed).strftime("%Y-%m-%d %H:%M")
        numbers = [values.get(label, "-") for label in labels]
        rows.append([name.as_posix(), run.state, when, *numbers])
        reports = [x for x in (HTML_FILE, MARKDOWN_FILE) if (run.folder / x).is_file()]
        if reports:
            links[name.as_posix()] = quote((name / reports[0]).as_posix())
    return Table(["Run", "State", "Written", *labels], rows, links)


def _of_training(folder: Path) -> tuple[str, str, list[Fact]]:
    page, run = read_run(folder)
    state = "finished" if run.test else f"at step {run.rows[-1]['step']:,}"
    return run.stage, state, page.facts_of(run)


def _of_probe(folder: Path) -> tuple[str, str, list[Fact]]:
    facts = [
        Fact(one.label, percent(one.headline.value), one.metric)
        for one in load_results(folder)
    ]
    return "probe", "finished", facts


def _of_study(folder: Path) -> tuple[str, str, list[Fact]]:
    study = read_study(folder)
    page = study_page(study)
    levels = Counter(verdict.level for verdict in page.verdicts_of(study))
    answers = [f"{n} {x}" for x, n in levels.items() if x not in ("good", "warning")]
    facts = [Fact("Answers", ", ".join(answers), "")] if answers else []
    state = "unfinished" if study.about["missing"] else "finished"
    return "study", state, facts + page.facts_of(study)


# The file that makes a folder a run, and what reads it; a study may lie beside others.
READERS: dict[str, Callable[[Path], tuple[str, str, list[Fact]]]] = {
    STUDY_FILE: _of_study,
    METRICS_FILE: _of_training,
    SCORES_FILE: _of_probe,
}
