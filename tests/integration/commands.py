"""Running the project's commands from a test."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def experiment_file(name):
    """The experiment file of that name, in whichever folder of hparams."""
    (path,) = (ROOT / "hparams").rglob(f"{name}.yaml")
    return path


def run_command(*command, check=True, timeout=300, **environment):
    """Runs a command from the repository root and returns what it printed."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and result.returncode:
        raise AssertionError(
            f"{command} ended with {result.returncode}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
    return result


def recipe(script, *options, **kwargs):
    """Runs a recipe as a user does."""
    path = ROOT / "recipes" / "MuQ" / script
    options = (*options, "--device", "cpu", "--noprogressbar")
    return run_command(sys.executable, path, *options, **kwargs)


def recipe_here(script, *options):
    """Runs a recipe in this process, without the seconds that a new one starts in."""
    folder = str(ROOT / "recipes" / "MuQ")
    if folder not in sys.path:
        sys.path.insert(0, folder)  # recipes import their neighbours
    options = [*options, "--device", "cpu", "--noprogressbar"]
    importlib.import_module(Path(script).stem).main([str(o) for o in options])
