"""What can be asked of an index of music: a text, or an example."""

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
    """Refuses a query without content."""
    text = text.strip()
    if not text:
        raise MusicIndexError(
            'The query is empty: describe the music, such as "calm solo cello".'
        )
    # What a terminal passes on may not be UTF-8, which tokenizers do not take.
    return text.encode("utf-8", "replace").decode("utf-8")


def embed_query(model: TextModel, text: str) -> np.ndarray:
    """The latent of a text."""
    latent = model.embed_text([text])[0]
    return np.asarray(latent.detach().float().cpu(), dtype=np.float32)


def find_example(index: MusicIndex, name: str) -> Entry:
    """Finds a file of an index by its name."""
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
