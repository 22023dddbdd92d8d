"""The embeddings in a folder, as one collection."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muq_plugins.inference.commands.options import CommandError
from muq_plugins.inference.commands.records import (
    RecordError,
    find_records,
    read_record,
)


@dataclass
class Embedded:
    """A file of embeddings."""

    file: Path  # where it lies
    name: str  # its path below the folder, without the format's extension
    facts: dict[str, Any]  # what it says about itself
    means: np.ndarray  # mean over time of each of its layers (layers, width)


def load_folder(folder: str | Path) -> list[Embedded]:
    """Reads all embeddings of a folder tree."""
    if not os.path.isdir(folder):
        raise CommandError(f"{folder} is not a folder: give the --out of an `embed`.")
    entries: dict[str, Embedded] = {}
    for file in find_records(folder):
        try:
            record = read_record(file)
        except RecordError as error:
            raise CommandError(
                f"{error} Remove it, or run `muq-plugins embed` again."
            ) from error
        if record.facts.get("command") != "embed":
            continue
        means = record.arrays["embedding"]
        if means.ndim == 3:
            means = means.mean(axis=1)
        name = file.relative_to(folder).with_suffix("").as_posix()
        entry = Embedded(file, name, record.facts, means)
        first = entries.setdefault(name, entry)
        if first is not entry:
            raise CommandError(
                f"{first.file} and {file} embed the same audio: give a folder with "
                f"one format."
            )
    if not entries:
        raise CommandError(
            f"{folder} holds no embeddings: make them with `muq-plugins embed MODEL "
            f"INPUT --out {folder}`."
        )
    first, *others = entries.values()
    for other in others:
        if other.facts["fingerprint"] != first.facts["fingerprint"]:
            raise CommandError(
                f"{first.file} was made with the model {model_of(first)}, {other.file} "
                f"with {model_of(other)}: embeddings of different models cannot be "
                f"compared. Give a folder with those of one model."
            )
    return list(entries.values())


def find_query(entries: list[Embedded], query: str) -> Embedded | None:
    """Finds one of the embedded files."""
    absolute = os.path.abspath(query)
    found = []
    for entry in entries:
        paths = entry.facts["path"], str(entry.file)
        if absolute in map(os.path.abspath, paths) or query == entry.name:
            return entry
        if any(path.endswith(f"/{query}") for path in (*paths, f"/{entry.name}")):
            found.append(entry)
    if len(found) > 1:
        names = ", ".join(entry.facts["path"] for entry in found[:5])
        raise CommandError(
            f"{len(found)} embedded files are called {query}: {names}"
            f"{', ...' if len(found) > 5 else ''}. Give more of the path."
        )
    return found[0] if found else None


def model_of(entry: Embedded) -> str:
    """The model that a file was made with, in words."""
    return f"{entry.facts['model']} ({entry.facts['fingerprint']})"
