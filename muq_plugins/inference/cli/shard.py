"""``muq-plugins shard``: music in a few large files, which training reads faster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from muq_plugins.errors import UserError
from muq_plugins.files import read_json
from muq_plugins.inference.cli.options import check_installation, report_problems, say


def _refuse_options(context: typer.Context, mode: str, taken: set[str]) -> None:
    """Refuses the options that would do nothing beside another."""
    for name in context.params:
        given = context.get_parameter_source(name).name == "COMMANDLINE"
        if given and name not in {"music", mode, *taken}:
            option, other = (f"--{x.replace('_', '-')}" for x in (mode, name))
            raise UserError(f"{option} takes no {other}: leave it out.")


def shard(
    context: typer.Context,
    music: Annotated[
        list[str],
        typer.Argument(
            metavar="MUSIC",
            help="a folder of music, its manifests (one, or train.json, valid.json and "
            "test.json), or a manifest of Lhotse's cuts (.jsonl, .jsonl.gz)",
        ),
    ],
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="where the shards go")
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="where the files of a manifest are (default: the folder of the "
            "manifest)",
        ),
    ] = None,
    encoding: Annotated[
        Literal["flac", "opus"],
        typer.Option(
            help="flac keeps 16 bits of each sample; opus loses some, needs a sixth of "
            "the room and takes seven times as long to read"
        ),
    ] = "flac",
    hours: Annotated[
        float,
        typer.Option(
            metavar="H",
            min=0.001,
            help="of music in a shard; 10 are about 1 GB of flac",
        ),
    ] = 10.0,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="threads (default: one a core)"),
    ] = None,
    index_only: Annotated[
        bool,
        typer.Option(
            "--index-only",
            help="MUSIC is a folder or an address of WebDataset tars: write their "
            "index and leave them where they are",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="MUSIC is a folder of shards: compare every byte, no more"
        ),
    ] = False,
) -> int:
    """Writes music into shards of 24 kHz mono, to train from.

    Give the folder as --data_folder of any recipe then: it hears what it would hear of
    the recordings. What was interrupted goes on where it stopped. Several processes, on
    any number of machines, write a fixed share each:
    torchrun --nproc-per-node 8 -m muq_plugins shard MUSIC --out FOLDER
    """
    check_installation()
    if check:
        _refuse_options(context, "check", set())
        from muq_plugins.data.shards.index import check_shards

        for folder in music:
            for line in check_shards(folder):
                say(line)
        return 0
    if out is None:
        raise UserError("Give --out, the folder where the shards go.")
    from muq_plugins.data.shards.others import CUTS, from_webdataset, jobs_of_cuts
    from muq_plugins.data.shards.write import (
        jobs_of_folder,
        jobs_of_manifests,
        write_shards,
    )
    from muq_plugins.data.shares import own_share

    if index_only:
        _refuse_options(context, "index_only", {"out", "workers"})
        if len(music) > 1:
            raise UserError(f"--index-only takes one MUSIC, not {len(music)}.")
    manifests = all(name.endswith(".json") for name in music)
    if not manifests and len(music) > 1:
        raise UserError(f"Give one folder of music, or manifests, not {len(music)}.")
    place, source = os.path.realpath(out), os.path.realpath(music[0])
    inside = os.path.isdir(source) and os.path.commonpath([place, source]) == source
    if inside and not index_only:
        raise UserError(
            f"--out is {out}, in the folder of the music, where shards and recordings "
            "would be taken for each other: give a folder beside it."
        )
    cuts = music[0].endswith(CUTS)
    if data_root is not None and not (manifests or cuts):
        raise UserError("--data-root belongs to a manifest: leave it out.")
    root, unusable = data_root or os.path.dirname(music[0]) or ".", []
    if index_only:
        written = from_webdataset(music[0], out, workers=workers)
    else:
        if manifests:
            jobs = jobs_of_manifests(music, root)
        elif cuts:
            jobs = jobs_of_cuts(music[0], root)
        else:
            jobs = jobs_of_folder(music[0], Path(out, "scan"), workers)
            # Which names files from the folder.
            unusable = read_json(Path(out, "scan", "quarantine.json"))
        written = write_shards(jobs, out, encoding, hours, workers)
    if written is None:
        say(f"This process has written its share; others still write to {out}.")
        return 0
    content, left_out = written
    gigabytes = sum(shard["bytes"] for shard in content["shards"]) / 1e9
    say(
        f"{out}: {content['clips']:,} clips, {content['hours']:.2f} h, "
        f"{gigabytes:.2f} GB in {len(content['shards'])} shards. Train with "
        f"--data_folder {out}"
    )
    problems = [
        f"{clip['path']}: {clip['reason']} ({clip['detail']})"
        for clip in [*unusable, *left_out]
    ]
    return report_problems("Could not be used:", problems, own_share()[1])
