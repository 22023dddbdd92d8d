"""Training, probing and studies from the console: the scripts of `recipes/`."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from muq_plugins.errors import UserError
from muq_plugins.files import replace_file
from muq_plugins.shipped import (
    HPARAMS,
    RECIPES,
    experiment_files,
    with_what_it_needs,
)


class Script(NamedTuple):
    """A recipe as a command."""

    path: str
    help: str


SCRIPTS = {
    "train": Script("MuQ/train.py", "Pre-train MuQ, its tokenizer first."),
    "train-tokenizer": Script("MuQ/train_tokenizer.py", "Train a tokenizer alone."),
    "train-mulan": Script("MuQ/train_mulan.py", "Train MuQ-MuLan: music and text."),
    "distil": Script("MuQ/distil.py", "Make a small student of a large encoder."),
    "extract-labels": Script("MuQ/extract_labels.py", "Store labels of a corpus."),
    "measure-statistics": Script(
        "MuQ/measure_statistics.py", "Mean and deviation of log-mels."
    ),
    "probe": Script("MuQ/probe.py", "What can be read off a frozen encoder."),
    "ablate": Script("MuQ/ablate.py", "Run a study of experiments and seeds."),
    "zero-shot": Script("MuQ/zero_shot.py", "Test a model of music and text."),
    "marble": Script("MARBLE/probe.py", "Published tasks, on a frozen encoder."),
    "recognition": Script("Recognition/train.py", "Fine-tune to recognise classes."),
}


def run_script(name: str, arguments: list[str]) -> None:
    """Runs a recipe as ``python recipes/...`` does."""
    script = RECIPES / SCRIPTS[name].path
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))  # where its neighbours are
    runpy.run_path(str(script), run_name="__main__")


def question(path: Path) -> str:
    """The first sentence of what an experiment file says about itself."""
    lines = path.read_text(encoding="utf-8").splitlines()
    words = [line.strip("# ") for line in lines if line.startswith("#")]
    return re.match(r".*?(?:[.?](?= )|$)", " ".join(filter(None, words)))[0]


def listed(context: typer.Context) -> None:
    """List the experiments that come along, or copy some to change them."""
    if context.invoked_subcommand is None:
        files = experiment_files()
        margin = " " * (max(map(len, files)) + 2)
        wide = max(shutil.get_terminal_size().columns, len(margin) + 40)
        print(f"In {HPARAMS}; `muq-plugins recipes copy NAME FOLDER` copies one.\n")
        for name, path in files.items():
            text = f"{name:{len(margin)}}{question(path)}"
            print(textwrap.fill(text, wide, subsequent_indent=margin))


def copy(
    name: Annotated[str, typer.Argument(help="Experiment, such as muq.yaml.")],
    folder: Annotated[Path, typer.Argument(help="Where it goes.")] = Path("."),
) -> None:
    """Copy an experiment file, and all that it builds on, to change it."""
    files = {
        folder / path.relative_to(HPARAMS.resolve()): path.read_bytes()
        for path in with_what_it_needs(name)
    }
    for place, content in files.items():
        if place.exists() and place.read_bytes() != content:
            raise UserError(
                f"{place} is there and differs from what comes along: nothing was "
                f"copied. Remove it, or give another folder."
            )
    for place, content in files.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, content)
        print(place)
