"""An index of music: latents of audio files on disk, searched by a latent."""

from muq_plugins.inference.index.entries import Entry, MusicIndexError
from muq_plugins.inference.index.music_index import Match, MusicIndex
from muq_plugins.inference.index.update import Changes, update_index

__all__ = [
    "Changes",
    "Entry",
    "Match",
    "MusicIndex",
    "MusicIndexError",
    "update_index",
]
