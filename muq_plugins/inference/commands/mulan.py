"""What the sub-commands for music and text share: the model, and the index."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from muq_plugins.inference.commands.devices import pick_device
from muq_plugins.inference.commands.options import CommandError, check_installation

if TYPE_CHECKING:
    from muq_plugins.inference.index import MusicIndex
    from muq_plugins.inference.mulan import MuQMuLan

MULAN_MODELS = (
    "a run folder of train_mulan.py, a folder in the layout of the official package, "
    "or an id on the Hugging Face hub, such as OpenMuQ/MuQ-MuLan-large"
)


def add_index_arguments(parser: ArgumentParser) -> None:
    """Adds what every sub-command takes that searches an index."""
    parser.add_argument(
        "--index",
        metavar="INDEX",
        required=True,
        help="the folder that `muq-plugins index` has written",
    )
    parser.add_argument(
        "--model",
        help="where the model of the index is now, if it has moved since",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="compare with all files, also where there is a FAISS index",
    )


def parse_count(text: str) -> int:
    """Reads a number of things that must be at least 1."""
    if not (text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def load_mulan(source: str, device: str | None) -> MuQMuLan:
    """Loads a model of music and text."""
    check_installation()
    device = pick_device(device)
    from muq_plugins.inference.mulan import MuQMuLan

    try:
        return MuQMuLan.from_pretrained(source, device)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


def open_index(folder: str, exact: bool) -> MusicIndex:
    """Opens an index that holds something."""
    from muq_plugins.inference.index import MusicIndex

    with index_errors():
        index = MusicIndex(folder, exact)
        if not len(index):
            problems = len(index.database.problems())
            raise CommandError(
                f"{folder} holds no files ({problems} could not be read): there is "
                f"nothing to find. Run `muq-plugins index` again, which lists them."
            )
    return index


def load_model_of(
    index: MusicIndex, source: str | None, device: str | None
) -> MuQMuLan:
    """Loads the model that an index was made with."""
    name = source or index.model
    try:
        model = load_mulan(name, device)
    except CommandError as error:
        if source is not None:
            raise
        raise CommandError(
            f"{error}\n{index.folder} was made with this model: if it is somewhere "
            f"else now, give --model.",
            error.code,
        ) from error
    with index_errors():
        index.check_model(model.fingerprint, name)
    return model


def lasting_name(source: str) -> str:
    """What a model is called in an index, which is used from other folders too."""
    return os.path.abspath(source) if os.path.exists(source) else source


@contextmanager
def index_errors() -> Iterator[None]:
    """Lets an error of an index end the command."""
    from muq_plugins.inference.index import MusicIndexError

    try:
        yield
    except MusicIndexError as error:
        raise CommandError(str(error)) from error
