"""``muq-plugins data``: open corpora by name."""

from __future__ import annotations

from typing import Annotated

import typer

from muq_plugins.errors import UserError
from muq_plugins.inference.cli.options import check_installation, say

# As their authors state them. Hours of clips are their number times 30 s, those of
# MTG-Jamendo follow from 508 GB at 320 kbit/s.
TABLE = (
    ("fma-small", "8,000 clips of 30 s", "67", "7.2 GiB"),
    ("fma-medium", "25,000 clips of 30 s", "208", "22 GiB"),
    ("fma-large", "106,574 clips of 30 s", "888", "93 GiB"),
    ("fma-full", "106,574 tracks", "8,232", "879 GiB"),
    ("mtg-jamendo-low", "55,701 tracks, mono, lower bit rate", "~3,500", "156 GB"),
    ("mtg-jamendo", "55,701 tracks", "~3,500", "508 GB"),
)
# Short for "may be trained on by anybody for anything, if the artists are named".
OPEN = ("cc0", "pd", "by")


def data(
    name: Annotated[
        str | None,
        typer.Argument(metavar="CORPUS", help="its name; without one, they are listed"),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="where the music goes")
    ] = None,
    licences: Annotated[
        list[str] | None,
        typer.Option(
            "--licence",
            metavar="LICENCE",
            help="only recordings with this licence: cc0, pd, by, by-sa, by-nd, by-nc, "
            "by-nc-sa, by-nc-nd or other; several by repeating it; open is cc0, pd and "
            "by (default: all)",
        ),
    ] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="do not remove what is unpacked")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="where the published files are, if they have moved"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="threads (default: one a core)"),
    ] = None,
) -> int:
    """Downloads open music, with artists, albums, genres and licences.

    Archives are compared with the checksums that their authors publish, unpacked and
    removed one by one; recordings are decoded once and divided by artist. The result is
    train.json, valid.json and test.json. What was interrupted goes on.
    """
    if name is None:
        for row in TABLE:
            print("{:<16} {:<36} {:>6} h {:>8}".format(*row))
        return 0
    check_installation()
    from muq_plugins.data.open_corpora import CORPORA, LICENCES, prepare_corpus

    if name not in CORPORA:
        raise UserError(f"There is no corpus {name}. There are {', '.join(CORPORA)}.")
    if out is None:
        raise UserError("Give --out, the folder where the music goes.")
    wanted = set(LICENCES if licences is None else licences)
    if "open" in wanted:
        wanted = (wanted - {"open"}) | set(OPEN)
    if wrong := sorted(wanted - set(LICENCES)):
        raise UserError(
            f"--licence {wrong[0]}: give one of {', '.join(LICENCES)}, or open."
        )
    found = prepare_corpus(name, out, wanted, keep_archives, mirror, workers)
    hours = ", ".join(
        f"{code} {time:.1f} h" for code, time in sorted(found["hours"].items())
    )
    parts = ", ".join(f"{part} {count:,}" for part, count in found["parts"].items())
    say(f"{out}: {parts}; {hours}. With other licences: {found['other_licences']:,}.")
    if count := len(found["left_out"]):
        say(f"Cannot be used: {count:,}, listed in {out}/left_out.json")
    say(
        f"Train from shards: muq-plugins shard {out}/train.json {out}/valid.json "
        f"{out}/test.json --out SHARDS"
    )
    return 0
