"""Making an index of music, and bringing it up to date."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from muq_plugins.data.audio import AudioError, audio_info
from muq_plugins.data.scan import find_audio, left_out_error
from muq_plugins.data.windows import mean_of_frames
from muq_plugins.errors import UserError, shown
from muq_plugins.files import locked
from muq_plugins.inference.index.store import FILE, Entry, Store, create
from muq_plugins.lobes.mulan import AudioModel
from muq_plugins.lobes.parts import encoder_fingerprint

if TYPE_CHECKING:
    from muq_plugins.inference.muq import MuQ

BLOCK = 1 << 20


class EncoderLayer:
    """An encoder as the model of an index: unit means of one hidden state."""

    def __init__(self, model: MuQ, layer: int):
        self.model = model
        self.layer = layer
        self.encoder = model.mods.encoder
        self.latent_width = self.encoder.width
        self.fingerprint = encoder_fingerprint(self.encoder)

    def embed_file(self, path: str) -> Tensor:
        """The vector (width,) of a file of any length, in constant memory."""
        seconds = audio_info(path).duration
        least = self.encoder.min_samples / self.encoder.sample_rate
        if seconds < least:
            words = f"{seconds:.3f} s, a frame needs {least:.3f} s"
            raise AudioError(path, "too short", words)
        mean = mean_of_frames(self.model.embed_long(path, layer=self.layer))
        return torch.nn.functional.normalize(mean, dim=0).float()


@dataclass
class Changes:
    """What an update has done to the files of a folder, and what it could not read."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    problems: list[str] = field(default_factory=list)


def update_index(
    folder: str | Path,
    music: str | Path,
    model: AudioModel,
    name: str,
    progress: Callable[[list], Iterable] = iter,
    say: Callable[[str], Any] | None = None,
) -> Changes:
    """Makes an index hold exactly the audio files of a folder tree.

    Files of other folders stay in it. Each file is on disk as soon as it is embedded:
    after a kill, the same call goes on. A file that has moved is known by its content.
    Other processes that update the same index wait for their turn, which `say` is told.

    `model` embeds the files; with an attribute ``layer`` it is an encoder. `name` is
    where it was loaded from, for those who search later. `progress` passes on the files
    that there are to embed, such as `tqdm`.
    """
    root = os.path.realpath(music)
    try:
        found, unlisted, left_out, _ = find_audio(root)
        words = "" if found else f"There are no audio files in {music}."
    except OSError as error:
        words = str(error)
    if words:
        raise UserError(
            f"{words} What is indexed stays: if all of its music has gone, run "
            f"`muq-plugins index --prune --out {folder}`."
        )
    folder, layer = Path(folder), getattr(model, "layer", None)
    _prepare(folder)
    with locked(folder, say=say):
        if not (folder / FILE).is_file():
            create(folder, name, model.fingerprint, model.latent_width, layer)
        with closing(Store(folder)) as store:
            check_model(store, model, name)
            damaged, changes = store.check(), Changes()
            store.put_origin(name, root)
            todo = _compare(store, root, found, unlisted, damaged, changes)
            changes.problems += [
                shown(str(left_out_error(os.path.join(root, name))))
                for name in left_out
            ]
            for path, status in progress(todo):
                _embed(store, model, path, status, changes)
            store.compact()
    return changes


def prune_index(
    folder: str | Path, say: Callable[[str], Any] | None = None
) -> list[str]:
    """Takes out the files of all folders that are not there any more; their paths."""
    Store(folder).close()  # says if there is none, before a lock is made
    with locked(folder, say=say), closing(Store(folder)) as store:
        gone = [entry.path for entry in store.entries() if _has_gone(entry.path)]
        store.remove([*gone, *filter(_has_gone, store.problems())])
        store.compact()
    return gone


def check_model(store: Store, model: AudioModel, name: str) -> None:
    """Refuses a model, or a layer, that an index was not made with."""
    there = f"{store.model} ({store.fingerprint})"
    if model.fingerprint != store.fingerprint:
        raise UserError(
            f"{store.folder} is an index of another model: it was made with {there}, "
            f"this is {name} ({model.fingerprint}). Vectors of different models cannot "
            f"be compared: use that model, or make a new index with this one."
        )
    layer = getattr(model, "layer", None)
    if layer != store.layer:
        raise UserError(
            f"{store.folder} holds layer {store.layer} of {there}, this is layer "
            f"{layer}: give --layer {store.layer}, or make a new index."
        )


