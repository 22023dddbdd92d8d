"""What is installed holds every file, and works where there is no checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from muq_plugins.inference.muq import MuQ
from tests.integration.commands import HERE, ROOT, recipe_options

SHIPPED = ("recipes", "hparams")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that a wheel is made of, as if it were installed there."""
    folder = tmp_path_factory.mktemp("site-packages")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def console(installed, tmp_path):
    """Runs the console command in an empty folder."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "muq_plugins", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_the_build_holds_every_file(installed):
    package = ROOT / "muq_plugins"
    expected = {
        Path("muq_plugins") / path.relative_to(root)
        for folder, root in ((package, package), *((ROOT / x, ROOT) for x in SHIPPED))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    built = {p.relative_to(installed) for p in installed.rglob("*") if p.is_file()}
    assert Path("muq_plugins/models/small/tokenizer/model.safetensors") in built
    assert Path("muq_plugins/hparams/targets/mert.yaml") in built
    assert built == expected


def test_a_copied_experiment_trains(console, installed, data_options, tmp_path):
    told = console("recipes", "copy", "muq.yaml", "mine")
    assert (told.returncode, told.stderr) == (0, "")
    tiny = yaml.safe_load((HERE / "tiny.yaml").read_text())
    tiny |= {"extends": "mine/muq.yaml", "optimizer_step_limit": 2, "valid_interval": 2}
    tiny["tokenizer"] |= {"optimizer_step_limit": 2, "valid_interval": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    options = recipe_options([*data_options, "--output_folder", "run"])
    done = console("train", "tiny.yaml", *options, "--warmup_steps", "1")
    assert done.returncode == 0, done.stderr
    assert "Report: run/report.html" in done.stdout
    assert MuQ.from_pretrained(tmp_path / "run").sample_rate == 24000
    code = (tmp_path / "run" / "train.py").read_text()
    assert "recipes/MuQ/train.py hparams/muq.yaml" in code  # of what was installed
    again = console("train", "tiny.yaml", *options, "--seed", "2")
    assert (again.returncode, "another experiment" in again.stderr) == (2, True)
