"""Files that are complete or not there, one lock, JSON and JSON lines."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from muq_plugins.errors import UserError

# What a model is saved as: an older one may be replaced, anything else is not ours.
MODEL_FILE = "config.json"
MODEL_SUFFIXES = (".bin", ".ckpt", ".json", ".safetensors", ".yaml")
POLL_SECONDS = 0.2


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of another when it is complete.

    A kill or a power cut leaves the old file or the new one, never a part. Of several
    processes that write the same file, the last one wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own, as another process may be writing too; short, as names have a limit.
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # some writers put a file there that nobody else may read
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Writes a whole file at once."""
    with atomic(path) as partial:
        partial.write_bytes(content)


def sweep(folder: str | os.PathLike, locks: Iterable[Path] = ()) -> None:
    """Removes what writers that were killed have left.

    Call it when there are none; nothing is done if one of theirs is held.
    """
    with ExitStack() as stack:
        for lock in locks:
            if not stack.enter_context(locked(lock.parent, lock.name, wait=False)):
                return
        for path in Path(folder).glob(".*.partial"):
            path.unlink(missing_ok=True)


def flush(path: str | os.PathLike) -> None:
    """Makes sure that a file or folder survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Gives a folder to write a model to, which replaces an older model at the end.

    A folder that holds anything but a model is refused, as it would be lost. A kill
    between the two renames leaves the older model beside it, as NAME.HEX.old.
    """
    folder = Path(folder)
    place = Path(os.path.realpath(folder))  # a link stays one
    if place in (here := Path.cwd().resolve(), *here.parents):
        raise UserError(
            f"{folder} is the folder that this runs in, or above it, and would be "
            f"replaced: give a folder of its own for the model."
        )
    # Of its own, as anything may have a name that can be guessed.
    token = uuid.uuid4().hex[:12]
    unfinished = place.with_name(f".{token}.partial")
    old = place.with_name(f"{place.name}.{token}.old")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _refuse_other_content(folder, {path.name for path in unfinished.iterdir()})
        if place.exists():
            os.rename(place, old)
        os.rename(unfinished, place)
    finally:
        if old.exists() and not place.exists():
            os.rename(old, place)
        for path in (unfinished, old):
            shutil.rmtree(path, ignore_errors=True)


def _refuse_other_content(folder: Path, names: set[str]) -> None:
    """Refuses what a model would not replace."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder for the model.")
    present = list(folder.iterdir()) if folder.exists() else []
    others = sorted(
        path.name
        for path in present
        if path.name not in names and path.suffix not in MODEL_SUFFIXES
    )
    if present and not (folder / MODEL_FILE).is_file():
        others = others or sorted(path.name for path in present)
    if others:
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise UserError(
            f"{folder} holds more than a model ({listed}), which would be lost: give "
            f"a folder of its own for the model."
        )


@contextmanager
def locked(
    folder: str | os.PathLike,
    name: str = ".lock",
    wait: bool = True,
    say: Callable[[str], Any] | None = None,
) -> Iterator[bool]:
    """Keeps other processes and threads out of the block, as far as they lock as well.

    Gives True; or False without waiting, if `wait` is false and somebody else is there.
    `say` is told a line before a wait. The lock ends with its process, however that
    ends; its file stays, and means nothing. The folder is made if it is missing. It
    must be on a file system with `flock`: local disks, NFS (Linux 2.6.12 or later),
    Lustre mounted with ``-o flock``. Elsewhere filelock warns and makes a file do.
    """
    lock = FileLock(Path(folder, name), thread_local=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if wait:
                if say is not None:
                    say(f"Waiting for another process that works in {folder} ...")
                lock.acquire(poll_interval=POLL_SECONDS)
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"{folder} cannot be locked ({error}): choose a folder that you may "
                f"write to, on a disk that knows locks."
            ) from error
        yield lock.is_locked
    finally:
        lock.release()


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    # ASCII, since file names that are not UTF-8 have no other way to be written.
    replace_file(path, json.dumps(content, indent=1).encode())


def read_json(path: str | os.PathLike, remedy: str = "make it again") -> Any:
    """Reads a JSON file; a damaged one is an error with what to do about it."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}.") from error


def read_json_lines(path: str | os.PathLike) -> list[dict]:
    """The objects of a file with one a line; none without a file.

    A line that was cut off when its writer was killed is left out.
    """
    records = []
    for line in Path(path).read_bytes().splitlines() if Path(path).exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def open_json_lines(path: str | os.PathLike) -> TextIO:
    """Opens a file of JSON lines for appending, and ends a line that was cut off.

    Each line is on its way to the disk as soon as it is written.
    """
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return open(path, "a", encoding="utf-8", buffering=1)


def append_json_line(file: TextIO, record: dict) -> None:
    """Appends one object to a file from `open_json_lines`."""
    file.write(json.dumps(record) + "\n")
