"""Recipes and experiment files from the console command."""

import pytest
import yaml

from muq_plugins.inference.cli import recipes
from muq_plugins.inference.cli.main import main
from muq_plugins.shipped import HPARAMS, RECIPES, experiment_files, find_experiment


def test_every_recipe_has_a_command(capsys):
    scripts = {path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.py")}
    assert {script.path for script in recipes.SCRIPTS.values()} == scripts
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in recipes.SCRIPTS)


def test_a_recipe_gets_what_follows(monkeypatch):
    ran = []
    monkeypatch.setattr(recipes, "run_script", lambda *given: ran.append(given))
    arguments = ["muq.yaml", "--lr", "0.1", "--help", "--tasks", "[a, b]", "--compile"]
    assert main(["train", *arguments]) == 0
    assert ran == [("train", arguments)]


def test_every_experiment_is_listed_with_its_question(capsys):
    assert main(["recipes"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for name, path in experiment_files().items():
        question = recipes.question(path)
        assert len(question) > 10 and f"{name} {question}" in told


@pytest.mark.parametrize(
    "name, place",
    [
        ("muq.yaml", "muq.yaml"),
        ("hparams/muq.yaml", "muq.yaml"),
        ("targets/mert.yaml", "targets/mert.yaml"),
        ("mert.yaml", "targets/mert.yaml"),
    ],
)
def test_an_experiment_is_found_by_its_name(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_experiment(name) == HPARAMS / place
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a: 1")  # a file of one's own wins
    assert find_experiment(name).resolve() == tmp_path / name


def test_a_copy_has_all_that_it_builds_on(tmp_path, capsys):
    for name in experiment_files():
        assert main(["recipes", "copy", name, str(tmp_path)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "studies/study.yaml") in told
    copied = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    expected = {p.relative_to(HPARAMS) for p in HPARAMS.rglob("*.*")}
    assert {path for path in expected - copied if path.suffix == ".yaml"} == set()
    alone = tmp_path / "alone"
    assert main(["recipes", "copy", "mt4ssl.yaml", str(alone)]) == 0
    names = {path.relative_to(alone).as_posix() for path in alone.rglob("*.yaml")}
    assert {"muq.yaml", "targets/mt4ssl.yaml"} <= names and len(names) < 10


def test_nothing_is_written_over(tmp_path, capsys, monkeypatch):
    (tmp_path / "muq.yaml").write_text("lr: 1")
    assert main(["recipes", "copy", "targets/mert.yaml", str(tmp_path)]) == 2
    assert "muq.yaml is there and differs" in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / "muq.yaml").read_text()) == {"lr": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["muq.yaml"]
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "copy", "muq.yaml"]) == 2
    assert "muq.yaml is there and differs" in capsys.readouterr().err


def test_a_wrong_name_is_told_the_nearest(tmp_path, capsys):
    assert main(["recipes", "copy", "mertt.yaml", str(tmp_path)]) == 2
    assert "the nearest is targets/mert.yaml" in capsys.readouterr().err
