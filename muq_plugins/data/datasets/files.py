"""The annotation files of data sets, and the error that says what is wrong with them.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path


class DatasetError(ValueError):
    """Files of a data set that are missing or not what they should be.

    Example
    -------
    >>> raise DatasetError("tags.txt is empty.")
    Traceback (most recent call last):
    ...
    muq_plugins.data.datasets.files.DatasetError: tags.txt is empty.
    """


def read_text(path: str | Path, where_from: str) -> str:
    """The text of an annotation file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file, in UTF-8.
    where_from : str
        Where one gets it; part of the error.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    DatasetError
        If it is missing or no text.

    Example
    -------
    >>> read_text("gone.csv", "the web page")
    Traceback (most recent call last):
    ...
    muq_plugins.data.datasets.files.DatasetError: gone.csv does not exist. Get it ...
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(
            f"{path} does not exist. Get it from {where_from}, or give the folder that "
            "holds it."
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is no text in UTF-8 ({error}). Get it again from {where_from}."
        ) from error
