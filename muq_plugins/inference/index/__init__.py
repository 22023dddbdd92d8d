"""An index of music: what audio files sound like, on disk, and searched."""

from muq_plugins.inference.index.search import Match, MusicIndex
from muq_plugins.inference.index.store import Entry
from muq_plugins.inference.index.update import (
    Changes,
    EncoderLayer,
    prune_index,
    update_index,
)

__all__ = [
    "Changes",
    "EncoderLayer",
    "Entry",
    "Match",
    "MusicIndex",
    "prune_index",
    "update_index",
]
