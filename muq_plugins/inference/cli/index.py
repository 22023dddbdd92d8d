"""``muq-plugins index``, ``search`` and ``serve``: music that is found again."""

from __future__ import annotations

import functools
import json
import math
import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from muq_plugins.errors import UserError, given_by_user, needs, shown
from muq_plugins.inference.cli import options
from muq_plugins.inference.cli.options import (
    count_files,
    load,
    load_encoder,
    pick_device,
    report_problems,
    say,
)

if TYPE_CHECKING:
    import socket

    import numpy as np

    from muq_plugins.inference.index.search import MusicIndex
    from muq_plugins.inference.index.store import Entry
    from muq_plugins.inference.space import Space


def index(
    out: Annotated[
        str,
        typer.Option(
            metavar="INDEX", help="the folder of the index; it is made if needed"
        ),
    ],
    folder: Annotated[
        str | None,
        typer.Argument(help="the music; it is searched to its depths"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"MuQ-MuLan, or an encoder to search by examples alone: "
            f"{options.MULAN_MODELS}; or {options.MUQ_MODELS} (default: that of the "
            f"index)",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="of an encoder: which hidden state, -1 is the last (default: that of "
            "the index, or -1)",
        ),
    ] = None,
    loudness: options.Loudness = None,
    dtype: Annotated[
        Literal["float32", "int8"] | None,
        typer.Option(
            help="what an encoder computes in; int8: faster on a CPU, a space of its "
            "own (default: that of the index, or float32)",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="also take out files of other folders that are not there any more",
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="PARQUET",
            help="also write paths and vectors as a table",
        ),
    ] = None,
    device: options.Device = None,
) -> int:
    """An index of music, for search and serve.

    Makes an index of the audio files below a folder, or brings it up to date: new and
    changed files are embedded, moved ones recognised, removed ones taken out, the
    others left alone. After an interruption the same command goes on. Several folders
    can go into one index, with a command for each. Without a folder, only --prune and
    --export are done.
    """
    if folder is None and not prune and export is None:
        raise UserError("Give a folder with music, or --prune, or --export.")
    if prune or export is not None:
        from muq_plugins.data.shares import own_share

        if own_share()[1] > 1:
            raise UserError(
                "--prune and --export are for one process: leave them out of torchrun, "
                "and run them when it has ended."
            )
    if export is not None:
        needs("--export", "parquet", "pyarrow")
        if not export.endswith(".parquet"):
            raise UserError(f"--export is {export}: a table ends in .parquet.")
    code = 0
    if folder is not None:
        device = pick_device(device)
        code = _update(out, folder, model, layer, loudness, dtype, device)
    if prune:
        from muq_plugins.inference.index.update import prune_index

        gone = prune_index(out, say=say)
        for path in gone:
            say(f"  {shown(path)}")
        say(f"{out}: {count_files(len(gone))} taken out.")
    if export is not None:
        from muq_plugins.inference.index.search import MusicIndex, export_parquet

        count = export_parquet(MusicIndex(out), export)
        say(f"{export}: {count_files(count)}.")
    return code


