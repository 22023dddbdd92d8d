"""Inst-Sim-ABX: which of two segments do listeners find more like a third one?

Segments of five seconds of the test part of Slakh2100, of drums, bass, piano, guitar,
the residuals, or the mix (arXiv 2502.02138). In XAB all three are of other songs; in
XYC one is another segment of the same song. The answers have no licence that allows
copying: a local clone is read.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from muq_plugins.data.datasets.tagged import (
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    one_of,
    read_text,
)

EXPERIMENTS = {"XAB": "three songs", "XYC": "one segment is of the same song"}
SOUNDS = ("drums", "bass", "piano", "guitar", "residuals", "mix")
# As a person calls them, and the columns of the answers.
ASPECTS = {
    "overall": "answer_total",
    "timbre": "answer_timbre",
    "rhythm": "answer_rhythm",
    "melody": "answer_melody",
}
PLACES = "reference", "sample_a", "sample_b"
ANSWERS = {"A+": 1, "A-": 1, "B+": 2, "B-": 2, "NA": None}
SOURCE = "github.com/zume06/Inst-Sim-ABX-Dataset"
SHEET = Sheet(
    "Inst-Sim-ABX",
    f"{SOURCE} (answers) and doi.org/10.5281/zenodo.4599666 (Slakh2100), of which the "
    "segments are cut as its Readme says",
    "answers: research use with citation, no redistribution; Slakh2100: CC BY 4.0",
    "csvs/inst_sim_abx_answers_XAB.csv and _XYC.csv, and the segments as they are "
    "named there, set<k>/<n>/<sound>/<file>.wav, in it or in its folder audio",
)


class Triplet(NamedTuple):
    """A segment, two to choose from, and what was answered in one experiment."""

    experiment: str
    x: str  # paths of the segments
    pair: tuple[str, str]
    # by aspect, which of the two each listener has chosen: 0 or 1
    answers: dict[str, list[int]]

    @property
    def sound(self) -> str:
        """What is heard: drums, the mix, ..."""
        return self.x.split("/")[2]

    @property
    def same_song(self) -> int | None:
        """Which of the two is of the same song as the first segment, if one is."""
        same = [song_of(path) == song_of(self.x) for path in self.pair]
        return same.index(True) if sum(same) == 1 else None

    def majority(self, aspect: str, without: int | None = None) -> int | None:
        """What most listeners have chosen, without one of them; None for a tie."""
        votes = [v for n, v in enumerate(self.answers[aspect]) if n != without]
        counts = Counter(votes)
        return None if counts[0] == counts[1] else int(counts[1] > counts[0])


def song_of(path: str) -> str:
    """The number of the song in Slakh2100: set2/1/bass/X_2086-27.wav is of 2086."""
    return Path(path).stem.rpartition("_")[2].partition("-")[0]


def read_triplets(data_folder: str | Path, experiment: str) -> list[Triplet]:
    """All triplets of XAB or of XYC, in the order in which they were first asked.

    The two surveys that asked the same triplets are kept apart.
    """
    name = f"inst_sim_abx_answers_{experiment}.csv"
    path = one_of(data_folder, ["csvs", "."], name) / name
    rows = csv.DictReader(io.StringIO(read_text(path, SOURCE)))
    wanted = {"ex_name", *PLACES, *ASPECTS.values()}
    if lacking := wanted - set(rows.fieldnames or ()):
        raise damaged(path, f"it has no column {sorted(lacking)[0]!r}", SOURCE)
    found: dict[tuple, Triplet] = {}
    for row in rows:
        x, *samples = (row[place] for place in PLACES)
        pair = tuple(sorted(samples))
        if len(Path(x).parts) != 4 or x.split("/")[2] not in SOUNDS:
            raise damaged(path, f"{x!r} is no set<k>/<n>/<sound>/<file>.wav", SOURCE)
        key = row["ex_name"], x, pair
        triplet = found.setdefault(key, Triplet(*key, {name: [] for name in ASPECTS}))
        for aspect, column in ASPECTS.items():
            if row[column] not in ANSWERS:
                raise damaged(path, f"{row[column]!r} is no answer", SOURCE)
            if number := ANSWERS[row[column]]:
                triplet.answers[aspect].append(pair.index(samples[number - 1]))
    if not found:
        raise damaged(path, "it lists no answer", SOURCE)
    return list(found.values())


def segments_of(data_folder: str | Path, triplets: list[Triplet]) -> Labelled:
    """The segments that triplets are made of."""
    paths = dict.fromkeys(path for one in triplets for path in (one.x, *one.pair))
    clips = [TaggedClip(path, "test", []) for path in paths]
    folder = one_of(data_folder, ["audio", "."], clips[0].path.split("/")[0])
    return Labelled("Inst-Sim-ABX", folder, clips, [])
