"""A report as one HTML page and one Markdown file.

The page stands alone: figures and style are inside it, so it can be sent, archived and
printed. The Markdown has the same words and links to the figures.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from muq_plugins.data.atomic import replace_file
from muq_plugins.evaluation.health import Verdict

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"


class Picture(NamedTuple):
    """A figure of a report.

    Arguments
    ---------
    path : pathlib.Path
        The PNG.
    caption : str
        How to read it; printed below it.
    alt : str
        What is on it, for a reader who does not see it.

    Example
    -------
    >>> Picture(Path("loss.png"), "The loss.", "A falling line.").caption
    'The loss.'
    """

    path: Path
    caption: str
    alt: str


class Table(NamedTuple):
    """A table of a report.

    Arguments
    ---------
    header : list of str
        Name of every column; the first column names the rows.
    rows : list of list
        Cells, as text.

    Example
    -------
    >>> Table(["codebook", "usage"], [["1", "98%"]]).header
    ['codebook', 'usage']
    """

    header: list[str]
    rows: list[list[str]]


class Fact(NamedTuple):
    """A number that matters.

    Arguments
    ---------
    label : str
        What it is.
    value : str
        The number with its unit.
    note : str
        What to compare it with.

    Example
    -------
    >>> print(Fact("Masked accuracy", "21.3%", "chance: 0.4%"))
    masked accuracy 21.3% (chance: 0.4%)
    """

    label: str
    value: str
    note: str

    def __str__(self):
        label = self.label[0].lower() + self.label[1:]
        return f"{label} {self.value} ({self.note})"


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Arguments
    ---------
    title : str
        Heading.
    text : str
        Paragraphs, separated by empty lines.
    figures : list of Picture
        Figures, in order.
    table : Table
        Table below the figures; None for no table.

    Example
    -------
    >>> Section("Loss", "It falls.").figures
    []
    """

    title: str
    text: str
    figures: list[Picture] = field(default_factory=list)
    table: Table | None = None


def write_report(
    folder: str | Path,
    title: str,
    summary: list[Fact],
    verdicts: list[Verdict],
    sections: list[Section],
    hyperparameters: str = "",
    subtitle: str = "",
) -> Path:
    """Write `report.html` and `report.md`.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the two files go.
    title : str
        Title of the page.
    summary : list of Fact
        The numbers that matter, shown first.
    verdicts : list of Verdict
        What the numbers mean.
    sections : list of Section
        The parts, in order.
    hyperparameters : str
        Resolved hyperparameters, shown folded at the end.
    subtitle : str
        One line below the title.

    Returns
    -------
    pathlib.Path
        The HTML file.

    Raises
    ------
    FileNotFoundError
        If a figure is missing.

    Example
    -------
    >>> facts = [Fact("Masked accuracy", "21.3%", "chance: 0.4%")]
    >>> verdicts = [Verdict("good", "the model learns")]
    >>> folder = Path(getfixture("tmpdir"))
    >>> page = write_report(folder, "A run", facts, verdicts, [Section("A", "b")])
    >>> print((folder / "report.md").read_text("utf-8")[:7])
    # A run
    """
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
    """Write a share for a person.

    Arguments
    ---------
    value : float
        Share, 0..1, or None if it was not finite.

    Returns
    -------
    str
        The share in percent.

    Example
    -------
    >>> percent(0.2134), percent(None)
    ('21.3%', 'not finite')
    """
    return "not finite" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """Write a number for a person.

    Arguments
    ---------
    value : float
        The number, or None if it was not finite.

    Returns
    -------
    str
        The number with two decimals.

    Example
    -------
    >>> number(4.1234), number(None)
    ('4.12', 'not finite')
    """
    return "not finite" if value is None else f"{value:.2f}"


def _embedded(path: Path) -> str:
    """A PNG as the address of an image that is part of the page."""
    if not path.exists():
        raise FileNotFoundError(f"{path}, a figure of the report, does not exist")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _cell(text: str) -> str:
    """Text that does not end a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
