"""Making an index of music, and bringing it up to date."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from muq_plugins.data.audio import AudioError, audio_info
from muq_plugins.data.loudness import check_loudness
from muq_plugins.data.scan import Found, find_audio
from muq_plugins.data.shares import is_own, own_share
from muq_plugins.data.sources import hash_file
from muq_plugins.errors import UserError, shown
from muq_plugins.files import locked
from muq_plugins.inference.index.store import (
    FILE,
    TURN,
    Entry,
    Store,
    as_vector,
    create,
)
from muq_plugins.inference.space import Space, check_space
from muq_plugins.lobes.lengths import absolute_lengths, length_mask
from muq_plugins.lobes.mulan import AudioModel

if TYPE_CHECKING:
    from muq_plugins.inference.muq import MuQ


class EncoderLayer:
    """An encoder as the model of an index: vectors of whole tracks of one layer."""

    def __init__(self, model: MuQ, layer: int):
        self.model = model
        self.layer = layer
        self.latent_width = model.mods.encoder.width
        self.sample_rate = model.sample_rate
        self.fingerprint = model.fingerprint

    def space(self, loudness: float | None = None) -> Space:
        """See `MuQ.space`."""
        return self.model.space(self.layer, loudness)

    def embed_file(self, path: str, loudness: float | None = None) -> Tensor:
        """The vector (width,) of a file of any length, in constant memory."""
        return self.model.embed_track(path, self.layer, loudness)

    def embed_audio(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """The vectors (batch, width) of clips of a window at most."""
        out = self.model(wavs, wav_lens)
        hidden = out.hidden_states[self.layer].float()
        lengths = absolute_lengths(out.lens, *hidden.shape[1::-1])
        if lengths is None:
            return normalize(hidden.mean(1), dim=1)
        mask = length_mask(lengths, hidden.shape[1], hidden.device)
        return normalize(torch.where(mask[..., None], hidden, 0).sum(1), dim=1)


@dataclass
class Changes:
    """What an update has done to the files of a folder, and what it could not read."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    files: int = 0  # of the whole index afterwards
    problems: list[str] = field(default_factory=list)


def update_index(
    folder: str | Path,
    music: str | Path,
    model: AudioModel,
    name: str,
    progress: Callable[[list], Iterable] = iter,
    say: Callable[[str], Any] | None = None,
    loudness: float | None = None,
) -> Changes:
    """Makes an index hold exactly the audio files of a folder tree.

    Files of other folders stay in it. Each file is on disk as soon as it is embedded:
    after a kill, the same call goes on. A file that has moved is known by its content.
    Other updates of the same index wait for their turn, which `say` is told. Several
    processes of one machine embed a share each, see `is_own`.

    `model` embeds the files, at a `loudness` if there is one. `name` is where it was
    loaded from, for those who search later. `progress` passes on the files that there
    are to embed, such as `tqdm`.
    """
    check_loudness(loudness)
    root = os.path.realpath(music)
    found = find_audio(root)
    if not found.paths:
        raise UserError(
            f"There are no audio files in {music}. What is indexed stays: if all of "
            f"its music has gone, run `muq-plugins index --prune --out {folder}`."
        )
    folder, space = Path(folder), model.space(loudness)
    rank, _ = own_share()
    own = {os.path.join(root, path) for path in found.paths if is_own(path)}
    _prepare(folder)
    # Whoever works alone waits for the first of several processes.
    with locked(folder, f".lock{rank or ''}", say=say), ExitStack() as opened:
        with locked(folder, TURN):
            if not (folder / FILE).is_file():
                create(folder, name, space, model.latent_width)
            store = opened.enter_context(closing(Store(folder)))
            check_space(store.space, space, str(folder), name)
            damaged, changes = store.check(), Changes()
            store.put_origin(name, root)
            todo = _compare(store, root, found, damaged, own, changes)
            changes.problems += [] if rank else found.problems(root)
        for path in progress(todo):
            _embed(store, model, path, changes, damaged)
        store.compact()
        changes.files = len(store)
    return changes


def prune_index(
    folder: str | Path, say: Callable[[str], Any] | None = None
) -> list[str]:
    """Takes out the files of all folders that are not there any more; their paths."""
    Store(folder).close()  # says if there is none, before a lock is made
    with locked(folder, say=say), closing(Store(folder)) as store:
        gone = [entry.path for entry in store.entries() if _has_gone(entry.path)]
        store.remove([*gone, *filter(_has_gone, store.problems())])
        with locked(folder, TURN):
            store.check()  # mends a file of vectors that was cut
        store.compact()
    return gone


