"""Captions and tags of a folder of recordings, from one file.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from speechbrain.utils.logger import get_logger

from muq_plugins.data.preparation import Manifests

logger = get_logger(__name__)


def add_captions(
    manifests: Manifests, captions_file: str | Path, data_folder: str | Path
) -> Manifests:
    """Adds what a file knows about recordings to their manifests.

    The file is a JSON object from the path of a recording, below the data folder and
    with "/", to its caption, or to an object with any of ``caption``, ``captions``,
    ``tags`` and the labels that `CaptionWriter` knows. ``families`` is a list of all
    families of instruments, by which recordings are tagged; without it, by ``family``.
    ``piece`` names a group of recordings that intervals are computed over. Recordings
    that are not in the file are left out, and the log says how many.

    Arguments
    ---------
    manifests : Manifests
        Of the data folder.
    captions_file : str or Path
        The file.
    data_folder : str or Path
        The folder that its paths start from.

    Returns
    -------
    Manifests
        The recordings that the file knows.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such object, or knows no recording of one of the parts.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "captions.json").write_text('{"a.flac": "A calm song."}')
    >>> part = {"a": {"wav": str(folder / "a.flac"), "duration": 2.5}}
    >>> found = add_captions(
    ...     Manifests(folder, part, part, part), folder / "captions.json", folder)
    >>> found.train["a"]["caption"]
    'A calm song.'
    """
    known = _read(Path(captions_file))
    parts = {
        name: {
            clip_id: {**entry, **known[path]}
            for clip_id, entry in getattr(manifests, name).items()
            if (path := _below(entry["wav"], data_folder)) in known
        }
        for name in ("train", "valid", "test")
    }
    for name, part in parts.items():
        before = getattr(manifests, name)
        if not part:
            first = _below(next(iter(before.values()))["wav"], data_folder)
            raise ValueError(
                f"{captions_file} knows none of the {len(before)} recordings of the "
                f"{name} part, such as {first!r}; it has {len(known)} paths, such as "
                f"{next(iter(known), 'none')!r}. They start from {data_folder}."
            )
        if len(part) < len(before):
            logger.warning(
                f"{len(before) - len(part)} of {len(before)} recordings of the {name} "
                f"part are left out: they are not in {captions_file}."
            )
    return dataclasses.replace(manifests, **parts)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of captions {path}: check the path.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a JSON object from the paths of recordings to their "
            f"captions, not {type(content).__name__}."
        )
    known = {}
    for name, value in content.items():
        entry = {"caption": value} if isinstance(value, str) else value
        if not isinstance(entry, dict) or {"wav", "duration"} & entry.keys():
            raise ValueError(
                f"{path}: {name!r} must be a caption or an object with caption, "
                f"captions, tags or labels, and neither wav nor duration; it is "
                f"{str(value)[:80]!r}."
            )
        known[name] = entry
    return known


def _below(path: str, folder: str | Path) -> str:
    """A path as it is written in the file."""
    return Path(path).relative_to(folder).as_posix()
