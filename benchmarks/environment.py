"""Builds the environment of the official package, beside the running one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions, version
from pathlib import Path

from muq_plugins.files import locked, replace_file

# The releases that the official package was last known to work with. It declares more
# packages than it imports, so what it imports is named here instead.
MUQ = "muq==0.1.0"
DEPENDENCIES = ("transformers==4.46.3", "einops", "easydict")
# Imported by the package on its way to a tokenizer that nothing uses.
WITHOUT_DEPENDENCIES = ("x-clip", "beartype", "ftfy", "regex", "wcwidth", "pillow")
COMPLETE = "complete.json"


def default_cache() -> Path:
    """Where the environment is kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "muq_plugins"


def requirements(torch: str) -> tuple[list[str], list[str]]:
    """What is installed into the environment.

    torch itself is not: both sides compute with the running one.
    """
    number, _, build = torch.partition("+")
    # torchvision 0.N was released with torch 2.(N - 15); x-clip imports it.
    vision = f"torchvision==0.{int(number.split('.')[1]) + 15}.*"
    index = (
        ["--extra-index-url", f"https://download.pytorch.org/whl/{build}"]
        if build
        else []
    )
    return list(DEPENDENCIES), [*index, vision, *WITHOUT_DEPENDENCIES, MUQ]


def official_python(cache: Path) -> str:
    """Finds or builds the environment; others that want it meanwhile wait.

    It sees the packages of the running one, torch among them, behind its own.
    """
    with locked(cache, ".official.lock", say=print):
        return _official_python(cache)


def _official_python(cache: Path) -> str:
    torch = version("torch")
    shared = [path for path in sys.path if path.endswith("-packages")]
    complete, alone = requirements(torch)
    # Not where they are: a new environment with the same packages shares this one.
    there = sorted({f"{each.name}=={each.version}" for each in distributions()})
    wanted = [*there, *complete, *alone]
    python_tag = f"py{sys.version_info[0]}{sys.version_info[1]}"
    folder = cache / f"official-{python_tag}-torch{torch}"
    python = folder / "bin" / "python"
    marker = folder / COMPLETE
    if marker.is_file() and json.loads(marker.read_text("utf-8")) == wanted:
        _share(folder, shared)
        return str(python)
    print(f"building the official environment in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _share(folder, shared)
    pip = [str(python), "-m", "pip", "install"]
    _run(*pip, *complete)
    _run(*pip, "--no-deps", *alone)
    _run(str(python), "-c", "import muq")
    marker.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return str(python)


def _share(folder: Path, shared: list[str]) -> None:
    """Lets an environment see the packages of the running one."""
    own = next(folder.glob("lib/python*/site-packages"))
    replace_file(own / "shared.pth", ("\n".join(shared) + "\n").encode())


def _run(*command: str) -> None:
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}\nGive the "
            "interpreter of an environment that has the package with "
            "--official-python, or leave it out with --official-python none."
        )