def _prepare(folder: Path) -> None:
    """Makes the folder of an index; a folder of something else is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    others = [name for name in os.listdir(folder) if name[0] != "."]
    if others and not (folder / FILE).exists():
        raise UserError(
            f"{folder} holds {min(others)} and is not an index: give a new folder."
        )


def _compare(
    store: Store,
    root: str,
    found: Found,
    damaged: set[int],
    own: set[str],
    changes: Changes,
) -> list[str]:
    """The `own` files of a tree to embed; what has moved or gone is noted."""
    todo, paths = [], [os.path.join(root, name) for name in found.paths]
    known: dict[str, Entry] = {entry.path: entry for entry in store.entries()}
    listed, moved = set(paths), set()
    unlisted: dict[int, list[Entry]] = {}
    for entry in known.values():
        if entry.id not in damaged and entry.path not in listed:
            unlisted.setdefault(entry.bytes, []).append(entry)

    @functools.cache
    def lost(size: int) -> dict[Any, list[Entry]]:
        """Entries whose files may be elsewhere, by what they are known by there."""
        entries: dict[Any, list[Entry]] = {}
        for entry in unlisted.get(size, ()):
            if _has_gone(entry.path):
                # Versions of before did not note the content.
                name = os.path.basename(entry.path), entry.modified
                entries.setdefault(entry.content or name, []).append(entry)
            elif is_below(entry.path, root) and entry.is_current():
                # Found by another way now, through a link that is new.
                real = os.path.realpath(entry.path)
                entries.setdefault(real, []).append(entry)
        return entries

    @functools.cache
    def real() -> set[str]:
        """The listed files, whatever links they are found by."""
        return set(map(os.path.realpath, paths))

    for path in paths:
        entry = known.get(path)
        if entry is not None and entry.is_current() and entry.id not in damaged:
            changes.unchanged += path in own
        elif entry is None and (entry := _has_moved(store, path, lost)):
            moved.add(entry.path)
            changes.moved += 1
        elif path in own:
            todo.append(path)
    # What cannot be seen now is not known to be gone, nor what has come since the
    # folder was listed, perhaps hours ago.
    hidden = [os.path.join(root, name) for name, _ in found.unreadable]
    missing = {*known, *store.problems()} - listed - moved
    gone = [
        path
        for path in missing
        if is_below(path, root)
        and not any(is_below(path, x) for x in hidden)
        and (not os.path.isfile(path) or os.path.realpath(path) in real())
    ]
    store.remove(gone)
    changes.removed += sum(path in known for path in gone)
    return todo


def _has_moved(
    store: Store, path: str, lost: Callable[[int], dict[Any, list[Entry]]]
) -> Entry | None:
    """The `lost` entry whose file a new one is, and which has its path from now on."""
    try:
        status = os.stat(path)
        entries = lost(status.st_size)
        if not entries:
            return None
        content, key = None, os.path.realpath(path)
        if key not in entries:
            key = content = _content(path)
        if key not in entries:
            key = os.path.basename(path), status.st_mtime_ns
        if key in entries:
            entry, *others = entries.pop(key)
            if others:
                entries[key] = others
            store.move(entry, path, status.st_mtime_ns, content or entry.content)
            return entry
    except OSError:
        pass  # to embed it will say why
    return None


def _embed(
    store: Store, model: AudioModel, path: str, changes: Changes, damaged: set[int]
) -> None:
    """Puts one file into the index, or among the problems."""
    known = store.find(path)
    try:
        # Before it is read: if it changes meanwhile, the next update sees it.
        status = os.stat(path) if os.path.exists(path) else None
        duration = audio_info(path).duration
        content = _content(path)
        if known and known.content == content and known.id not in damaged:
            # Copied or restored: only its time is another.
            store.move(known, path, status.st_mtime_ns, content)
            changes.unchanged += 1
            return
        vector = as_vector(model.embed_file(path, store.space.loudness))
    except (AudioError, OSError) as error:
        words = str(error)
    else:
        if np.isfinite(vector).all():
            size, modified = status.st_size, status.st_mtime_ns
            store.put(path, size, modified, duration, vector, content)
            changes.added += known is None
            changes.changed += known is not None
            return
        words = f"{path}: what the model makes of it is not finite. Leave the file out."
    words = shown(words.removeprefix(f"{path}: "))
    store.put_problem(path, words)
    changes.problems.append(f"{shown(path)}: {words}")


def _content(path: str) -> bytes:
    """A hash of all bytes of a file."""
    return bytes.fromhex(hash_file(path, hashlib.blake2b(digest_size=16)))


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
