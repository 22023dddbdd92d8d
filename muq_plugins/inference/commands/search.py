"""``muq-plugins search``: the indexed files that a text or an example describes
best.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from muq_plugins.inference.commands.mulan import (
    add_index_arguments,
    index_errors,
    load_model_of,
    open_index,
    parse_count,
)
from muq_plugins.inference.commands.options import (
    CommandError,
    add_device_argument,
    check_installation,
)

if TYPE_CHECKING:
    import numpy as np

    from muq_plugins.inference.index import Entry, Match, MusicIndex

DESCRIPTION = """\
Ranks indexed files by how well a text describes them, or by how much they are like an
example. A score is the dot product of the latents of file and query, from -1 to 1; the
scores of texts are lower than those of examples."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help='such as "calm solo cello"'
    )
    parser.add_argument(
        "--audio",
        metavar="FILE",
        help="an example instead of a text; if it is indexed itself, it is left out",
    )
    add_index_arguments(parser)
    parser.add_argument(
        "--top",
        metavar="N",
        type=parse_count,
        default=10,
        help="how many (default: 10)",
    )
    parser.add_argument(
        "--min-score",
        metavar="S",
        type=float,
        default=-float("inf"),
        help="leave out files with lower scores",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    add_device_argument(parser)


def run(arguments: Namespace) -> int:
    """Prints the files that a query finds."""
    check_installation()
    if (arguments.text is None) == (arguments.audio is None):
        raise CommandError(
            'Give one query: a text such as "calm solo cello", or --audio and a file.'
        )
    index = open_index(arguments.index, arguments.exact)
    latent, itself = embed(index, arguments)
    with index_errors():
        found = index.search(latent, arguments.top, without=itself)
    found = [match for match in found if match.score >= arguments.min_score]
    if arguments.json:
        _print_json(arguments, found)
    elif not found:
        print(_nothing(arguments, len(index)))
    else:
        print("rank    score  path")
        for place, (entry, score) in enumerate(found, start=1):
            print(f"{place:4d}  {score:7.4f}  {entry.shown}")
    return 0


def embed(index: MusicIndex, arguments: Namespace) -> tuple[np.ndarray, Entry | None]:
    """The latent of the query of a command."""
    import numpy as np

    from muq_plugins.data.audio import AudioError, audio_info
    from muq_plugins.inference.index.queries import check_text, embed_query
    from muq_plugins.inference.printing import shown

    if arguments.audio is None:
        with index_errors():
            text = check_text(arguments.text)  # before the model is loaded
        model = load_model_of(index, arguments.model, arguments.device)
        return embed_query(model, text), None
    with index_errors():
        itself = find_itself(index, arguments.audio)
    if itself is not None and itself.is_current():
        with index_errors():
            return index.latent(itself), itself
    try:
        audio_info(arguments.audio)
        model = load_model_of(index, arguments.model, arguments.device)
        latent = model.embed_file(arguments.audio).detach().float().cpu()
    except AudioError as error:
        raise CommandError(shown(str(error)), code=1) from error
    return np.asarray(latent).reshape(-1), itself


def find_itself(index: MusicIndex, path: str) -> Entry | None:
    """Finds an example in the index, which keeps links below an indexed folder."""
    real = os.path.realpath(path)
    parts = Path(os.path.abspath(path)).parts
    # Of the folders above it, any may be the one that was indexed: its own path is
    # without links then, what lies below is as it was found.
    for count in range(1, len(parts)):
        top = os.path.realpath(os.path.join(*parts[:count]))
        entry = index.database.find(os.path.join(top, *parts[count:]))
        # After a link, a path with .. in it may be another file than it seems.
        if entry is not None and os.path.realpath(entry.path) == real:
            return entry
    return index.database.find(real)


def _print_json(arguments: Namespace, found: list[Match]) -> None:
    from muq_plugins.inference.printing import shown

    query = {"text": arguments.text} if arguments.audio is None else {}
    query = query or {"audio": shown(arguments.audio)}
    matches = [{"path": entry.shown, "score": score} for entry, score in found]
    print(json.dumps({"query": query, "matches": matches}, indent=1))


def _nothing(arguments: Namespace, size: int) -> str:
    if size == 1:
        return "No matches: the example is the only file of the index."
    return (
        f"No matches: none of the {size} files has a score of "
        f"{arguments.min_score:g} or more."
    )
