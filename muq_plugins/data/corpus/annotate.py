"""What the scores say of a take moment by moment: beats, chords and sections.

Nothing is estimated. What a score leaves open is left out, and so is a take that has
too little of it. It is found after rendering, in a file of its own beside the
manifests, so corpora that were rendered before have it too.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pretty_midi
from tqdm import tqdm

from muq_plugins.data.corpus.arrangement import draw_excerpt
from muq_plugins.data.corpus.pieces import SPLITS, find_pieces
from muq_plugins.data.corpus.schedule import LONGEST
from muq_plugins.data.corpus.scores import MusicalScore, Note, read_score, tonic_name
from muq_plugins.data.corpus.takes import take_rng
from muq_plugins.data.datasets.annotations import BEATS, CHORDS, SECTIONS, TEMPO
from muq_plugins.data.manifest import load_manifest
from muq_plugins.errors import UserError
from muq_plugins.files import read_json, write_json

ANNOTATIONS = "annotations.json"
# Raised whenever a change of the code changes what is found.
FORMAT = 1
# Chords as Harte writes them, in semitones above the root. Only those whose notes are
# those of no other chord: C:maj6 is A:min7 as well, and C:aug is E:aug.
QUALITIES = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "minmaj7": (0, 3, 7, 11),
}
# A take has chords if they are certain for this share of it: a tune that happens to
# play two in passing has none.
CERTAIN = 0.25
# Beats in a bar of 2/4, 3/2, 4/4 and so on; in groups of three in 6/8, 9/8 and 12/8.
# Whether 3/8 has one or three is for the player to say.
SIMPLE, COMPOUND = (2, 3, 4), (6, 9, 12)
# Of quarter notes and seconds: music21 counts triplets in fractions, MIDI in ticks.
NEAR = 1e-4
TICKS = 2e-3

Rows = list[list]
Annotations = dict[str, Rows | float]  # by their kind


def annotate_corpus(
    folder: str | Path, progress: bool = False
) -> dict[str, Annotations]:
    """Beats, tempo, chords and sections of every clip of a corpus that is rendered.

    As `muq_plugins.data.datasets.annotations` has them, by the name of the clip; each
    has those that are certain. They are kept in the folder, and found once.
    """
    folder = Path(folder)
    record = read_json(folder / "corpus.json", "render the corpus again")
    about = {
        "format": FORMAT,
        "corpus": [record["format"], record["settings"]],
        "versions": {"music21": version("music21")},
    }
    path = folder / ANNOTATIONS
    if path.is_file():
        kept = read_json(path, "delete it to make it again")
        if kept["about"] == about:
            return kept["clips"]
    clips = _annotate(folder, record["settings"]["seed"], progress)
    try:
        write_json(path, {"about": about, "clips": clips})
    except OSError as error:
        raise UserError(
            f"What the scores say cannot be kept in {folder}: {error}. Choose a corpus "
            "folder that you may write to."
        ) from error
    return clips


def _annotate(folder: Path, seed: int, progress: bool) -> dict[str, Annotations]:
    takes: dict[str, list[tuple[str, str, dict]]] = {}
    for split in SPLITS:
        for name, entry in load_manifest(folder / f"{split}.json", folder).items():
            slug = name.rpartition("-take")[0]
            takes.setdefault(slug, []).append((split, name, entry))
    pieces = {piece.slug: piece for piece in find_pieces()}
    clips = {}
    for slug, several in tqdm(
        takes.items(), "Reading scores", unit="score", disable=not progress
    ):
        score = read_score(pieces[slug])
        for split, name, entry in several:
            rng = take_rng(pieces[slug], int(name.rpartition("-take")[2]), seed)
            tempo, excerpt = draw_excerpt(score, LONGEST[split], rng)
            _check_played(excerpt, tempo, entry)
            clips[name] = take_annotations(score, excerpt, tempo, entry)
    return clips


def take_annotations(
    score: MusicalScore, excerpt: MusicalScore, tempo: float, entry: dict
) -> Annotations:
    """What is certain of one take, in seconds."""
    quarter = 60.0 / tempo
    beats = beats_of(score, excerpt.start, excerpt.start + excerpt.end)
    chords = chords_of(excerpt.notes, entry["transposition"])
    certain = sum(end - start for start, end, _ in chords)
    found = {
        BEATS: beats,
        CHORDS: chords if certain >= CERTAIN * excerpt.end else [],
        SECTIONS: sections_of(score, excerpt),
    }
    known = {
        kind: [
            [round(x * quarter, 4) if isinstance(x, float) else x for x in row]
            for row in rows
        ]
        for kind, rows in found.items()
        if rows
    }
    steps = {round(after[0] - before[0], 3) for before, after in pairwise(beats)}
    if len(steps) == 1:
        known[TEMPO] = round(tempo / steps.pop(), 2)
    return known


def _check_played(excerpt: MusicalScore, tempo: float, entry: dict) -> None:
    """Raises UserError unless a take plays this: every note, by its MIDI file."""
    written = {
        (note.start * 60.0 / tempo, (note.pitch + entry["transposition"]) % 12)
        for note in excerpt.notes
    }
    starts: dict[int, list[float]] = {}
    for start, pitch_class in sorted(written):
        starts.setdefault(pitch_class, []).append(start)
    midi = pretty_midi.PrettyMIDI(entry["midi"])
    played = [
        (note.start, note.pitch % 12)
        for part in midi.instruments
        if not part.is_drum
        for note in part.notes
    ]
    for start, pitch_class in played:
        known = starts.get(pitch_class, [])
        after = bisect.bisect_left(known, start - TICKS)
        if after == len(known) or known[after] > start + TICKS:
            raise UserError(
                f"{entry['midi']} plays another excerpt than the score gives with "
                f"music21 {version('music21')}: install the version that is in "
                "corpus.json, or delete the corpus, and it is made again."
            )


def beats_of(score: MusicalScore, start: float, end: float) -> Rows:
    """Beats in a span of a piece, counted from its start, with their place in the bar.

    None if a bar of it is not as long as its metre says, unless that is explained: an
    upbeat at the start, a bar that a repeat mark has cut in two, or the last one.
    """
    found: Rows = []
    bars = list(zip(score.bars, [*score.bars[1:], score.end], strict=True))
    first_half = 0.0  # of a bar that is cut in two
    for number, (bar, bar_end) in enumerate(bars):
        metre = _metre(score.signatures, bar)
        full = metre[0] * metre[1] if metre else 0.0
        length, lead = bar_end - bar, first_half
        short, first_half = length < full - NEAR, 0.0
        certain = metre is not None and lead + length < full + NEAR
        if short and number == 0:
            lead = full - length
        elif short and not lead and number + 1 < len(bars):
            second_half = bars[number + 1][1] - bar_end
            certain = abs(length + second_half - full) < NEAR
            first_half = length if certain else 0.0
        if bar_end <= start + NEAR or bar >= end - NEAR:
            continue
        if not certain:
            return []
        count, beat = metre
        for place in range(count):
            at = bar - lead + place * beat
            inside = bar - NEAR < at < bar_end - NEAR
            if inside and start - NEAR < at < end - NEAR:
                found.append([max(at - start, 0.0), place + 1])
    return found


def _metre(signatures: Sequence, at: float) -> tuple[int, float] | None:
    """Beats in a bar, and the length of one in quarter notes; None if it is open."""
    stated = [what for start, what in signatures if start <= at + NEAR]
    if not stated:
        return None
    count, unit = map(int, stated[-1].split("/"))
    if count in SIMPLE and unit <= 4:
        return count, 4.0 / unit
    if count in COMPOUND and unit == 8:
        return count // 3, 1.5
    return None


def chords_of(notes: Sequence[Note], transposition: int) -> Rows:
    """Chords that sound: all of their notes do, and no other one."""
    changes: dict[float, list[tuple[int, int]]] = {}
    for note in notes:
        pitch_class = (note.pitch + transposition) % 12
        changes.setdefault(note.start, []).append((pitch_class, 1))
        changes.setdefault(note.start + note.duration, []).append((pitch_class, -1))
    sounding, found = [0] * 12, []
    for start, end in pairwise(sorted(changes)):
        for pitch_class, step in changes[start]:
            sounding[pitch_class] += step
        name = _NAMES.get(frozenset(i for i, count in enumerate(sounding) if count))
        if name is None or end - start < NEAR:
            continue
        if found and found[-1][2] == name and start - found[-1][1] < NEAR:
            found[-1][1] = end
        else:
            found.append([start, end, name])
    return found


_NAMES = {
    frozenset((root + step) % 12 for step in steps): f"{tonic_name(root)}:{quality}"
    for quality, steps in QUALITIES.items()
    for root in range(12)
}


def sections_of(score: MusicalScore, excerpt: MusicalScore) -> Rows:
    """Sections between repeat marks and double bars: A, B, C as they come in the piece.

    One with the notes of an earlier one has its letter. None if nothing changes.
    """
    marks = [0.0]
    for mark in score.marks:
        metre = _metre(score.signatures, mark)
        # An upbeat between two marks belongs to what it leads to.
        if mark - marks[-1] > (metre[0] * metre[1] if metre else 0.0) - NEAR:
            marks.append(mark)
    start, end = excerpt.start, excerpt.start + excerpt.end
    letters: dict[tuple, str] = {}
    found: Rows = []
    for begin, stop in pairwise([*marks, score.end]):
        notes = tuple(
            (round(note.start - begin, 3), round(note.duration, 3), note.pitch)
            for part in score.parts
            for note in part
            if begin - NEAR <= note.start < stop - NEAR
        )
        letter = letters.setdefault(notes, chr(ord("A") + len(letters)))
        begin, stop = max(begin, start), min(stop, end)
        if stop - begin > NEAR:
            found.append([begin - start, stop - start, letter])
    return found if len(found) > 1 else []
