"""Which pieces of the embedded corpus share a melody, so that no two parts do.

Bach set the same hymns many times, in many keys, and the same fiddle tune has several
names. ``melodies.txt`` has a line for each piece: its file, its group, and its melody,
note by note and on the beats alone, where passing notes don't count. Pieces of a group
open alike or have a long run in common, directly or through others, or are of one work.

``python -m tests.goldens.melodies`` writes it again, which is a decision: pieces change
parts.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

from muq_plugins.data.corpus.pieces import TABLE, Piece, candidates
from muq_plugins.data.corpus.scores import notes_of, parse

_NOTES, _BEATS = 20, 16  # intervals that are compared
# Of which so many may differ. A changed note counts as two; 5 and more are chance.
_MOST_EDITS = 4
_EXACT = 10  # intervals that are enough if none differs
_RUN = 20  # intervals that are enough if they are found anywhere in both,
_VARIED = 4  # and so many of them are different, as they are not in scales
_WHOLE = 200  # intervals of which a run may be
_CHUNK = 100_000  # pairs at a time, for memory


class Melody(NamedTuple):
    """A melody: its intervals as letters, without repetitions and octaves.

    "a" is a semitone up, "b" two, and so on: "j" is two down.
    """

    notes: str  # from note to note
    beats: str  # from one quarter note to the next


def melody_of(piece: Piece) -> Melody:
    """That of the soprano, as above may be a descant, or else of the first part."""
    parts = [part for part in parse(piece).parts if notes_of(part)]
    sopranos = [part for part in parts if "Soprano" in (part.partName or "")]
    highest: dict[float, int] = {}  # of notes together
    for note in notes_of((sopranos or parts)[0]):
        highest[note.start] = max(highest.get(note.start, 0), note.pitch)
    beats = {start: pitch for start, pitch in highest.items() if start % 1.0 == 0.0}
    return Melody(_intervals(highest)[:_WHOLE], _intervals(beats)[:_BEATS])


def _intervals(pitches: dict[float, int]) -> str:
    line = np.array([pitch for _, pitch in sorted(pitches.items())])
    steps = np.diff(line) % 12
    return "".join(chr(ord("a") + step - 1) for step in steps[steps > 0])


def sharing(melodies: Sequence[Melody]) -> set[tuple[int, int]]:
    """Pairs that have the same melody, enough of them to find all of a group."""
    pairs = set()
    notes, beats = zip(*melodies, strict=True)
    runs: dict[str, int] = {}
    for place, line in enumerate(notes):
        for start in range(len(line) - _RUN + 1):
            run = line[start : start + _RUN]
            if len(set(run)) >= _VARIED:
                pairs.add((runs.setdefault(run, place), place))
    for lines, length in ((notes, _NOTES), (beats, _BEATS)):
        first: dict[str, int] = {}
        for place, line in enumerate(lines):
            if len(line) >= _EXACT:
                pairs.add((first.setdefault(line[:_EXACT], place), place))
        long = np.array([i for i, line in enumerate(lines) if len(line) >= length])
        letters = np.array(
            [list(lines[place][:length].encode()) for place in long], np.uint8
        ).T
        ours, theirs = np.triu_indices(len(long), 1)
        for start in range(0, len(ours), _CHUNK):
            one, other = (side[start : start + _CHUNK] for side in (ours, theirs))
            same = _edits(letters[:, one], letters[:, other]) <= _MOST_EDITS
            pairs.update(zip(long[one[same]], long[other[same]], strict=True))
    return pairs


def _edits(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Edits from each line to another (letters, lines), where one may end earlier.

    Only counted up to one more than is asked for.
    """
    length, most = len(ours), _MOST_EDITS + 1
    far = np.full_like(ours[0], most)
    row = [np.full_like(far, min(j, most)) for j in range(length + 1)]
    ends = [row[-1]]
    for i, letters in enumerate(ours, start=1):
        before, row = row, [np.full_like(far, min(i, most)), *[far] * length]
        for j in range(max(1, i - _MOST_EDITS), min(length, i + _MOST_EDITS) + 1):
            shorter = np.minimum(before[j], row[j - 1]) + 1
            row[j] = np.minimum(shorter, before[j - 1] + (letters != theirs[j - 1]))
        ends.append(row[-1])
    return np.minimum.reduce([*row, *ends])


def grouped(names: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """The group of each: the first name of all that pairs lead to."""
    group = list(range(len(names)))

    def root(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    for pair in pairs:
        roots = sorted(map(root, pair), key=names.__getitem__)
        group[roots[1]] = roots[0]
    return [names[root(place)] for place in range(len(names))]


def read_melodies() -> dict[str, Melody]:
    """The melody of each file of the table."""
    rows = (line.split(" ") for line in TABLE.read_text("ascii").splitlines())
    return {path: Melody(notes, beats) for path, _, notes, beats in rows}


def main() -> None:
    """Write the table, from all scores."""
    pieces = candidates()
    melodies = Parallel(2, verbose=1)(delayed(melody_of)(piece) for piece in pieces)
    first = {piece.work: place for place, piece in reversed([*enumerate(pieces)])}
    works = {(first[piece.work], place) for place, piece in enumerate(pieces)}
    paths = [piece.path for piece in pieces]
    groups = grouped(paths, works | sharing(melodies))
    rows = zip(paths, groups, melodies, strict=True)
    lines = [f"{path} {group} {m.notes} {m.beats}\n" for path, group, m in rows]
    TABLE.write_text("".join(lines), "ascii")


if __name__ == "__main__":
    main()
