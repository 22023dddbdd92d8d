"""The notes of a composition, as music21 reads them, its key and its metre."""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

from muq_plugins.data.corpus.pieces import Piece, corpus_folder
from muq_plugins.errors import UserError

# Indexed by pitch class: the spelling with the fewest sharps or flats.
_TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
# What music21 calls the bar lines that end or begin a section: ||, |:, :| and |].
_MARKS = ("double", "final", "heavy-light", "heavy-heavy")

T = TypeVar("T")


class Note(NamedTuple):
    """One sounding note."""

    start: float  # onset, in quarter notes
    duration: float  # length, in quarter notes
    pitch: int  # MIDI pitch, 0 to 127


@dataclass(frozen=True)
class MusicalScore:
    """The notes of a piece, part by part."""

    parts: list[list[Note]]  # the notes of each part in order of their onset
    bars: list[float]  # where each bar starts, in quarter notes
    end: float  # where the last note ends, in quarter notes
    # what the score states: where it starts to hold, in quarter notes, and the time
    # signature, e.g. "3/4", or the pitch class of the tonic and "major" or "minor"
    signatures: list[tuple[float, str]]
    keys: list[tuple[float, tuple[int, str] | None]]
    # whether somebody chose each mode: programs write "major" where nobody did
    chosen: bool
    # where repeat marks and double bars let another section begin, in quarter notes
    marks: list[float] = field(default_factory=list)
    start: float = 0.0  # of an excerpt, in the whole piece

    @property
    def notes(self) -> list[Note]:
        """The notes of all parts."""
        return [note for part in self.parts for note in part]

    @property
    def density(self) -> float:
        """Notes in a quarter note, mean of the parts."""
        return len(self.notes) / (self.end * len(self.parts))

    @property
    def time_signature(self) -> str | None:
        """The time signature in force for most of the time, if one is stated."""
        return _in_force(self.signatures, self.end)

    @property
    def key(self) -> tuple[int, str] | None:
        """Tonic and mode that the score states.

        Where a program may have stated them, the notes must confirm them, which they do
        not either where an excerpt is in another key than the movement.
        """
        stated = _in_force(self.keys, self.end)
        sure = stated and (self.chosen or stated == estimate_key(self.notes))
        return stated if sure else None

    def excerpt(self, start: float, end: float) -> "MusicalScore":
        """Cut out what sounds in a span of time, which then begins at its
        first note.
        """
        parts = []
        for part in self.parts:
            cut = [
                (max(note.start, start), min(note.start + note.duration, end), note)
                for note in part
            ]
            cut = [Note(on, off - on, note.pitch) for on, off, note in cut if off > on]
            if cut:
                parts.append(cut)
        first = min((part[0].start for part in parts), default=start)

        def stated(changes: list[tuple]) -> list[tuple]:
            # Those before the excerpt count as starting with it: the last one holds.
            return [(max(on - first, 0.0), what) for on, what in changes if on < end]

        return MusicalScore(
            parts=[[n._replace(start=n.start - first) for n in part] for part in parts],
            bars=[bar - first for bar in self.bars if first <= bar < end],
            end=max(
                (n.start + n.duration - first for part in parts for n in part),
                default=0.0,
            ),
            signatures=stated(self.signatures),
            keys=stated(self.keys),
            chosen=self.chosen,
            marks=[mark - first for mark in self.marks if first < mark < end],
            start=self.start + first,
        )


def _in_force(changes: list[tuple[float, T]], end: float) -> T | None:
    """What holds for most of the time."""
    shares: Counter[T] = Counter()
    for (start, what), (stop, _) in pairwise([*changes, (end, None)]):
        shares[what] += stop - start
    return max(shares, key=shares.get, default=None)


def read_score(piece: Piece) -> MusicalScore:
    """Parse a piece with music21.

    Repeats are played once, grace notes and chord symbols are left out, tied notes
    become one and transposing instruments sound as they do.
    """
    score = parse(piece)
    parts = [notes for part in score.parts if (notes := notes_of(part))]
    if not parts:
        raise UserError(f"No notes in {piece.path} of music21.")
    first = score.parts[0]
    signatures = [
        (float(item.getOffsetInHierarchy(first)), item.ratioString)
        for item in first.recurse().getElementsByClass("TimeSignature")
    ]
    return MusicalScore(
        parts=parts,
        bars=[float(bar.offset) for bar in first.getElementsByClass("Measure")],
        end=max(note.start + note.duration for part in parts for note in part),
        signatures=signatures,
        keys=_keys_of(score.parts),
        chosen=piece.path.endswith(".abc"),
        marks=_marks_of(first),
    )


