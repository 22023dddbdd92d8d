"""The recipes and experiment files that come along."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from muq_plugins.errors import UserError, nearest

PACKAGE = Path(__file__).parent
# Where the package was installed they are in it; in a checkout they stand beside it.
ROOT = PACKAGE if (PACKAGE / "recipes").is_dir() else PACKAGE.parent
RECIPES, HPARAMS = ROOT / "recipes", ROOT / "hparams"
# What may stand in an experiment file for another file.
FILE = re.compile(r"[\w./-]+\.(?:yaml|txt)\b")


def experiment_files() -> dict[str, Path]:
    """All experiment files that come along, by names such as targets/mert.yaml."""
    paths = sorted(HPARAMS.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return {path.relative_to(HPARAMS).as_posix(): path for path in paths}


def find_experiment(name: str) -> Path:
    """The file of a path; if there is none, what comes along under that name."""
    path = Path(name)
    return path if path.is_file() or path.is_absolute() else _coming_along(path)


def _coming_along(path: Path) -> Path:
    found = experiment_files()
    place = path.as_posix().removeprefix("hparams/")
    alike = [one for one in found if one == place or one.endswith(f"/{place}")]
    return found[alike[0]] if len(alike) == 1 else path


def nearest_experiment(name: str, cutoff: float = 0.0) -> str:
    """What comes along and is called most like it; empty if there is none."""
    names = {path.stem: place for place, path in experiment_files().items()}
    return names.get(nearest(Path(name).stem, names, cutoff), "")


def with_what_it_needs(name: str) -> Iterator[Path]:
    """An experiment file that comes along, and all files that it builds on."""
    path = _coming_along(Path(name))
    if not path.is_relative_to(HPARAMS):
        raise UserError(
            f"No experiment {name} comes along; the nearest is "
            f"{nearest_experiment(name)}. `muq-plugins recipes` lists all."
        )
    waiting, seen = [path.resolve()], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        yield path
        lines = path.read_text(encoding="utf-8").splitlines()
        code = "\n".join(line.partition("#")[0] for line in lines)
        others = (path.parent / other for other in FILE.findall(code))
        waiting += [other.resolve() for other in others if other.is_file()]
