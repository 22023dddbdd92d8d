"""A page as data: facts, verdicts and parts, written as HTML and as Markdown.

The HTML stands alone: figures and style are inside it, so it can be sent, archived and
printed. The Markdown has the same words and links to the figures. What a page says in
whole sentences stands in a template of its own, one block for each part.
"""

import base64
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from speechbrain.utils.logger import get_logger

from muq_plugins.errors import shown
from muq_plugins.evaluation.run_files import FIGURES_FOLDER, HYPERPARAMETERS_FILE
from muq_plugins.files import replace_file

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
PICTURE = re.compile(
    r"!\[(?P<alt>.*)\]\((?:(?P<it>.+)/)?(?P<name>\w+)\) \*(?P<caption>.*)\*"
)

logger = get_logger(__name__)


class Fact(NamedTuple):
    """A number that matters: what it is, the number, and what to compare it with."""

    label: str
    value: str
    note: str

    def __str__(self):
        label = self.label[0].lower() + self.label[1:]
        return f"{label} {self.value} ({self.note})"


class Verdict(NamedTuple):
    """What was found, with the number, and what to do about it."""

    # "good"; "warning", which is worth a look; "problem", a result that is not usable;
    # or the answer to a question, which is neither good nor bad: "supported",
    # "refuted", "undecided" or "unfinished"
    level: str
    message: str

    def __str__(self):
        return f"{self.level}: {self.message}"


class Table(NamedTuple):
    """Names of the columns, and rows of text; the first column names the rows."""

    header: list[str]
    rows: list[list[str]]
    links: Mapping[str, str] = {}  # where the name of a row leads


class Picture(NamedTuple):
    """A PNG, how to read it, and what is on it for a reader who does not see it."""

    path: Path
    caption: str
    alt: str


class Section(NamedTuple):
    """A heading, paragraphs separated by empty lines, figures, and a table."""

    title: str
    text: str
    figures: list[Picture]
    table: Table | None


class Part(NamedTuple):
    """A section of a page before there are numbers.

    The block of that name in the template has its title, its paragraphs, and where a
    figure goes: ``![alternative text](name)`` with its ``*caption*`` below. ``each``
    gives what gets such a section, ``it`` in the block; nothing leaves the part out.
    Where several get the same figure, it is ``(it/name)``, by a name for each.
    """

    block: str
    figures: Mapping[str, Callable[[Any, Path], None]] = {}
    table: Callable[[Any], Table] | None = None
    each: Callable[[Any], Iterable[Any]] = lambda subject: [subject]
    template: str | None = None  # None: that of the page


class Page(NamedTuple):
    """What is said about a subject: functions of it, in the order of the page."""

    title: str
    template: str
    facts: tuple[Callable[[Any], Iterable[Fact]], ...]
    verdicts: tuple[Callable[[Any], Iterable[Verdict]], ...]
    parts: tuple[Part, ...]

    def facts_of(self, subject: Any) -> list[Fact]:
        """The numbers that matter, the most important first."""
        return [fact for find in self.facts for fact in find(subject)]

    def verdicts_of(self, subject: Any) -> list[Verdict]:
        """What the numbers mean: problems, then warnings, else as they were."""
        verdicts = [verdict for judge in self.verdicts for verdict in judge(subject)]
        order = {"problem": 0, "warning": 1}
        return sorted(verdicts, key=lambda verdict: order.get(verdict.level, 2))


def write_page(
    folder: str | Path,
    page: Page,
    subject: Any,
    subtitle: str = "",
    settings: str | None = None,
) -> Path:
    """Write `report.html` and `report.md` about a subject; the HTML file.

    Verdicts are logged too, so that nobody has to open a report to see them.
    ``settings`` end the page: those that the folder holds, if none are given.
    """
    folder = Path(folder)
    file = folder / HYPERPARAMETERS_FILE
    if settings is None:
        settings = file.read_text("utf-8") if file.exists() else ""
    content = {
        "title": page.title,
        "subtitle": subtitle,
        "summary": page.facts_of(subject),
        "verdicts": (verdicts := page.verdicts_of(subject)),
        "counted": _counted(verdicts),
        "sections": [
            _section(part, part.template or page.template, it, folder / FIGURES_FOLDER)
            for part in page.parts
            for it in part.each(subject)
        ],
        "hyperparameters": settings.strip(),
        "folder": folder,
    }
    for verdict in verdicts:
        is_bad = verdict.level in ("warning", "problem")
        logger.log(logging.WARNING if is_bad else logging.INFO, str(verdict))
    for name in (MARKDOWN_FILE, HTML_FILE):
        text = _templates().get_template(f"page{Path(name).suffix}.j2").render(content)
        replace_file(folder / name, text.encode())
    return folder / HTML_FILE


def percent(value: float | None) -> str:
    """A share for a person: 21.3%."""
    return "not finite" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """A number for a person, with two decimals."""
    return "not finite" if value is None else f"{value:.2f}"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("muq_plugins.evaluation", "templates"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "embedded": _embedded,
        "relative": lambda path, folder: Path(os.path.relpath(path, folder)).as_posix(),
        "shown": shown,
        "words": _words,
        "cell": lambda text: _words(text).replace("|", "\\|").replace("\n", " "),
        "fence": _fence,
        "percent": percent,
        "number": number,
    }
    return environment


def _section(part: Part, template: str, it: Any, folder: Path) -> Section:
    """Write the prose of a part, and draw the figures that it asks for."""
    prose = _templates().get_template(template)
    text = "".join(prose.blocks[part.block](prose.new_context({"it": it})))
    title, *paragraphs = (
        " ".join(words.split()) for words in re.split(r"\n\s*\n", text.strip())
    )
    pictures = []
    for found in filter(None, map(PICTURE.fullmatch, paragraphs)):
        # What a person calls a part may not be what a file can be called.
        file = re.sub(r"\W", "_", "_".join(filter(None, found.group("it", "name"))))
        path = folder / f"{file}.png"
        part.figures[found["name"]](it, path)
        pictures.append(Picture(path, found["caption"], found["alt"]))
    return Section(
        title,
        "\n\n".join(words for words in paragraphs if not PICTURE.fullmatch(words)),
        pictures,
        part.table(it) if part.table else None,
    )


def _counted(verdicts: Sequence[Verdict]) -> str:
    """How many there are of each level, in one sentence: 1 problem, 3 good."""
    levels = Counter(verdict.level for verdict in verdicts)
    nouns = {"problem": "problems", "warning": "warnings"}
    words = [f"{n} {nouns.get(x, x) if n > 1 else x}" for x, n in levels.items()]
    return ", ".join(words)


def _words(text: Any) -> str:
    """Text that Markdown shows as it is: names of files come from anywhere."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", shown(str(text)))
    # A tag or a comment, and no comparison.
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text).replace("](", "]\\(")


def _fence(text: str) -> str:
    """A fence that no line of a text ends."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _embedded(path: Path) -> str:
    """A PNG as the address of an image that is part of the page."""
    if not path.exists():
        raise FileNotFoundError(f"{path}, a figure of the report, does not exist")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
