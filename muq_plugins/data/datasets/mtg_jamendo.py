"""MTG-Jamendo: full songs with tags, in four sets of tags and five splits.

Published in github.com/MTG/mtg-jamendo-dataset as
`data/splits/split-K/autotagging_SET-{train,validation,test}.tsv`: a line of column
names, then for each song `TRACK_ID ARTIST_ID ALBUM_ID PATH DURATION TAGS`, divided by
tabs, with as many further columns as it has further tags. The audio comes as
`87/4887.mp3`, or in the small edition as `87/4887.low.mp3`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muq_plugins.data.datasets.tagged import (
    Labelled,
    Sheet,
    TaggedClip,
    check_choice,
    damaged,
    one_of,
    read_lines,
)

# Name of each set in file names, and what its tags start with.
TAG_SETS = {
    "top50": ("top50tags", ("genre", "instrument", "mood/theme")),
    "genre": ("genre", ("genre",)),
    "instrument": ("instrument", ("instrument",)),
    "moodtheme": ("moodtheme", ("mood/theme",)),
}
SPLITS = range(5)
COLUMNS = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
FILE_PARTS = {"train": "train", "valid": "validation", "test": "test"}
SOURCE = "the folder data/splits of github.com/MTG/mtg-jamendo-dataset"
ENDINGS = ("", ".low.mp3")
LISTS = ("data/splits", "mtg-jamendo-dataset/data/splits", "splits")
AUDIO = ("audio-low", "raw_30s/audio-low", "audio", "raw_30s/audio", "audios", "")
SHEET = Sheet(
    "MTG-Jamendo",
    "github.com/MTG/mtg-jamendo-dataset (scripts/download/download.py --dataset "
    "raw_30s --type audio-low, 156 GB)",
    "audio under Creative Commons licences, metadata CC BY-NC-SA 4.0",
    "audio-low/00 to audio-low/99 and data/splits/split-0/*.tsv",
)


def mtg_jamendo(
    data_folder: str | Path, tag_set: str = "top50", split: int = 0
) -> Labelled:
    """MTG-Jamendo as it is downloaded, tags in the order that MARBLE has."""
    check_choice("tag_set", tag_set, TAG_SETS)
    check_choice("split", split, SPLITS)
    name, kinds = TAG_SETS[tag_set]
    folder = one_of(data_folder, LISTS, f"split-{split}") / f"split-{split}"
    clips = []
    for part, word in FILE_PARTS.items():
        clips += _read(folder / f"autotagging_{name}-{word}.tsv", part, kinds)
    tags = list(dict.fromkeys(tag for clip in clips for tag in clip.tags))
    audio = one_of(data_folder, AUDIO, "00")
    return Labelled(
        f"MTG-Jamendo {tag_set}, split {split}", audio, clips, tags, ENDINGS
    )


def spoken_tag(tag: str) -> str:
    """What a tag says, for a prompt."""
    return tag.rpartition("---")[2]


def _read(path: Path, part: str, kinds: Sequence[str]) -> list[TaggedClip]:
    header, *lines = read_lines(path, SOURCE) or [""]
    if header.strip().split("\t") != COLUMNS:
        wanted = f"it must start with the columns {' '.join(COLUMNS)}, divided by tabs"
        raise damaged(path, wanted, SOURCE)
    clips = []
    for number, line in enumerate(lines, start=2):
        cells = line.split("\t")
        tags = cells[len(COLUMNS) - 1 :]
        for tag in tags or [""]:
            if tag.partition("---")[0] not in kinds:
                words = f"the tag {tag!r} does not start with {' or '.join(kinds)}"
                raise damaged(f"{path}, line {number}", words, SOURCE)
        track, artist, album, audio = cells[:4]
        labels = {"track": track, "artist": artist, "album": album}
        clips.append(TaggedClip(audio, part, tags, labels))
    return clips
