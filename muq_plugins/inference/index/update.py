"""Making an index of music, and bringing it up to date."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from muq_plugins.data.audio import AudioError, audio_info
from muq_plugins.data.locking import alone
from muq_plugins.data.scan import find_audio
from muq_plugins.inference.contracts import AudioModel
from muq_plugins.inference.index import storage
from muq_plugins.inference.index.database import Database
from muq_plugins.inference.index.entries import Entry, MusicIndexError
from muq_plugins.inference.index.faiss_neighbours import (
    EXACT_UP_TO,
    FaissNeighbours,
    require_faiss,
)
from muq_plugins.inference.index.music_index import check_model, faiss_path
from muq_plugins.inference.printing import shown


@dataclass
class Changes:
    """What an update has done."""

    added: int = 0  # files below the folder that was indexed
    changed: int = 0  # files below the folder that was indexed
    removed: int = 0  # files below the folder that was indexed
    unchanged: int = 0  # files below the folder that was indexed
    # files and folders that could not be read, and why
    problems: list[str] = field(default_factory=list)


@dataclass
class _Plan:
    todo: list[tuple[str, os.stat_result]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)


def update_index(
    folder: str | Path,
    music: str | Path,
    model: AudioModel,
    name: str,
    faiss_above: int = EXACT_UP_TO,
    begin: Callable[[int], Any] = lambda count: None,
    advance: Callable[[], Any] = lambda: None,
) -> Changes:
    """Makes an index hold exactly the audio files of a folder tree.

    Files of other folders stay in it. Each file is on disk as soon as it is embedded:
    after a kill, the same call goes on. Other processes that update the same index
    wait for their turn.
    """
    root = os.path.realpath(music)
    try:
        found, unlisted, _ = find_audio(root)
    except OSError as error:
        raise MusicIndexError(str(error)) from error
    if not found:
        raise MusicIndexError(
            f"There are no audio files in {music}. What is indexed stays: if all of "
            f"its music has really gone, remove the index."
        )
    folder = Path(folder)
    _prepare(folder)
    with alone(folder):
        if not storage.exists(folder):
            storage.create(folder, name, model.fingerprint, model.latent_width)
        database = Database(folder)
        try:
            database.check()
            check_model(database, model.fingerprint, name)
            if name != database.model:
                database.put_model(name)
            plan = _plan(database, root, found, unlisted)
            known = len(database) - len(plan.gone)
            if known + plan.changes.added > faiss_above:
                require_faiss()  # rather now than after hours
            database.remove(plan.gone)
            begin(len(plan.todo))
            for path, status in plan.todo:
                _embed(database, model, path, status, plan.changes)
                advance()
            _update_neighbours(database, faiss_above)
        finally:
            database.close()
    return plan.changes


def _prepare(folder: Path) -> None:
    """Makes the folder of an index; a folder of something else is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [name for name in os.listdir(folder) if name[0] != "."]
    except OSError as error:
        raise MusicIndexError(
            f"{folder} cannot be used for an index: {error}"
        ) from error
    if others and not (folder / storage.FILE).exists():
        raise MusicIndexError(
            f"{folder} holds {min(others)} and is not an index: give a new folder."
        )


def _plan(
    database: Database, root: str, found: list[str], unlisted: list[tuple[str, str]]
) -> _Plan:
    """Compares the files of a tree with those in the index."""
    plan, paths = _Plan(), [os.path.join(root, name) for name in found]
    known: dict[str, Entry] = {entry.path: entry for entry in database.entries()}
    for path in paths:
        entry = known.get(path)
        if entry is not None and entry.is_current():
            plan.changes.unchanged += 1
            continue
        try:
            # Before it is read: if it changes meanwhile, the next update sees it.
            status = os.stat(path)
        except OSError as error:
            _problem(database, path, f"missing ({error.strerror}).", plan.changes)
            continue
        if not stat.S_ISREG(status.st_mode):
            # To open a pipe is to wait for one who writes into it.
            words = "not a regular file. Leave it out."
            _problem(database, path, words, plan.changes)
            continue
        plan.todo.append((path, status))
        if entry is None:
            plan.changes.added += 1
        else:
            plan.changes.changed += 1
    # What cannot be seen now is not known to be gone.
    hidden = [os.path.join(root, name) for name, _ in unlisted]
    for name, reason in unlisted:
        place = shown(os.path.join(root, name))
        plan.changes.problems.append(
            f"{place}: cannot be listed ({reason}). What is indexed of it stays. "
            f"Check the permissions."
        )
    there = set(paths)
    for path in {**known, **database.problems()}:
        if path in there or not _is_below(path, root):
            continue
        if not any(_is_below(path, place) for place in hidden):
            plan.gone.append(path)
            plan.changes.removed += path in known
    return plan


def _embed(
    database: Database,
    model: AudioModel,
    path: str,
    status: os.stat_result,
    changes: Changes,
) -> None:
    """Puts one file into the index, or among the problems."""
    was_known = database.find(path) is not None
    try:
        duration = audio_info(path).duration
        latent = model.embed_file(path).detach().float().cpu().numpy().reshape(-1)
    except AudioError as error:
        words = str(error)
    else:
        if np.isfinite(latent).all():
            database.put(path, status.st_size, status.st_mtime_ns, duration, latent)
            return
        words = f"{path}: the model's latent is not finite. Leave the file out."
    changes.added -= not was_known
    changes.changed -= was_known
    _problem(database, path, words.removeprefix(f"{path}: "), changes)


def _problem(database: Database, path: str, words: str, changes: Changes) -> None:
    words = shown(words)
    database.put_problem(path, words)
    changes.problems.append(f"{shown(path)}: {words}")


def _update_neighbours(database: Database, faiss_above: int) -> None:
    """Makes the FAISS file hold what the index does, if there is to be one."""
    path = faiss_path(database)
    for file in database.folder.glob("latents-*.faiss"):
        # The others are of an index that was here before.
        if file != path or len(database) <= faiss_above:
            file.unlink()
    if len(database) > faiss_above and not _is_updated(path, database):
        FaissNeighbours.build(*database.latents()).save(path)


def _is_updated(path: Path, database: Database) -> bool:
    """Brings the FAISS file up to date; False if it has to be made anew."""
    try:
        neighbours = FaissNeighbours.load(path)
    except MusicIndexError:
        return False  # missing or damaged
    ids = database.ids()
    if not neighbours.fits(len(ids)):
        return False
    if neighbours.update(ids, database.latents):
        neighbours.save(path)
    return True


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))
