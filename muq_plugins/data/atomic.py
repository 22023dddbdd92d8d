"""Files and folders that are never seen half written."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a model is saved as: an older one may be replaced, anything else is not ours.
MODEL_FILE = "config.json"
MODEL_SUFFIXES = (".bin", ".ckpt", ".json", ".safetensors", ".yaml")


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a kill leaves the old content or the new, never a part.

    Several processes may write the same file; the last one wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, as another process may be writing the same file.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replace_model_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Writes the folder of a model so that it is complete or not there."""
    folder = Path(folder)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _refuse_other_content(folder, {path.name for path in unfinished.iterdir()})
        old = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(unfinished, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _refuse_other_content(folder: Path, names: set[str]) -> None:
    """Raises FileExistsError for what a model would not replace."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a folder for the model.")
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
        raise FileExistsError(
            f"{folder} holds more than a model ({listed}), which would be lost: give "
            f"a folder of its own for the model."
        )
