"""The documentation site has every document and every public name."""

import subprocess
import sys
from importlib import import_module

import pytest

from tests.goldens.parts import ROOT

pytest.importorskip("zensical")


def build(script, out):
    return subprocess.run(
        [sys.executable, script, out], capture_output=True, text=True, timeout=300
    )


def test_a_folder_of_yours_is_not_emptied(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    done = build(ROOT / "docs" / "site" / "build.py", tmp_path)
    assert done.returncode == 1 and "thesis.txt" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_the_site_is_whole(tmp_path):
    done = build(ROOT / "docs" / "site" / "build.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    nav = (tmp_path / "mkdocs.yml").read_text()
    documents = sorted((ROOT / "docs").glob("*.md"))
    assert documents and all(f"- docs/{x.name}\n" in nav for x in documents)
    pages = "".join(x.read_text() for x in (tmp_path / "site" / "api").glob("*.html"))
    for package in ("inference", "lobes", "brains"):
        for name in import_module(f"muq_plugins.{package}").__all__:
            assert f'id="muq_plugins.{package}.{name}"' in pages, name
    # SpeechBrain's names of sections are understood.
    assert "Parameters:</span>" in pages and ">Arguments<" not in pages
    # What a contract says is read at every part that follows it.
    targets = (tmp_path / "site" / "api" / "targets.html").read_text()
    assert targets.count("Which crops these are") == 3
    reports = (tmp_path / "site" / "reports.html").read_text()
    for study in (ROOT / "docs" / "results").glob("*/study.json"):
        assert f"docs/results/{study.parent.name}/report.html" in reports
