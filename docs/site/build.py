"""Builds the documentation site: ``python docs/site/build.py OUT``.

The pages are the documents of the repository, at the same paths, with one page of the
API for each contract and a gallery of the published reports. OUT/site is the site.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "hparams/README.md")
FILES = ("LICENSE", "CITATION.cff")  # that documents link to, and that are no pages
LINK = re.compile(r"\[([^]]*)\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")

# Pages of the API, and the modules whose public names they have
API = {
    "Models": ("inference",),
    "Features": ("features", "mel", "constant_q", "encodec", "adapters"),
    "Quantizers": ("quantizers",),
    "Targets": ("target",),
    "Encoders": ("encoders", "conformer", "front_end"),
    "Masking": ("masking",),
    "Objectives": ("objectives",),
    "Stages": ("stages", "mulan", "parts"),
    "Brains": ("brains",),
}


def main(out: Path) -> int:
    """Puts the pages together and builds them; a broken link is an error."""
    pages, ours = out / "pages", {"pages", "site", "sections.py", "mkdocs.yml"}
    if others := sorted({x.name for x in out.glob("*")} - ours - {".cache"}):
        raise SystemExit(
            f"error: {out} holds what is not of a site: {', '.join(others[:5])}. "
            "Name a new folder, or that of a site."
        )
    shutil.rmtree(out, ignore_errors=True)
    ignored = shutil.ignore_patterns("site", "runs", "__pycache__")
    shutil.copytree(ROOT / "docs", pages / "docs", ignore=ignored)
    for name in (*DOCUMENTS, *FILES):
        (pages / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, pages / name)
    (pages / "README.md").rename(pages / "index.md")
    for page in pages.rglob("*.md"):
        page.write_text(with_links(page, pages), "utf-8")
    (pages / "reports.md").write_text(gallery(pages), "utf-8")
    for title, text in api_pages():
        file = pages / "api" / f"{title.lower()}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    shutil.copy(HERE / "sections.py", out)
    settings = (HERE / "mkdocs.yml").read_text("utf-8")
    listed = "".join(f"\n          - api/{title.lower()}.md" for title in API)
    settings = settings.replace("API: api", f"API:{listed}")
    (out / "mkdocs.yml").write_text(settings, "utf-8")
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict"]
    return subprocess.run(command, cwd=out).returncode


def with_links(page: Path, pages: Path) -> str:
    """A page whose links lead to pages; what is not on the site is named only."""

    def moved(link: re.Match) -> str:
        words, target, anchor = link.groups()
        if re.match(r"\w+:", target):
            return link[0]
        place = (page.parent / target).resolve()
        if not (ROOT / place.relative_to(pages)).exists():
            raise SystemExit(f"error: {page}: {target} does not exist.")
        if place == pages / "README.md":
            place = pages / "index.md"
        if not place.is_file():
            return words
        return f"[{words}]({os.path.relpath(place, page.parent)}{anchor})"

    return LINK.sub(moved, page.read_text("utf-8"))


def gallery(pages: Path) -> str:
    """Every published report, under its own title."""
    lines = [
        "# Reports",
        "",
        "As they were written by the runs that they report on.",
        "",
    ]
    for report in sorted(pages.glob("docs/results/**/report.md")):
        title = report.read_text("utf-8").partition("\n")[0].lstrip("# ")
        place = report.relative_to(pages).as_posix()
        lines.append(
            f"- [{title}]({place}) ({report.parent.relative_to(pages / 'docs')})"
        )
    return "\n".join(lines) + "\n"


def api_pages() -> Iterator[tuple[str, str]]:
    """The title and the text of each page of the API."""
    homes: dict[str, list[str]] = {}
    for package in ("inference", "lobes", "brains"):
        module = import_module(f"muq_plugins.{package}")
        for name in module.__all__:
            home = getattr(module, name).__module__.split(".")
            part = home[2] if package == "lobes" else package
            homes.setdefault(part, []).append(f"{module.__name__}.{name}")
    for title, parts in API.items():
        names = [name for part in parts for name in homes.pop(part)]
        yield title, "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])
    if homes:
        raise SystemExit(f"error: no page of the API has {homes}: add them to API.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/site/build.py OUT")
    sys.exit(main(Path(sys.argv[1]).resolve()))
