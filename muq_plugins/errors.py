"""What a person did wrong, as one line."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """What is wrong, with which value and file, and what to do; shown as one line."""


@contextmanager
def given_by_user() -> Iterator[None]:
    """Whatever cannot be read in this block is a person's to mend, not a bug."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


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