def _prepare(folder: Path) -> None:
    """Makes the folder of an index; a folder of something else is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [name for name in os.listdir(folder) if name[0] != "."]
    except OSError as error:
        raise UserError(f"{folder} cannot be used for an index: {error}") from error
    if others and not (folder / FILE).exists():
        raise UserError(
            f"{folder} holds {min(others)} and is not an index: give a new folder."
        )


def _compare(
    store: Store,
    root: str,
    found: list[str],
    unlisted: list[tuple[str, str]],
    damaged: set[int],
    changes: Changes,
) -> list[tuple[str, os.stat_result]]:
    """The files of a tree to embed; what has moved or gone is noted in the index."""
    todo, paths = [], [os.path.join(root, name) for name in found]
    known: dict[str, Entry] = {entry.path: entry for entry in store.entries()}
    by_size: dict[int, list[Entry]] = {}
    for entry in known.values():
        by_size.setdefault(entry.bytes, []).append(entry)
    moved: set[str] = set()
    for path in paths:
        entry = known.get(path)
        if entry is not None and entry.is_current() and entry.id not in damaged:
            changes.unchanged += 1
            continue
        try:
            # Before it is read: if it changes meanwhile, the next update sees it.
            status = os.stat(path)
        except OSError as error:
            _problem(store, path, f"missing ({error.strerror}).", changes)
            continue
        if not stat.S_ISREG(status.st_mode):
            # To open a pipe is to wait for one who writes into it.
            _problem(store, path, "not a regular file. Leave it out.", changes)
            continue
        same = by_size.get(status.st_size, []) if entry is None else []
        same = [x for x in same if x.path not in moved and x.id not in damaged]
        if before := _moved_from(same, path, status):
            store.move(before, path, status.st_mtime_ns, _content(path))
            moved.add(before.path)
            changes.moved += 1
            continue
        todo.append((path, status))
    # What cannot be seen now is not known to be gone.
    hidden = [os.path.join(root, name) for name, _ in unlisted]
    for name, reason in unlisted:
        place = shown(os.path.join(root, name))
        changes.problems.append(
            f"{place}: cannot be listed ({reason}). What is indexed of it stays. "
            f"Check the permissions."
        )
    missing = {*known, *store.problems()} - {*paths, *moved}
    gone = [
        path
        for path in missing
        if is_below(path, root) and not any(is_below(path, x) for x in hidden)
    ]
    store.remove(gone)
    changes.removed += sum(path in known for path in gone)
    return todo


def _moved_from(
    same_size: list[Entry], path: str, status: os.stat_result
) -> Entry | None:
    """The file of the index that this one was, under a path that has gone."""
    gone = [entry for entry in same_size if _has_gone(entry.path)]
    content = None
    for entry in gone:
        if entry.content is None:  # indexed by a version that did not note it
            name = os.path.basename(entry.path)
            if (name, entry.modified) == (os.path.basename(path), status.st_mtime_ns):
                return entry
            continue
        try:
            content = content or _content(path)
        except OSError:
            return None  # to embed it will say why
        if content == entry.content:
            return entry
    return None


def _embed(
    store: Store,
    model: AudioModel,
    path: str,
    status: os.stat_result,
    changes: Changes,
) -> None:
    """Puts one file into the index, or among the problems."""
    was_known = store.find(path) is not None
    try:
        duration = audio_info(path).duration
        content = _content(path)
        vector = model.embed_file(path).detach().float().cpu().numpy().reshape(-1)
    except (AudioError, OSError) as error:
        words = str(error)
    else:
        if np.isfinite(vector).all():
            modified = status.st_mtime_ns
            store.put(path, status.st_size, modified, duration, vector, content)
            changes.added += not was_known
            changes.changed += was_known
            return
        words = f"{path}: what the model makes of it is not finite. Leave the file out."
    _problem(store, path, words.removeprefix(f"{path}: "), changes)


def _problem(store: Store, path: str, words: str, changes: Changes) -> None:
    words = shown(words)
    store.put_problem(path, words)
    changes.problems.append(f"{shown(path)}: {words}")


def _content(path: str) -> bytes:
    """A hash of all bytes of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.digest()


def _has_gone(path: str) -> bool:
    """Whether there is nothing; what may not be seen is not known to be gone."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder or deeper."""
    return path.startswith(os.path.join(folder, ""))
