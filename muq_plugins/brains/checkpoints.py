"""Checkpoints that are either complete or not there."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    ckpt_recency,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, ddp_broadcast, if_main_process
from speechbrain.utils.logger import get_logger

from muq_plugins.errors import UserError
from muq_plugins.files import flush
from muq_plugins.lobes.finite import is_finite

logger = get_logger(__name__)

UNFINISHED = "unfinished"  # folder in which a checkpoint is written
SIZES = "SIZES.json"  # what tells a complete checkpoint from a damaged one


class CheckpointError(UserError):
    """A checkpoint cannot be written or read; the message says what to do."""


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, safe against being interrupted at any moment.

    The plain one writes its metadata first and the weights afterwards, so
    that a killed process leaves a newest checkpoint that cannot be loaded. Here a
    checkpoint is written in a folder of its own, flushed to the disk, and then
    moved to its place in one step. If the newest checkpoint is damaged all the
    same, the one before it is used, and the log says so.

    Arguments
    ---------
    checkpoints_dir : str
        Folder of the checkpoints.
    recoverables : dict or None
        Name to object, as for SpeechBrain's Checkpointer.
    **kwargs : dict
        Further arguments of SpeechBrain's Checkpointer.

    Example
    -------
    >>> model = torch.nn.Linear(1, 1)
    >>> checkpointer = AtomicCheckpointer(getfixture("tmpdir"), {"model": model})
    >>> saved = checkpointer.save_checkpoint(meta={"loss": torch.tensor(0.5)})
    >>> checkpointer.recover_if_possible().meta["loss"]
    0.5
    """

    def __init__(self, checkpoints_dir, recoverables=None, **kwargs):
        # SpeechBrain makes the folder right here, but an experiment that is refused
        # must leave no trace, and its objects are built first.
        super().__init__(os.curdir, recoverables, **kwargs)
        self.checkpoints_dir = Path(checkpoints_dir)
        # SpeechBrain forgets this for recoverables that the constructor gets, and
        # loading a checkpoint that lacks one of them would be a bare KeyError.
        self.optional_recoverables = {
            name: self.optional_recoverables.get(name, False)
            for name in self.recoverables
        }

    def save_checkpoint(
        self, meta=None, end_of_epoch=True, name=None, verbosity=20
    ) -> Checkpoint | None:
        """Writes a checkpoint completely, or raises and leaves no trace.

        Arguments
        ---------
        meta : dict or None
            Facts to store with it, such as the step; scalars of torch and numpy
            become plain numbers.
        end_of_epoch : bool
            Stored in the metadata.
        name : str or None
            Name of the checkpoint; by default the time of day makes one.
        verbosity : int
            Logging level of the message.

        Returns
        -------
        Checkpoint or None
            The checkpoint, on the main process.

        Raises
        ------
        CheckpointError
            If it cannot be written, for example on a full disk, or a tensor is not
            finite. All earlier checkpoints are still there.
        """
        home, unfinished = self.checkpoints_dir, self.checkpoints_dir / UNFINISHED
        name = name or time.strftime("%Y-%m-%d+%H-%M-%S+") + str(time.time_ns())
        # Every process must know, or the others would wait for this one.
        name, bad = ddp_broadcast((name, self._not_finite()), src=0)
        if bad is not None:
            raise CheckpointError(
                f"No checkpoint is written to {home}, because values of {bad} are NaN "
                f"or infinite: training has diverged. Checkpoints before it, if any, "
                f"are as they were. Train in another --output_folder with a lower "
                f"learning rate or with --precision fp32."
            )
        self._make_folder()
        meta = {key: _plain(value) for key, value in (meta or {}).items()}
        saved = None
        try:
            if if_main_process():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            self.checkpoints_dir = unfinished
            saved = super().save_checkpoint(meta, end_of_epoch, name, verbosity)
            if if_main_process():
                saved = _publish(saved, home)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            free = shutil.disk_usage(home).free / 2**30
            raise CheckpointError(
                f"Cannot write a checkpoint to {home}: {error} ({free:.1f} GiB free on "
                f"that disk). Checkpoints before it, if any, are complete: make room "
                f"or choose another disk, then run the same command again to go on."
            ) from error
        finally:
            self.checkpoints_dir = home
        ddp_barrier()
        return saved

    def find_checkpoints(
        self,
        importance_key=None,
        max_key=None,
        min_key=None,
        ckpt_predicate=None,
        max_num_checkpoints=None,
    ) -> list[Checkpoint]:
        """Finds checkpoints, without damaged ones, the newest one first.

        The newest one has the highest step, whatever the clock said; SpeechBrain goes
        by the clock, which may have been wrong or may be another machine's.
        """
        if importance_key is None and max_key is None and min_key is None:
            importance_key = newest
        elif importance_key is ckpt_recency:
            importance_key = newest
        found = super().find_checkpoints(
            importance_key, max_key, min_key, ckpt_predicate
        )
        complete = [checkpoint for checkpoint in found if is_complete(checkpoint.path)]
        return complete[:max_num_checkpoints]

    def recover_if_possible(self, *args, **kwargs) -> Checkpoint | None:
        """Loads the first of `find_checkpoints` that can be; None if there are none.

        Raises
        ------
        CheckpointError
            If there are checkpoints but none can be loaded: training from
            scratch over them would lose them silently.
        """
        self._make_folder()
        damaged = [
            checkpoint.path
            for checkpoint in self.list_checkpoints()
            if not is_complete(checkpoint.path)
        ]
        for path in damaged:
            logger.warning(f"Ignoring the damaged checkpoint {path}")
        reason = ""
        for checkpoint in self.find_checkpoints(*args, **kwargs):
            try:
                self.load_checkpoint(checkpoint)
                if bad := self._not_finite():
                    raise ValueError(f"values of {bad} are NaN or infinite")
            except Exception as error:
                if "loading state_dict" in str(error):
                    raise CheckpointError(
                        f"The checkpoint {checkpoint.path} does not fit the model of "
                        f"this experiment: {error}\nRun with the settings it was made "
                        f"with, or choose another --output_folder."
                    ) from error
                logger.warning(f"Cannot load {checkpoint.path}: {error}")
                damaged.append(checkpoint.path)
                reason = f"; the last one: {error}"
            else:
                return checkpoint
        if damaged:
            raise CheckpointError(
                f"None of the checkpoints in {self.checkpoints_dir} can be loaded "
                f"({', '.join(path.name for path in damaged)}{reason}). Delete "
                f"the folder to start afresh, or restore it from a copy."
            )
        return None

    def _make_folder(self) -> None:
        """Makes the folder, so that training does not find out late that it cannot."""
        try:
            self.checkpoints_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"Cannot make the checkpoint folder {self.checkpoints_dir}: {error}. "
                f"Choose another --output_folder or change its permissions."
            ) from error

    def _list_checkpoint_dirs(self) -> list[Path]:
        """There are none before the folder is made."""
        return super()._list_checkpoint_dirs() if self.checkpoints_dir.is_dir() else []

    def _not_finite(self) -> str | None:
        """The first tensor of modules and optimizers that is not finite."""
        states = {
            name: part.state_dict()
            for name, part in self.recoverables.items()
            if hasattr(part, "state_dict")
        }
        return next((name for name, t in _tensors(states) if not is_finite(t)), None)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested dictionaries and lists, with their names."""
    if torch.is_tensor(state):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, (list, tuple)):
        for place, value in enumerate(state):
            yield from _tensors(value, f"{name}.{place}")


def newest(checkpoint: Checkpoint) -> tuple[int, float]:
    """Orders checkpoints: by step; those that say none, or the same, by the clock."""
    return checkpoint.meta.get("step", 0), ckpt_recency(checkpoint)


@register_checkpoint_hooks
class RandomStates:
    """The states of all global random generators, as a recoverable.

    Training draws its own random numbers from keys, so that a resumed run does
    not depend on these; they are kept for whatever else draws random numbers.
    """

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Writes the states."""
        kind, keys, position, has_gauss, gauss = numpy.random.get_state()
        version, internal, gauss_next = random.getstate()
        states = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, torch.from_numpy(keys.astype("int64")), position],
            "numpy_gauss": [has_gauss, gauss],
            "python": [version, list(internal), gauss_next],
        }
        torch.save(states, path)

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool) -> None:
        """Restores the states."""
        states = torch.load(path, weights_only=True, map_location="cpu")
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        kind, keys, position = states["numpy"]
        keys = keys.numpy().astype("uint32")
        numpy.random.set_state((kind, keys, position, *states["numpy_gauss"]))
        version, internal, gauss_next = states["python"]
        random.setstate((version, tuple(internal), gauss_next))


def is_complete(folder: Path) -> bool:
    """Tells whether all files of a checkpoint have the size they were written with."""
    try:
        sizes = json.loads((folder / SIZES).read_text(encoding="utf-8"))
        return all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError):
        return False


def _publish(saved: Checkpoint, home: Path) -> Checkpoint:
    """Flushes a written checkpoint to the disk and moves it to its place."""
    files = sorted(saved.path.iterdir())
    sizes = {file.name: file.stat().st_size for file in files}
    (saved.path / SIZES).write_text(json.dumps(sizes), encoding="utf-8")
    for path in [*files, saved.path / SIZES, saved.path]:
        flush(path)
    place = home / saved.path.name
    os.rename(saved.path, place)
    flush(home)
    parameters = {name: place / path.name for name, path in saved.paramfiles.items()}
    return saved._replace(path=place, paramfiles=parameters)


def _plain(value: Any) -> Any:
    """Turns scalars of torch and numpy into numbers that YAML can hold."""
    return value.item() if hasattr(value, "item") else value
