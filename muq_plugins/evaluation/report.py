"""A report as one HTML page and one Markdown file.

The page stands alone: figures and style are inside it, so it can be sent, archived and
printed. The Markdown has the same words and links to the figures.
"""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from muq_plugins.evaluation.health import Verdict
from muq_plugins.files import replace_file

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"


class Picture(NamedTuple):
    """A figure of a report."""

    path: Path  # the PNG
    caption: str  # how to read it; printed below it
    alt: str  # what is on it, for a reader who does not see it


class Table(NamedTuple):
    """A table of a report."""

    header: list[str]  # name of every column; the first column names the rows
    rows: list[list[str]]  # cells, as text


class Fact(NamedTuple):
    """A number that matters."""

    label: str  # what it is
    value: str  # the number with its unit
    note: str  # what to compare it with

    def __str__(self):
        label = self.label[0].lower() + self.label[1:]
        return f"{label} {self.value} ({self.note})"


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str  # heading
    text: str  # paragraphs, separated by empty lines
    figures: list[Picture] = field(default_factory=list)  # figures, in order
    table: Table | None = None  # table below the figures; None for no table


def write_report(
    folder: str | Path,
    title: str,
    summary: list[Fact],
    verdicts: list[Verdict],
    sections: list[Section],
    hyperparameters: str = "",
    subtitle: str = "",
) -> Path:
    """Write `report.html` and `report.md`."""
    folder = Path(folder)
    content = {
        "title": title,
        "subtitle": subtitle,
        "summary": summary,
        "verdicts": verdicts,
        "sections": sections,
        "hyperparameters": hyperparameters.strip(),
    }
    environment = Environment(
        loader=PackageLoader("muq_plugins.evaluation", "templates"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = _embedded
    environment.filters["relative"] = lambda path: Path(
        os.path.relpath(path, folder)
    ).as_posix()
    environment.filters["cell"] = _cell
    for file in (MARKDOWN_FILE, HTML_FILE):
        text = environment.get_template(f"{file}.j2").render(content)
        replace_file(folder / file, text.encode())
    return folder / HTML_FILE


def percent(value: float | None) -> str:
    """Write a share for a person."""
    return "not finite" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """Write a number for a person."""
    return "not finite" if value is None else f"{value:.2f}"


def _embedded(path: Path) -> str:
    """A PNG as the address of an image that is part of the page."""
    if not path.exists():
        raise FileNotFoundError(f"{path}, a figure of the report, does not exist")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _cell(text: str) -> str:
    """Text that does not end a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
