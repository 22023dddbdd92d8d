"""The embedded corpus: real music, with labels, from pip packages alone.

Compositions that ship in music21 (`pieces`, `scores`) are played in seeded
arrangements (`arrangement`) on a soundfont (`soundfont`) in a room (`effects`),
labelled and captioned (`takes`) and collected until each split is long enough
(`schedule`, `build`). The same instruments play single notes (`notes`).
"""

from muq_plugins.data.corpus.build import build_corpus
from muq_plugins.data.corpus.notes import build_notes
from muq_plugins.data.corpus.pieces import SPLITS
from muq_plugins.data.instruments import FAMILIES, INSTRUMENTS, family_of

__all__ = [
    "FAMILIES",
    "INSTRUMENTS",
    "SPLITS",
    "build_corpus",
    "build_notes",
    "family_of",
]
