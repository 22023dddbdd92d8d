"""What can be asked of an index of music: a text, or an example.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import difflib
import os

import numpy as np

from muq_plugins.inference.contracts import TextModel
from muq_plugins.inference.index.entries import Entry, MusicIndexError
from muq_plugins.inference.index.music_index import MusicIndex

# How many names a message lists.
LISTED = 3


def check_text(text: str) -> str:
    """Refuses a query without content.

    Arguments
    ---------
    text : str
        Any language, any length.

    Returns
    -------
    str
        The text without spaces around it, as tokenizers take it.

    Raises
    ------
    MusicIndexError
        If there is nothing in the text.

    Example
    -------
    >>> check_text(" calm solo cello ")
    'calm solo cello'
    >>> check_text(" ")
    Traceback (most recent call last):
    ...
    muq_plugins.inference.index.entries.MusicIndexError: The query is empty: ...
    """
    text = text.strip()
    if not text:
        raise MusicIndexError(
            'The query is empty: describe the music, such as "calm solo cello".'
        )
    # What a terminal passes on may not be UTF-8, which tokenizers do not take.
    return text.encode("utf-8", "replace").decode("utf-8")


def embed_query(model: TextModel, text: str) -> np.ndarray:
    """The latent of a text.

    Arguments
    ---------
    model : TextModel
        Embeds it; it says how much of a long text it has used.
    text : str
        From `check_text`.

    Returns
    -------
    numpy.ndarray
        (latent_width,), float32.

    Example
    -------
    >>> import torch
    >>> class Model:
    ...     def embed_text(self, texts):
    ...         return torch.tensor([[len(text), 1.0] for text in texts])
    >>> embed_query(Model(), "piano")
    array([5., 1.], dtype=float32)
    """
    latent = model.embed_text([text])[0]
    return np.asarray(latent.detach().float().cpu(), dtype=np.float32)


def find_example(index: MusicIndex, name: str) -> Entry:
    """Finds a file of an index by its name.

    Arguments
    ---------
    index : MusicIndex
        The index.
    name : str
        Its path, also below the folder that all files are in, or the end of it; upper
        and lower case are the same.

    Returns
    -------
    Entry
        The file.

    Raises
    ------
    MusicIndexError
        If no file has this name, or several.
    """
    wanted = name.strip().casefold()
    if not wanted:
        raise MusicIndexError("The name is empty: give the name of an indexed file.")
    entries = index.database.entries()
    whole = os.path.join(index.database.common_folder(), name.strip())
    found = []
    for entry in entries:
        if entry.shown == whole:
            return entry
        if f"/{entry.shown.casefold()}".endswith(f"/{wanted.lstrip('/')}"):
            found.append(entry)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(entry.shown for entry in found[:LISTED])
        more = ", ..." if len(found) > LISTED else ""
        raise MusicIndexError(
            f"{len(found)} indexed files are called {name}: {names}{more}. Give more "
            f"of the path."
        )
    names = {os.path.basename(entry.shown): entry for entry in entries}
    close = difflib.get_close_matches(name, names, n=LISTED)
    near = f" Close to it: {', '.join(close)}." if close else ""
    raise MusicIndexError(f"No indexed file is called {name}.{near}")
