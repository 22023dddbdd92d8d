"""Chords as Harte writes them: Chords1217, Isophonics, Billboard, any folder of `.lab`.

The annotations are published, the recordings are not: the user has them. Chords1217 is
the collection of 1217 songs that chord recognition is compared on (from Isophonics,
Billboard and others), whose ids and five folds are in github.com/music-x-lab; who has
the files of `m-a-p/Chords1217` gets the split of MARBLE. The others have no published
split: whole artists, albums or folders are drawn, always the same.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from muq_plugins.data.clips import keyed_integer
from muq_plugins.data.datasets.annotations import CHORDS, Intervals, read_intervals
from muq_plugins.data.datasets.tagged import (
    PARTS,
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    drawn_parts,
    one_of,
    read_lines,
    read_text,
    visible,
)
from muq_plugins.errors import UserError

ROOTS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
#: Every major triad upwards from C, then every minor one, then none.
TRIADS = [*(f"{root}:{mode}" for mode in ("maj", "min") for root in ROOTS), "N"]
# What a recording may be, under the name of its annotation.
ENDINGS = ("", ".flac", ".mp3", ".m4a", ".ogg", ".aiff")
OWN_SPLIT = (
    "No split is published for it: ours draws whole {}, so that a number is comparable "
    "with others of this split alone."
)
FOLD_SOURCE = (
    "the folder data of "
    "github.com/music-x-lab/ISMIR2019-Large-Vocabulary-Chord-Recognition"
)
CHORDS1217_SHEET = Sheet(
    "Chords1217",
    f"huggingface.co/datasets/m-a-p/Chords1217 (behind a form), or {FOLD_SOURCE}, with "
    "chords and recordings of your own under these ids",
    "that of each collection in it; no recording may be passed on",
    "audio/<id>.flac (or .wav, .mp3) and Chords1217.train.jsonl, .val.jsonl and "
    ".test.jsonl; or in their place train00.csv, test00.csv and chordlab/<id>.lab",
)
ISOPHONICS_SHEET = Sheet(
    "Isophonics",
    "isophonics.net/content/reference-annotations (the annotations of The Beatles, "
    "Queen, Zweieck and Carole King)",
    "no licence is stated; the recordings are albums that you own",
    "chordlab/<artist>/<album>/<song>.lab (or annotations/chordlab/...) and "
    "audio/<artist>/<album>/<song>.wav (or .flac, .mp3; <artist> may be left out)",
)
BILLBOARD_SHEET = Sheet(
    "Billboard",
    "ddmal.music.mcgill.ca/research (billboard-2.0.1-lab.tar.gz and "
    "billboard-2.0-index.csv)",
    "annotations CC0; the recordings are yours to get",
    "McGill-Billboard/<id>/full.lab, billboard-2.0-index.csv and audio/<id>.wav (or "
    ".flac, .mp3; or as mirdata has them, audio/1960s/<artist>/<title>/audio.flac)",
)
HARTE_SHEET = Sheet(
    "Harte",
    "you: any folder of chords as Harte writes them",
    "that of your recordings",
    "<song>.lab, in folders or not, with <song>.wav (or .flac, .mp3) beside it or "
    "under audio",
)


def chords1217(data_folder: str | Path) -> Labelled:
    """Chords1217 with the split of MARBLE, or with fold 0 of the published five."""
    folder = Path(data_folder)
    if (folder / "Chords1217.train.jsonl").is_file():
        return _of_marble(folder)
    lists = one_of(folder, ("", "data", "splits"), "train00.csv")
    test = _ids(lists / "test00.csv")
    train = [one for one in _ids(lists / "train00.csv") if one not in set(test)]
    # Nobody validates in the published folds.
    drawn = sorted(train, key=lambda one: keyed_integer(2**64, "validates", one))
    valid = set(drawn[: max(1, len(drawn) // 5)])
    part = {one: "valid" if one in valid else "train" for one in train}
    part.update(dict.fromkeys(test, "test"))
    labs = one_of(folder, ("chordlab", "lab", "labs", ""), f"{next(iter(part))}.lab")
    clips = [
        _clip(f"{one}.wav", part[one], labs / f"{one}.lab", FOLD_SOURCE) for one in part
    ]
    notes = [
        "The split of MARBLE is not public: this is fold 0 of the published five, in "
        "which a fifth of the training part validates."
    ]
    audio = one_of(folder, ("audio", ""))
    return _labelled("Chords1217, fold 0", audio, clips, notes)


def _of_marble(folder: Path) -> Labelled:
    clips = []
    for part, word in (("train", "train"), ("valid", "val"), ("test", "test")):
        path = folder / f"Chords1217.{word}.jsonl"
        source = CHORDS1217_SHEET.source
        for number, line in enumerate(read_lines(path, source), start=1):
            try:
                about = json.loads(line)
                file = Path(about["audio_path"]).name
                rows = [
                    [one["start_time"], one["end_time"], one["chord_str"]]
                    for one in about["label"]
                    if one["end_time"] > one["start_time"]
                ]
            except (ValueError, KeyError, TypeError) as error:
                words = f"line {number} is not as it is published ({error!r})"
                raise damaged(path, words, source) from error
            rows = Intervals.of(rows, f"{path}, line {number}").rows()
            clips.append(TaggedClip(file, part, [], {CHORDS: rows}))
    audio = one_of(folder, ("audio", ""))
    return _labelled("Chords1217, split of MARBLE", audio, clips, [])


def isophonics(data_folder: str | Path) -> Labelled:
    """Isophonics as it unpacks, in parts of whole albums."""
    folder = Path(data_folder)
    labs = one_of(folder, ("chordlab", "annotations/chordlab"))
    audio = one_of(folder, ("audio", ""))
    return _drawn("Isophonics", labs, audio, ISOPHONICS_SHEET, "album")


def harte(data_folder: str | Path) -> Labelled:
    """Any folder of `.lab` files, in parts of whole subfolders."""
    folder = Path(data_folder)
    audio = one_of(folder, ("audio", ""))
    return _drawn("Harte .lab files", folder, audio, HARTE_SHEET, "folder")


def _drawn(name: str, labs: Path, audio: Path, sheet: Sheet, group: str) -> Labelled:
    """Songs by the folder that they are in, or each for itself if those are few."""
    paths = visible(labs, "**/*.lab")
    if not paths:
        raise UserError(f"There is no .lab file in {labs}.")
    group_of, clips = {}, []
    for path in paths:
        song = path.relative_to(labs)
        group_of[path] = song.parent.as_posix() if len(song.parts) > 1 else song.stem
    if len(set(group_of.values())) < len(PARTS):
        group = "song"
        group_of = {
            one: one.relative_to(labs).with_suffix("").as_posix() for one in paths
        }
    parts = drawn_parts(group_of.values())
    for path, its in group_of.items():
        song = path.relative_to(labs).with_suffix("")
        # Not all keep a folder for the only artist.
        if len(song.parts) > 2 and not (audio / song.parts[0]).is_dir():
            song = Path(*song.parts[1:])
        about = parts[its], path, sheet.source, {group: its}
        clips.append(_clip(f"{song.as_posix()}.wav", *about))
    notes = [OWN_SPLIT.format(f"{group}s")]
    return _labelled(name, audio, clips, notes, group)


def billboard(data_folder: str | Path) -> Labelled:
    """The McGill Billboard annotations as they unpack, in parts of whole artists."""
    folder, source = Path(data_folder), BILLBOARD_SHEET.source
    index = folder / "billboard-2.0-index.csv"
    rows = list(csv.DictReader(io.StringIO(read_text(index, source))))
    labs = one_of(folder, ("McGill-Billboard", "annotations/LABs", "LABs", ""))
    audio, found = one_of(folder, ("audio", "")), []
    try:
        for row in rows:
            # Some slots of the charts are not annotated, and some songs are twice.
            number, song = f"{int(row['id']):04}", (row["artist"], row["title"])
            if row["title"] and (labs / number / "full.lab").is_file():
                decade = f"{row['chart_date'][:3]}0s"
                known = (audio / decade).is_dir()
                file = "/".join([decade, *song, "audio"]) if known else number
                found.append((number, *song, f"{file}.wav"))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(index, f"it is no index of it ({error!r})", source) from error
    if not found:
        raise UserError(f"There is no <id>/full.lab in {labs} for any id of {index}.")
    parts = drawn_parts(artist for _, artist, *_ in found)
    songs, clips = set(), []
    for number, artist, title, file in found:
        if (artist, title) not in songs:
            songs.add((artist, title))
            path, about = labs / number / "full.lab", {"artist": artist}
            clips.append(_clip(file, parts[artist], path, source, about))
    notes = [OWN_SPLIT.format("artists"), "Of a song that is there twice, the first."]
    return _labelled("Billboard", audio, clips, notes)


def _ids(path: Path) -> list[str]:
    found = read_text(path, FOLD_SOURCE).split()
    if not found:
        raise damaged(path, "it lists no id", FOLD_SOURCE)
    return found


def _clip(
    name: str, part: str, path: Path, source: str, labels: dict | None = None
) -> TaggedClip:
    rows = read_intervals(path, source).rows()
    return TaggedClip(name, part, [], {CHORDS: rows, **(labels or {})})


def _labelled(
    name: str,
    audio: Path,
    clips: Iterable[TaggedClip],
    notes: Sequence[str],
    group: str = "artist",
) -> Labelled:
    known = TRIADS, ENDINGS
    return Labelled(name, audio, list(clips), *known, notes=notes, group=group)
