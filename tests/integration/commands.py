"""Running the project's commands from a test."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from tests.forks import RECIPES, ROOT, Fork, checked, fork_ranks

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
    return checked(result) if check else result


def recipe_options(options):
    """What every recipe of a test is told."""
    return [str(part) for part in (*options, "--device", "cpu", "--noprogressbar")]


def recipe(script, *options, check=True, **environment):
    """Runs a recipe in a process of its own."""
    fork = Fork(RECIPES / script, *recipe_options(options), **environment)
    return checked(fork.result()) if check else fork.result()


def started_recipe(script, *options):
    """Runs a recipe as a user does: nothing is imported before it starts."""
    return run_command(sys.executable, RECIPES / script, *recipe_options(options))


def two_ranks(script, *options):
    """Runs a recipe on two processes."""
    options = recipe_options([*options, "--distributed_backend", "gloo"])
    return [checked(rank) for rank in fork_ranks(RECIPES / script, *options)]


def complaint(result):
    """What a recipe says last of a mistake, which is no traceback."""
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    return result.stderr.splitlines()[-1]


def recipe_here(script, *options):
    """Runs a recipe in this process."""
    if str(RECIPES) not in sys.path:
        sys.path.insert(0, str(RECIPES))  # recipes import their neighbours
    with patch.object(sys, "argv", [str(RECIPES / script)]):
        importlib.import_module(Path(script).stem).main(recipe_options(options))
