"""The toolkit with the oldest packages that it allows: ``pytest -m lower_bounds``.

They are installed into an environment of their own, a download of some gigabytes.
"""

import os
import runpy
import shutil
import subprocess
import venv

import pytest
import setuptools
from packaging.requirements import Requirement

from tests.integration.commands import ROOT

#: What users need; tests may be run by newer tools.
OPTIONAL = ("export", "lora", "parquet", "tensorboard", "web")
#: What depends on versions: every part, every file that was written, a whole run.
TESTS = ("tests/unit", "tests/goldens", "tests/integration/test_recipes.py")


def oldest():
    """Each requirement of setup.py, and its lowest version; None if it names none."""
    asked = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **words: asked.update(words))
        runpy.run_path(str(ROOT / "setup.py"))
    extras = [line for name in OPTIONAL for line in asked["extras_require"][name]]
    for line in asked["install_requires"] + extras:
        wanted = Requirement(line)
        bounds = [s.version for s in wanted.specifier if s.operator in (">=", "==")]
        yield wanted.name, bounds[0] if bounds else None


def test_every_requirement_has_a_lower_bound():
    assert [name for name, version in oldest() if version is None] == []


@pytest.mark.slow
@pytest.mark.lower_bounds
def test_the_lowest_versions_work(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    venv.create(tmp_path / "venv", with_pip=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"

    def run(*command):
        done = subprocess.run(
            [python, "-m", *command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-5000:]

    try:
        pins = [f"{name}=={version}" for name, version in oldest()]
        run("pip", "install", "-q", *pins, "-e", ".[test]")
        run("pytest", "-q", "-m", "not slow", "-n", "2", *TESTS)
    finally:
        shutil.rmtree(tmp_path / "venv")  # some gigabytes
