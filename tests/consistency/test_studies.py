"""Every study file can be run, and what is published comes from its numbers."""

import importlib
import json
from pathlib import Path

import pytest

from muq_plugins.evaluation.study import (
    check_study,
    collect_study,
    describe_study,
    study_headline,
    study_report,
)
from muq_plugins.experiment import load_experiment
from muq_plugins.experiment.plan import plan_runs

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs" / "results" / "runs"
STUDIES = sorted((ROOT / "hparams" / "studies").glob("study_*.yaml"))
PUBLISHED = sorted((ROOT / "docs" / "results").glob("*/study.json"))


def test_there_are_studies():
    assert STUDIES and PUBLISHED


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_can_be_planned_and_reported(path, tmp_path, monkeypatch):
    given = []
    if path.stem == "study_recordings":
        given = ["--experiments.recordings.overrides.data_folder", "music"]
    hparams = load_experiment([str(path), *given]).hparams
    monkeypatch.syspath_prepend(ROOT / "recipes" / "MuQ")
    check_study(hparams, path, importlib.import_module("ablate").tasks_of)
    hparams["seeds"] = hparams["seeds"][:2]  # more take as long, and say nothing else
    names = ("experiments", "seeds", "budget", "probes")
    runs = plan_runs(*(hparams[name] for name in names), tmp_path, tmp_path)
    assert len({run.folder for run in runs}) == len(runs)
    missing = [(run.experiment, run.seed) for run in runs]
    collect_study(
        tmp_path, describe_study(hparams, "none"), [], hparams["probes"] or {}, missing
    )
    study_report(tmp_path)
    answers = [line for line in study_headline(tmp_path) if line.startswith("unfinis")]
    assert len(answers) == len(hparams["questions"])


def test_inputs_of_towers_are_no_experiments_of_the_report():
    path = ROOT / "hparams" / "studies" / "study_towers.yaml"
    hparams = load_experiment([str(path)]).hparams
    shown = describe_study(hparams, "none")["experiments"]
    assert set(hparams["experiments"]) - set(shown) == {"muq", "bestrq"}


def test_records_are_named_after_their_runs():
    for path in RECORDS.glob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        stem, seed, key = path.stem.rsplit("-", 2)
        settings, numbers = record["settings"], record["numbers"]
        assert record["experiment"] == f"{stem}.yaml"
        assert settings["seed"] == int(seed)
        assert record["commands"]["train"] == key
        assert numbers["updates"] == settings["optimizer_step_limit"]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_numbers_come_from_records(path):
    for run in json.loads(path.read_text("utf-8"))["runs"]:
        if "record" in run:  # those of before had none
            record = json.loads((RECORDS / f"{run['record']}.json").read_text("utf-8"))
            assert run.items() >= record["numbers"].items()
            for task, scores in run["probe"].items():
                assert record["probe"][task].items() >= scores.items()


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_reports_come_from_their_numbers(path, tmp_path):
    (tmp_path / "study.json").write_bytes(path.read_bytes())
    study_report(tmp_path)
    expected = (path.parent / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == expected
    for figure in (path.parent / "figures").iterdir():
        assert (tmp_path / "figures" / figure.name).is_file()
