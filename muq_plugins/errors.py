"""What a person did wrong, as one line."""

import difflib
import errno
import importlib.util
import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# What asks a program to end: Ctrl-C, a scheduler, and a terminal that was closed, which
# Windows does not tell.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
)
# What a disk or its owner refuses, and what a person can do about it.
REFUSALS = {
    errno.ENOSPC: "make room, then run the same command again",
    errno.EDQUOT: "make room, then run the same command again",
    errno.EFBIG: "choose a disk that takes files of this size",
    errno.EROFS: "choose a place that you may write to",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.ENOTDIR: "a part of this path is a file: choose another place",
    errno.EEXIST: "something else has this name: choose another place",
    errno.EISDIR: "this is a folder: give a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk fails: check it, or choose another",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class UserError(ValueError):
    """What is wrong, with which value and file, and what to do; shown as one line."""


class Interrupted(KeyboardInterrupt):
    """Somebody asked the program to end, by the signal ``number``."""

    def __init__(self, words: str = "Stopped.", number: int = signal.SIGINT):
        super().__init__(words)
        self.number = int(number)


class NotInstalled(UserError, ImportError):
    """Something optional needs a package that is not there."""


def words_of(error: UserError) -> str:
    """What an error says, without the traceback that torch adds in a worker of data."""
    _, _, traceback = str(error).partition(
        "\nOriginal Traceback (most recent call last)"
    )
    *causes, words = re.split(r"^(?:\w+\.)*\w*Error: ", traceback, flags=re.MULTILINE)
    return words.strip() if causes else str(error)


def first_line(error: Exception) -> str:
    """What is wrong, without the advice that torch adds on many lines."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def needs(what: str, extra: str, *packages: str) -> None:
    """Refuses work whose packages are not installed, before any of it."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise NotInstalled(
            f"{what} needs {' and '.join(missing)}: run `pip install "
            f"'muq-plugins[{extra}]'` (or `pip install {' '.join(missing)}`)."
        )


def refusal(error: BaseException) -> str | None:
    """One line about what a disk or its owner has refused; None for anything else."""
    seen = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in REFUSALS:
            place = f"{os.fsdecode(seen.filename)}: " if seen.filename else ""
            return f"{place}{seen.strerror}: {REFUSALS[seen.errno]}."
        if found := re.search(r"(.*)\(os error (\d+)\)", str(seen)):  # of safetensors
            if remedy := REFUSALS.get(int(found[2])):
                return f"{found[1].strip()}: {remedy}."
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def given_by_user() -> Iterator[None]:
    """Whatever cannot be read in this block is a person's to mend, not a bug."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


@contextmanager
def given_at(key: str) -> Iterator[None]:
    """What is refused in this block stands at a key of a person's file."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {error}") from error


def nearest(name: str, known: Iterable[str], cutoff: float = 0.0) -> str:
    """The known name that is most like a wrong one; empty if there is none."""
    close = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=cutoff)
    return close[0] if close else ""


def shown(words: str | os.PathLike) -> str:
    """Words with paths in them as a terminal may get them.

    What is not UTF-8 and what would steer the terminal becomes a replacement character.
    """
    steering = r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
    return re.sub(steering, "\ufffd", os.fspath(words))


def duration(seconds: float) -> str:
    """Such as "1 h 20 min", "20 min 5 s" and "5 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
