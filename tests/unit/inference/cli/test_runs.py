"""What ran below a folder: every kind, each once, and what cannot be read."""

import shutil

import pytest

from muq_plugins.evaluation.run_files import MetricsLog
from muq_plugins.inference.cli.main import main
from tests.goldens.parts import ROOT
from tests.unit.inference.cli.test_compare import write as write_probe

ROW = {"stage": "pretrain", "cross_entropy": 4.12, "accuracy": 0.213}
ROW |= {"code_entropy": 4.8, "chance": 5.5452, "time": 60}


@pytest.fixture
def results(tmp_path):
    begun = MetricsLog(tmp_path / "muq" / "1" / "metrics.jsonl")
    begun.write({"kind": "valid", "step": 9, **ROW})
    finished = MetricsLog(tmp_path / "muq" / "a b" / "metrics.jsonl")
    finished.write({"kind": "test", "step": 600, **ROW})
    (tmp_path / "muq" / "a b" / "report.html").write_text("")
    tokenizer = MetricsLog(tmp_path / "muq" / "a b" / "tokenizer" / "metrics.jsonl")
    tokenizer.write({"kind": "test", "step": 1, "stage": "tokenizer"})  # of the run
    write_probe(tmp_path / "probe", 0.9)
    (tmp_path / "study").mkdir()
    shutil.copy(ROOT / "docs/results/visible/study.json", tmp_path / "study")
    return tmp_path


def test_runs_of_all_kinds(results, capsys):
    assert main(["runs", str(results), "--index"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
    place = {
        path: str(results / path) for path in ("muq/1", "muq/a b", "probe", "study")
    }
    page = results / "report.html"
    assert set(said) == {*place.values(), "Page"}
    assert said[place["muq/1"]].startswith("pretrain, at step 9, masked cross-entropy")
    assert said[place["muq/a b"]].startswith("pretrain, finished, masked cross-entropy")
    assert said[place["probe"]].startswith("probe, finished, gtzan_genre ")
    assert said[place["study"]].startswith("study, finished, answers 3 supported, ")
    text = page.read_text()
    assert '<a href="muq/a%20b/report.html">muq/a b</a>' in text
    assert '<th scope="row">muq/1</th>' in text  # it has no report yet
    assert "[muq/a b](muq/a%20b/report.html)" in (results / "report.md").read_text()
    assert main(["runs", str(results)]) == 0  # the page itself is not a run


@pytest.mark.parametrize("place", ["muq/1", "probe", "study"])
def test_a_run_keeps_its_own_report(results, place, capsys):
    report = results / place / "report.html"
    report.write_text("its own")
    assert main(["runs", str(report.parent), "--index"]) == 2
    assert "its own report would be replaced" in capsys.readouterr().err
    assert report.read_text() == "its own"
    assert main(["runs", str(report.parent)]) == 0


def test_what_cannot_be_read_is_named_beside_the_rest(results, capsys):
    (results / "study" / "study.json").write_text("{")
    assert main(["runs", str(results)]) == 1
    said = capsys.readouterr()
    assert "study.json is damaged" in said.err and "muq/1: pretrain" in said.out


def test_folders_without_runs(tmp_path, capsys):
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["runs", str(tmp_path)]) == 2
    assert "has no runs" in capsys.readouterr().err
