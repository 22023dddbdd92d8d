"""GTZAN: 30 s recordings of ten genres, in the split without faults and shared artists.

The split is that of Kereliuk, Sturm and Larsen ("Deep learning and music adversaries",
arXiv 1507.04761): 443, 197 and 290 of the 1000 recordings. Its three files are in
github.com/coreyker/dnn-mgr (folder `gtzan`) and elsewhere; each line is a path such as
`blues/blues.00012.wav`. The audio comes as `genres/blues/blues.00012.wav` or `.au`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muq_plugins.data.datasets.tagged import (
    PARTS,
    TaggedClip,
    TaggedData,
    damaged,
    read_text,
    write_manifests,
)

GENRES = (
    "blues",
    "classical",
    "country",
    "disco",
    "hiphop",
    "jazz",
    "metal",
    "pop",
    "reggae",
    "rock",
)
# Cannot be decoded in the copy that most people have.
UNREADABLE = ("jazz/jazz.00054.wav",)
SOURCE = "the folder gtzan of github.com/coreyker/dnn-mgr"


def prepare_gtzan(
    annotation_folder: str | Path,
    audio_folder: str | Path,
    manifest_folder: str | Path,
    parts: Sequence[str] = PARTS,
    leave_out_missing: bool = False,
) -> TaggedData:
    """Write the manifests of GTZAN.

    Every clip has one tag, its genre, which is also its label "genre".
    """
    clips = []
    for part in PARTS:
        path = Path(annotation_folder) / f"{part}_filtered.txt"
        for number, line in enumerate(read_text(path, SOURCE).splitlines(), start=1):
            if name := line.strip():
                clips.append(_clip(name, part, f"{path}, line {number}"))
    return write_manifests(
        "GTZAN, fault-filtered split",
        manifest_folder,
        audio_folder,
        clips,
        GENRES,
        endings=("", ".au"),
        known_unreadable=UNREADABLE,
        parts=parts,
        leave_out_missing=leave_out_missing,
    )


def _clip(name: str, part: str, where: str) -> TaggedClip:
    genre, _, file = name.partition("/")
    if genre not in GENRES or not file.startswith(f"{genre}."):
        words = (
            f"{name!r} is no recording of GTZAN, such as 'blues/blues.00012.wav' with "
            f"one of {', '.join(GENRES)}"
        )
        raise damaged(where, words, SOURCE)
    return TaggedClip(name, part, [genre], {"genre": genre})