def search(
    index: options.Index,
    text: Annotated[
        str | None,
        typer.Argument(help='such as "calm solo cello"'),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="an example instead of a text; if it is indexed itself, it is left "
            "out",
        ),
    ] = None,
    model: options.IndexModel = None,
    top: options.Top = 10,
    min_score: Annotated[
        float | None,
        typer.Option(metavar="S", help="leave out files with lower scores"),
    ] = None,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Indexed files that a text or an example describes.

    A score is the dot product of the vectors of file and query, from -1 to 1; the
    scores of texts are lower than those of examples. Texts need an index made with a
    MuQ-MuLan; examples need an index of any model.
    """
    if (text is None) == (audio is None):
        raise UserError(
            'Give one query: a text such as "calm solo cello", or --audio and a file.'
        )
    if min_score is not None and math.isnan(min_score):
        raise UserError("--min-score nan: give a number from -1 to 1.")
    device = pick_device(device)
    opened = _open(index)
    vector, itself, trained_on = _embed_query(opened, text, audio, model, device)
    found, clear = opened.search_and_judge(vector, top, without=itself)
    if min_score is not None:
        found = [match for match in found if match.score >= min_score]
    current = [entry.is_current() for entry, _ in found]
    if as_json:
        query = {"text": text} if audio is None else {"audio": audio}
        matches = [
            {"path": entry.path, "score": score, "current": as_indexed}
            for (entry, score), as_indexed in zip(found, current, strict=True)
        ]
        said = {"stands_out": clear, "trained_on": trained_on} if audio is None else {}
        said["space"] = opened.store.space.name
        print(json.dumps({"query": query, **said, "matches": matches}, indent=1))
    elif found:
        print("rank    score  path")
        for place, (entry, score) in enumerate(found, start=1):
            mark = "" if current[place - 1] else "  (changed or gone)"
            print(f"{place:4d}  {score:7.4f}  {entry.shown}{mark}")
    elif min_score is not None:
        print(
            f"No matches: none of the {len(opened)} files has a score of "
            f"{min_score:g} or more."
        )
    else:
        print("No matches: the example is the only file of the index.")
    if stale := current.count(False):
        say(
            f"Of these, {count_files(stale)} changed or went since indexed: run "
            f"`muq-plugins index` again."
        )
    if audio is None and not as_json:
        say(f"The model was trained on: {trained_on}.")
        if clear is False:
            from muq_plugins.inference.index.search import NOTHING_CLEAR

            say(NOTHING_CLEAR)


def serve(
    index: options.Index,
    model: options.IndexModel = None,
    top: options.Top = 10,
    host: Annotated[
        str,
        typer.Option(
            help="address to listen on; 0.0.0.0 lets other machines listen to the "
            "music too"
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=65535, help="to listen on; 0 for any that is free"
        ),
    ] = 8000,
    device: options.Device = None,
) -> None:
    """A web page to search an index and to listen.

    By a text or by one of its files. Only audio below the indexed folders is given
    out. The page needs no network; by default only this machine can open it.
    """
    device = pick_device(device)
    needs("The page", "web", "fastapi", "uvicorn")
    import uvicorn

    from muq_plugins.inference.web import make_app

    with _listen(host, port) as listening:
        opened = _open(index)
        texts = _load_model_of(opened, model, device) if opened.takes_texts else None
        app = make_app(opened, texts, top=top, host=host)
        place = f"[{host}]" if ":" in host else host
        print(
            f"Serving {len(opened)} files of {index} on "
            f"http://{place}:{listening.getsockname()[1]} - Ctrl-C ends it.",
            flush=True,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            http="h11",
            # Queries are part of the address, and may be long.
            h11_max_incomplete_event_size=1 << 20,
            # A browser that is playing does not keep Ctrl-C from ending it.
            timeout_graceful_shutdown=1,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # which is how it ends


def _update(
    out: str,
    folder: str,
    model: str | None,
    layer: int | None,
    loudness: float | None,
    dtype: str | None,
    device: str,
) -> int:
    """Brings an index up to date with a folder; 1 if a file could not be used."""
    from tqdm import tqdm

    from muq_plugins.data.shares import own_share
    from muq_plugins.inference.index.store import FILE, Store
    from muq_plugins.inference.index.update import update_index

    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder: give one with music.")
    held = None
    if os.path.exists(os.path.join(out, FILE)):
        with closing(Store(out)) as store:
            model = model or store.model
            held = store.space
            loudness = held.loudness if loudness is None else loudness
    if model is None:
        raise UserError(f"There is no index in {out} yet: give --model to make one.")
    embedder = load_audio_model(model, layer, device, dtype, held)
    # What is loaded from a path is found from other folders too.
    name = os.path.abspath(model) if os.path.exists(model) else model
    # No bar of a process that nobody sees.
    bar = functools.partial(tqdm, unit="file", disable=own_share()[0] > 0 or None)
    changes = update_index(out, folder, embedder, name, bar, say, loudness)
    say(
        f"{out}: {changes.added} new, {changes.changed} changed, {changes.moved} "
        f"moved, {changes.removed} removed, {changes.unchanged} unchanged. Now "
        f"{count_files(changes.files)} in the space {embedder.space(loudness).name}."
    )
    return report_problems("Could not be used:", changes.problems, own_share()[1])


def _open(folder: str) -> MusicIndex:
    """Opens an index that holds something."""
    from muq_plugins.inference.index.search import MusicIndex

    opened = MusicIndex(folder)
    if not len(opened):
        problems = len(opened.store.problems())
        raise UserError(
            f"{folder} holds no files ({problems} could not be read): there is "
            f"nothing to find. Run `muq-plugins index` again, which lists them."
        )
    return opened


def _embed_query(
    opened: MusicIndex,
    text: str | None,
    audio: str | None,
    model: str | None,
    device: str,
) -> tuple[np.ndarray, Entry | None, str]:
    """The vector of a query, itself if it is in the index, what its model has heard."""
    from muq_plugins.data.audio import audio_info
    from muq_plugins.inference.index.search import embed_query, find_itself, query_text
    from muq_plugins.inference.index.store import as_vector

    if audio is None:
        text = query_text(opened, text)  # before the model is loaded
        embedder = _load_model_of(opened, model, device)
        return embed_query(embedder, text), None, embedder.trained_on
    itself = find_itself(opened, audio)
    if itself is not None and itself.is_current():
        return opened.vector(itself), itself, ""
    audio_info(audio)  # before the model is loaded
    embedder = _load_model_of(opened, model, device)
    vector = as_vector(embedder.embed_file(audio, opened.store.space.loudness))
    return vector, itself, ""


def load_audio_model(
    source: str,
    layer: int | None,
    device: str,
    dtype: str | None = None,
    held: Space | None = None,
) -> Any:
    """A MuQ-MuLan, or a layer of an encoder: whatever the model is.

    What is not given is that of the space that an index holds, if it is of this model.
    """
    from muq_plugins.inference.official_mulan import is_mulan
    from muq_plugins.inference.space import INT8

    with given_by_user():
        mulan = is_mulan(source)
    if mulan:
        from muq_plugins.inference.mulan import MuQMuLan

        if layer is not None:
            raise UserError(
                f"--layer {layer}: {source} is a MuQ-MuLan, which has one latent: "
                f"leave the option out."
            )
        if dtype == INT8:
            raise UserError(
                f"--dtype int8: {source} is a MuQ-MuLan, which computes in float32: "
                f"leave the option out."
            )
        return load(MuQMuLan.from_pretrained, source, device)
    from muq_plugins.inference.index.update import EncoderLayer

    model = load_encoder(source, device, dtype or (held and held.precision))
    if layer is None and held is not None and held.weights == model.fingerprint:
        [layer] = held.layers
    [number] = model.find_layers([-1 if layer is None else layer])
    return EncoderLayer(model, number)


def _load_model_of(opened: MusicIndex, source: str | None, device: str) -> Any:
    """The model that an index was made with, wherever it is now."""
    from muq_plugins.inference.space import check_space

    name = source or opened.store.model
    try:
        space = opened.store.space
        model = load_audio_model(name, None, device, held=space)
    except UserError as error:
        if source is not None:
            raise
        raise UserError(
            f"{error}\n{opened.folder} was made with this model: if it is somewhere "
            f"else now, give --model."
        ) from error
    check_space(space, model.space(space.loudness), str(opened.folder), name)
    return model


def _listen(host: str, port: int) -> socket.socket:
    """Takes a port, before anything slow is loaded."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}): choose "
            f"another --port or --host."
        ) from error
