"""``muq-plugins scan``: the manifests of a folder, by any number of processes."""

from __future__ import annotations

from typing import Annotated

import typer

from muq_plugins.inference.cli.options import check_installation, say


def scan(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="of recordings")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="of the manifests (default: where train.py looks)"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="threads that decode (default: the cores of the machine, shared among "
            "its processes)",
        ),
    ] = None,
) -> None:
    """Manifests of a folder of recordings: what can be used, and what cannot.

    Every file is decoded once. train.py does the same by itself; for a large folder,
    start this first, where train.py will be started, on as many processes and machines
    as there are: torchrun --nproc-per-node 8 -m muq_plugins scan FOLDER. Each takes a
    fixed share, and the last one writes the manifests. The same command goes on where
    it was, with any number of processes.
    """
    check_installation()
    from pathlib import Path

    from muq_plugins.data.scan import (
        decode_share,
        look_at,
        manifests_of,
        scan_folder,
        shares_finished,
    )
    from muq_plugins.data.shards.index import is_sharded
    from muq_plugins.data.shares import own_share
    from muq_plugins.errors import UserError
    from muq_plugins.files import locked

    if is_sharded(folder):
        raise UserError(
            f"{folder} holds shards, which need no scan: train from them with "
            f"--data_folder {folder}."
        )
    rank, world = own_share()
    place = Path(out or manifests_of(Path(folder).resolve(), "results"))
    report = scan_folder(folder, place, look_only=True)
    if report is None and world > 1:
        look = look_at(folder)
        for _ in decode_share(look, place, rank, world, workers, rank == 0):
            pass
        if not shares_finished(look, place, world):
            say(f"Process {rank} of {world} has done its share of {folder}.")
            return
    if report is None:
        with locked(place, say=say):
            report = scan_folder(folder, place, workers=workers)
    print(f"{report.summary()}\nManifests: {place}")
