"""Decide which takes of which pieces the embedded corpus holds, and for how long."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from muq_plugins.data.corpus.arrangement import MIXED
from muq_plugins.data.corpus.pieces import Piece
from muq_plugins.data.instruments import FAMILIES
from muq_plugins.errors import UserError

# What is held out is to judge by: valid and test get shorter takes and fewer mixed
# ones, so that many pieces are heard, and each family often.
_SHARES = {"train": 0.62, "valid": 0.14, "test": 0.24}  # of the minutes
LONGEST = {"train": 60.0, "valid": 32.0, "test": 32.0}  # seconds of a take
_DECKS = {  # to deal families from
    "train": [*FAMILIES, MIXED, MIXED],
    "valid": [*FAMILIES, *FAMILIES, MIXED],
    "test": [*FAMILIES, *FAMILIES, MIXED],
}
_HELD_OUT_TAKES = 2  # at most, of a piece before others had their turn
_HELD_OUT_WORKS = 4
_SMALL = 8.0  # minutes from which on there are so many works
_TYPICAL_CLIP = 0.6  # of the longest, before any is known


@dataclass(frozen=True)
class Visit:
    """Takes to make of one piece, which is parsed once for all of them."""

    split: str  # "train", "valid" or "test"
    piece: Piece  # the piece
    longest: float  # seconds that a take may last
    # number of the first take; those before it were made at earlier visits
    first_take: int
    # for each take, the family of its instruments, or "mixed"
    families: tuple[str, ...]

    @property
    def clip_ids(self) -> list[str]:
        """The names of the takes."""
        return [
            f"{self.piece.slug}-take{self.first_take + index:02d}"
            for index in range(len(self.families))
        ]


class SplitSchedule:
    """What to render of a split, in an order that only the seed decides.

    Ask `next_visits` for work, render it, give every clip to `accept`, and repeat
    until `next_visits` is empty. What is asked for depends on durations alone, never
    on who rendered first.
    """

    def __init__(self, split: str, pieces: list[Piece], minutes: float, seed: int):
        self.wanted = _SHARES[split] * minutes * 60.0
        self.seconds = 0.0
        self.clips = 0
        self._works: set[str] = set()
        self._typical = _TYPICAL_CLIP * LONGEST[split]
        held_out = split != "train"
        self._least_works = _HELD_OUT_WORKS if held_out and minutes >= _SMALL else 1
        works = {piece.work for piece in pieces if piece.split == split}
        if len(works) < self._least_works:
            raise UserError(
                f"The {split} part of {minutes:g} minutes needs at least "
                f"{self._least_works} compositions, but the chosen collections have "
                f"{len(works)} for it. Choose more collections, or less than "
                f"{_SMALL:g} minutes."
            )
        # A small split must not be filled by the takes of one piece.
        most = max(int(self.wanted / self._typical / self._least_works), 1)
        most = min(_HELD_OUT_TAKES, most) if held_out else most
        self._visits = _visits(split, pieces, most, seed)

    def next_visits(self) -> list[Visit]:
        """Give the next pieces to visit."""
        missing = self.wanted - self.seconds
        works = self._least_works - len(self._works)
        if missing <= 0 and works <= 0:
            return []
        typical = self.seconds / self.clips if self.clips else self._typical
        clips = max(math.floor(0.9 * missing / typical), 1)
        batch: list[Visit] = []
        while len(batch) < works or sum(len(v.families) for v in batch) < clips:
            batch.append(next(self._visits))
        return batch

    def accept(self, work: str, duration: float) -> bool:
        """Count a clip, unless there are enough."""
        new_work = work not in self._works
        if self.seconds >= self.wanted and not (
            new_work and len(self._works) < self._least_works
        ):
            return False
        self._works.add(work)
        self.seconds += duration
        self.clips += 1
        return True


def _visits(split: str, pieces: list[Piece], most: int, seed: int) -> Iterator[Visit]:
    """Every piece of the split in turn, then all of them again for other takes."""

    def turn(piece: Piece) -> float:
        return random.Random(f"{seed}/{piece.path}").random() / piece.turns

    pieces = sorted((piece for piece in pieces if piece.split == split), key=turn)
    families = _deal(_DECKS[split], random.Random(f"{seed}/{split}/families"))
    for round_ in itertools.count():
        for piece in pieces:
            count = min(piece.takes, most)
            drawn = tuple(itertools.islice(families, count))
            yield Visit(split, piece, LONGEST[split], round_ * count, drawn)


def _deal(deck: list[str], rng: random.Random) -> Iterator[str]:
    """Cards of a deck that is shuffled anew when it is used up."""
    while True:
        yield from rng.sample(deck, len(deck))
