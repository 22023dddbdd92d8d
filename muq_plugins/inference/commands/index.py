"""``muq-plugins index``: an index of music, for `search` and `serve`."""

from __future__ import annotations

import fcntl
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from muq_plugins.inference.commands.mulan import (
    MULAN_MODELS,
    index_errors,
    lasting_name,
    load_mulan,
)
from muq_plugins.inference.commands.options import (
    CommandError,
    add_device_argument,
    check_installation,
)

DESCRIPTION = """\
Makes an index of the audio files below a folder, or brings it up to date: new and
changed files are embedded, removed ones taken out, the others left alone. After an
interruption the same command goes on. Several folders can go into one index, with a
command for each."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="the music; it is searched to its depths"
    )
    parser.add_argument("--model", required=True, help=MULAN_MODELS)
    parser.add_argument(
        "--output",
        metavar="INDEX",
        required=True,
        help="the folder of the index; it is made if needed",
    )
    parser.add_argument(
        "--faiss-above",
        metavar="N",
        type=parse_limit,
        help="with more files than this, queries go through a FAISS index instead of "
        "comparing with all (default: 20000)",
    )
    add_device_argument(parser)


def run(arguments: Namespace) -> int:
    """Makes an index, or brings it up to date."""
    check_installation()
    if not os.path.isdir(arguments.folder):
        raise CommandError(f"{arguments.folder} is not a folder: give one with music.")
    from tqdm import tqdm

    from muq_plugins.inference.index import MusicIndex, update_index
    from muq_plugins.inference.index.faiss_neighbours import EXACT_UP_TO

    limit = arguments.faiss_above
    model = load_mulan(arguments.model, arguments.device)
    if _is_busy(arguments.output):
        print(f"Waiting: another command writes {arguments.output}.", file=sys.stderr)
    # The total is known when the folder has been compared with the index.
    with index_errors(), tqdm(total=0, unit="file", disable=None) as bar:
        changes = update_index(
            arguments.output,
            arguments.folder,
            model,
            lasting_name(arguments.model),
            EXACT_UP_TO if limit is None else limit,
            bar.reset,
            bar.update,
        )
    with index_errors():
        index = MusicIndex(arguments.output)
        size = len(index)
    print(
        f"{arguments.output}: {changes.added} new, {changes.changed} changed, "
        f"{changes.removed} removed, {changes.unchanged} unchanged. Now {size} "
        f"file{'s' * (size != 1)}, {'exact search' if index.is_exact else 'FAISS'}.",
        file=sys.stderr,
    )
    if changes.problems:
        print("Could not be used:", *changes.problems, sep="\n  ", file=sys.stderr)
    return 1 if changes.problems else 0


def parse_limit(text: str) -> int:
    """Reads --faiss-above."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"must be a whole number, at least 0, got {text!r}")
    return int(text)


def _is_busy(folder: str) -> bool:
    """Whether another process holds the index, for a word about the wait."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False  # there is no index yet
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
