"""Lists of texts in the pickles of Python 2 (`.cP`), read without unpickling.

A pickle is a program, and loading one runs it. The lists of the splits of the field are
of the oldest kind and hold texts alone, so it is enough to look at their operations and
refuse any that makes something else.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import pickletools
from pathlib import Path

from muq_plugins.data.datasets.files import DatasetError

TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"}
TEXTS |= {"SHORT_BINUNICODE", "BINUNICODE8"}
# What a list of texts needs besides: its marks, its memory and its frame.
LIST = {"MARK", "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "STOP", "PROTO", "FRAME"}
MEMORY = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}


def read_pickled_texts(path: str | Path) -> list[str]:
    """The texts of a pickled list.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    list of str
        In their order.

    Raises
    ------
    DatasetError
        If it is missing, no pickle, or anything but one list of texts.

    Example
    -------
    >>> import pickle
    >>> path = getfixture("tmp_path") / "list.cP"
    >>> _ = path.write_bytes(pickle.dumps(["a.npy", "b.npy"], protocol=0))
    >>> read_pickled_texts(path)
    ['a.npy', 'b.npy']
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path} does not exist.")
    texts = []
    lists = 0
    try:
        for operation, argument, _ in pickletools.genops(path.read_bytes()):
            if operation.name in TEXTS:
                texts.append(argument)
            elif operation.name not in LIST | MEMORY:
                raise DatasetError(
                    f"{path} holds more than a list of texts: its operation "
                    f"{operation.name} is refused, since it could run a program. Get "
                    "the published file."
                )
            lists += operation.name in ("LIST", "EMPTY_LIST")
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(
            f"{path} is no complete pickle ({error}). Get it again."
        ) from error
    if lists != 1:
        raise DatasetError(f"{path} holds {lists} lists instead of one.")
    return texts
