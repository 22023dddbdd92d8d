"""Harmonix: 912 songs of Western pop with their sections, beats and downbeats.

Annotations are in github.com/urinieto/harmonixset; recordings are not distributed. The
sections have many names, which become the seven of "To catch a chorus, verse, intro, or
anything else" (Wang et al., arXiv 2205.14700): the first word of `SECTION_WORDS` that
is in a name decides. What comes before a chorus is a verse there; other papers keep it
apart or call it a chorus, and their accuracy is another one.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from muq_plugins.data.datasets.annotations import (
    BEATS,
    SECTIONS,
    read_beats,
    read_boundaries,
)
from muq_plugins.data.datasets.chords import ENDINGS, OWN_SPLIT
from muq_plugins.data.datasets.tagged import (
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    drawn_parts,
    one_of,
    read_text,
    visible,
)
from muq_plugins.errors import UserError

CLASSES = ["intro", "verse", "chorus", "bridge", "inst", "outro", "silence"]
SECTION_WORDS = {
    "silence": "silence",
    "prechorus": "verse",
    "pre-chorus": "verse",
    "preverse": "verse",
    "refrain": "chorus",
    "chorus": "chorus",
    "theme": "chorus",
    "stutter": "chorus",
    "verse": "verse",
    "rap": "verse",
    "section": "verse",
    "slow": "verse",
    "build": "verse",
    "dialog": "verse",
    "intro": "intro",
    "fadein": "intro",
    "opening": "intro",
    "bridge": "bridge",
    "trans": "bridge",
    "out": "outro",
    "coda": "outro",
    "ending": "outro",
}
# Breaks, solos, instruments, and names that nobody else has.
OTHERWISE = "inst"
SOURCE = "github.com/urinieto/harmonixset"
SHEET = Sheet(
    "Harmonix",
    f"{SOURCE} (dataset/), recordings by its YouTube ids",
    "annotations MIT; no recording may be passed on",
    "dataset/segments/<name>.txt, dataset/metadata.csv (or both without dataset), and "
    "audio/<name>.wav (or .flac, .mp3)",
)


def section_class(name: str) -> str:
    """One of the seven, of a name such as "quietchorus" or "gtrbreak2"."""
    name = name.lower()
    return next((to for word, to in SECTION_WORDS.items() if word in name), OTHERWISE)


def harmonix(data_folder: str | Path) -> Labelled:
    """The sections of Harmonix, or of a folder with files like its own.

    `metadata.csv` names the artists; without it, songs are drawn for themselves.
    """
    root = one_of(data_folder, ("dataset", ""), "segments")
    paths = visible(root / "segments", "*.txt")
    if not paths:
        raise UserError(f"There is no .txt file in {root / 'segments'}.")
    artists = _artists(root / "metadata.csv")
    parts = drawn_parts(artists.get(path.stem, path.stem) for path in paths)
    clips = []
    for path in paths:
        found = read_boundaries(path, SOURCE)
        names = [section_class(label) for label in found.labels]
        labels = {SECTIONS: found._replace(labels=names).rows()}
        if path.stem in artists:
            labels["artist"] = artists[path.stem]
        beats = root / "beats_and_downbeats" / path.name
        if beats.is_file():
            labels[BEATS] = read_beats(beats, SOURCE).rows()
        part = parts[artists.get(path.stem, path.stem)]
        clips.append(TaggedClip(f"{path.stem}.wav", part, [], labels))
    notes = [
        OWN_SPLIT.format("artists" if artists else "songs"),
        "Seven kinds of sections; what comes before a chorus is a verse. Recordings of "
        "another release than the annotated one are not aligned.",
    ]
    audio = one_of(data_folder, ("audio", "dataset/audio", ""))
    return Labelled("Harmonix", audio, clips, CLASSES, ENDINGS, notes=notes)


def _artists(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path, SOURCE)))
    try:
        return {row["File"]: row["Artist"].strip().lower() for row in rows}
    except (KeyError, AttributeError) as error:
        raise damaged(
            path, f"it has no columns File and Artist ({error!r})", SOURCE
        ) from error
