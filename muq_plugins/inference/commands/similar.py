"""``muq-plugins similar``: the embedded files that are closest to one."""

from __future__ import annotations

import difflib
import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from muq_plugins.inference.commands.options import CommandError, add_device_argument

if TYPE_CHECKING:
    import numpy as np

    from muq_plugins.inference.commands.collection import Embedded

DESCRIPTION = """\
Ranks embedded files by the cosine similarity of their mean embeddings to one of them,
or to an audio file that --model embeds first."""

# As in `muq-plugins embed`: longer queries are streamed.
BATCH_SECONDS = 60.0


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument(
        "folder", metavar="EMBEDDINGS", help="the folder that `embed` has written"
    )
    parser.add_argument(
        "query",
        metavar="QUERY",
        help="one of the embedded files, by its path or the end of it; or another "
        "audio file, together with --model",
    )
    parser.add_argument(
        "--top", metavar="N", type=int, default=10, help="how many (default: 10)"
    )
    parser.add_argument(
        "--layer",
        metavar="N",
        type=int,
        help="which of the layers, if the files hold several",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument(
        "--model", help="embeds QUERY; the model that the folder was made with"
    )
    add_device_argument(parser)


def run(arguments: Namespace) -> int:
    """Prints the files that are closest to one."""
    from muq_plugins.inference.commands.collection import find_query, load_folder
    from muq_plugins.inference.printing import shown

    entries = load_folder(arguments.folder)
    layer = _choose_layer(entries, arguments.layer)
    query = find_query(entries, arguments.query)
    if query is not None:
        vector = _vector(query, layer)
        entries = [entry for entry in entries if entry is not query]
        path = query.facts["path"]
    else:
        vector = _embed_query(entries, arguments, layer)
        path = arguments.query
    found = [
        {"path": shown(entry.facts["path"]), "similarity": similarity}
        for entry, similarity in rank(entries, vector, layer)[: max(arguments.top, 0)]
    ]
    if arguments.json:
        print(json.dumps({"query": shown(path), "layer": layer, "similar": found}))
        return 0
    print("rank  similarity  path")
    for place, row in enumerate(found, start=1):
        print(f"{place:4d}  {row['similarity']:10.4f}  {row['path']}")
    return 0


def rank(
    entries: list[Embedded], vector: np.ndarray, layer: int
) -> list[tuple[Embedded, float]]:
    """Sorts files by cosine similarity."""
    import numpy as np

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / max(np.linalg.norm(vector), 1e-12)

    vector = unit(vector)
    scored = [(entry, float(unit(_vector(entry, layer)) @ vector)) for entry in entries]
    return sorted(scored, key=lambda pair: -pair[1])


def _vector(entry: Embedded, layer: int) -> np.ndarray:
    return entry.means[entry.facts["layers"].index(layer)]


def _choose_layer(entries: list[Embedded], layer: int | None) -> int:
    """The layer to compare, which all files must hold."""
    layers, states = entries[0].facts["layers"], entries[0].facts["num_hidden_states"]
    if layer is None:
        if len(layers) > 1:
            raise CommandError(
                f"The files hold the layers {_listed(layers)}: choose one with --layer."
            )
        layer = layers[0]
    elif layer < 0:
        layer += states
    for entry in entries:
        if layer not in entry.facts["layers"]:
            raise CommandError(
                f"{entry.file} does not hold layer {layer}, only "
                f"{_listed(entry.facts['layers'])}: different layers cannot be "
                f"compared. Choose another --layer, or embed all files with this one."
            )
    return layer


def _listed(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _embed_query(
    entries: list[Embedded], arguments: Namespace, layer: int
) -> np.ndarray:
    """The mean embedding (width,) of a file that is not among the others."""
    from muq_plugins.inference.commands.collection import model_of

    query = arguments.query
    if not os.path.isfile(query):
        known = [
            path for entry in entries for path in (entry.facts["path"], entry.name)
        ]
        close = difflib.get_close_matches(query, known, n=3)
        near = f" Close to it: {', '.join(close)}." if close else ""
        raise CommandError(
            f"{query} is neither one of the {len(entries)} files embedded in "
            f"{arguments.folder} nor a file here.{near}"
        )
    if arguments.model is None:
        raise CommandError(
            f"{query} is not embedded in {arguments.folder}: give --model, the model "
            f"that the folder was made with ({entries[0].facts['model']}), to embed it."
        )
    from muq_plugins.data.audio import AudioError, audio_info
    from muq_plugins.inference.commands.embed import Embedding, load_model
    from muq_plugins.inference.commands.inputs import AudioInput
    from muq_plugins.inference.commands.resuming import Job
    from muq_plugins.inference.commands.running import compute

    facts = entries[0].facts
    model = load_model(arguments.model, arguments.device)
    work = Embedding(
        model, arguments.model, (layer,), "mean", facts["dtype"], BATCH_SECONDS
    )
    if work.fingerprint != facts["fingerprint"]:
        raise CommandError(
            f"--model {arguments.model} ({work.fingerprint}) is not the model that "
            f"{arguments.folder} was made with, {model_of(entries[0])}."
        )
    try:
        duration = audio_info(query).duration
    except AudioError as error:
        raise CommandError(str(error), code=1) from error
    job = Job(AudioInput(query, query), Path(), duration, {})
    [(_, arrays)] = compute(work, [job], BATCH_SECONDS, lambda seconds: None)
    if isinstance(arrays, str):
        raise CommandError(arrays, code=1)
    return arrays["embedding"][0]