def parse(piece: Piece):
    """The score of music21, as it sounds."""
    from music21 import converter

    file = corpus_folder() / piece.path
    with warnings.catch_warnings():
        # About bars with a beat too many in some files, which do no harm here.
        warnings.simplefilter("ignore")
        # A pickle of every file in the temporary folder would help nobody.
        score = converter.parse(file, forceSource=True, storePickle=False)
        score.toSoundingPitch(inPlace=True)
    return score


def _keys_of(parts) -> list[tuple[float, tuple[int, str] | None]]:
    """The keys that a score states, and None where it leaves the mode open."""
    found: dict[float, set] = {}
    for part in parts:
        for item in part.recurse().getElementsByClass("KeySignature"):
            mode = getattr(item, "mode", None)
            key = (item.tonic.pitchClass, mode) if mode in ("major", "minor") else None
            found.setdefault(float(item.getOffsetInHierarchy(part)), set()).add(key)
    keys = []
    for start, stated in sorted(found.items()):
        minor = {key for key in stated if key and key[1] == "minor"}
        # Where staves differ, minor was chosen and major is what a program writes.
        chosen = minor or stated - {None}
        keys.append((start, chosen.pop() if len(chosen) == 1 else None))
    return keys


def _marks_of(part) -> list[float]:
    """Where a music21 part has repeat marks and double bars, within the piece.

    A second ending belongs to what it ends: the next section begins after it.
    """
    bars = list(part.getElementsByClass("Measure"))
    places = {id(bar): place for place, bar in enumerate(bars)}
    endings: set[int] = set()
    for bracket in part.recurse().getElementsByClass("RepeatBracket"):
        spanned = [places[id(bar)] for bar in bracket.getSpannedElements()]
        if bracket.number != "1":
            endings.update(range(min(spanned), max(spanned) + 1))
    marks = []
    for place, (before, bar) in enumerate(pairwise(bars), start=1):
        lines = (before.rightBarline, bar.leftBarline)
        marked = any(line is not None and line.type in _MARKS for line in lines)
        ended = place - 1 in endings
        if (marked or ended) and place not in endings:
            marks.append(float(bar.offset))
    return marks


def notes_of(part) -> list[Note]:
    """The notes of a music21 part, ties merged, in order of onset."""
    notes: list[Note] = []
    tied: dict[int, int] = {}
    for element in part.flatten().notes:
        if "ChordSymbol" in element.classes or element.duration.isGrace:
            continue
        start, duration = float(element.offset), float(element.quarterLength)
        for member in element.notes if element.isChord else (element,):
            if not hasattr(member, "pitch") or duration <= 0:
                continue
            pitch, tie = member.pitch.midi, member.tie
            held = tied.pop(pitch, None)
            if held is not None and tie and tie.type in ("stop", "continue"):
                notes[held] = notes[held]._replace(
                    duration=start + duration - notes[held].start
                )
                index = held
            else:
                notes.append(Note(start, duration, pitch))
                index = len(notes) - 1
            if tie and tie.type in ("start", "continue"):
                tied[pitch] = index
    return notes


def estimate_key(notes: list[Note]) -> tuple[int, str]:
    """Estimate tonic and mode with music21's default analysis (Aarden and Essen)."""
    from music21 import note as m21note
    from music21 import stream
    from music21.analysis.discrete import AardenEssen

    # The analysis adds up durations by pitch class: twelve long notes give it what
    # hundreds of short ones would, a hundred times faster.
    sounding = [0.0] * 12
    for note in notes:
        sounding[note.pitch % 12] += note.duration
    flat = stream.Stream(
        [
            m21note.Note(60 + pitch_class, quarterLength=duration)
            for pitch_class, duration in enumerate(sounding)
            if duration
        ]
    )
    (tonic, mode, _), _ = AardenEssen().process(flat)
    return tonic.pitchClass, mode


def key_name(tonic: int, mode: str) -> str:
    """Name a key in its conventional spelling."""
    return f"{tonic_name(tonic, mode)} {mode}"


def tonic_name(tonic: int, mode: str = "major") -> str:
    """Name a pitch class, as it is spelled where it is a tonic."""
    return _TONICS[mode][tonic % 12]
