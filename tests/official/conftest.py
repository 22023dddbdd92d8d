"""The environment of the official package, and the scripts that run in it."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# They cannot be imported in this environment.
collect_ignore = ["official_side.py", "official_mulan_side.py"]


@pytest.fixture(scope="session")
def official_python():
    """Runs a script of this folder with the official package."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
    from environment import default_cache, official_python

    python = official_python(default_cache())

    def run(script, *arguments):
        command = [python, HERE / script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run
