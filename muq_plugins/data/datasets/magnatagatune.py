"""MagnaTagATune: 29 s clips with tags, in the two splits of the field.

Published as `annotations_final.csv`: columns divided by tabs, all in quotes, `clip_id`,
188 tags of 0 or 1, and `mp3_path`, such as `f/artist-album-01-title-30-59.mp3`; and as
three parts of one zip file of mp3 in the folders `0` to `f`.

The two splits are not comparable, and which one a number is on must be said with it:

- "folders": `0` to `b` are train, `c` valid, `d` to `f` test. Clips without any of the
  50 tags stay in.
- "lee-won" (Lee et al., arXiv 1703.01789; the toolkit of Won et al., arXiv 2006.00751):
  lists of clips with at least one of the 50 tags and 29.1 s of audio, in the folder
  `MTAT_split` of github.com/jongpillee/music_dataset_split.
"""

from __future__ import annotations

import csv
import pickletools
import re
from pathlib import Path

import numpy as np

from muq_plugins.data.datasets.tagged import (
    PARTS,
    Labelled,
    Sheet,
    TaggedClip,
    check_choice,
    damaged,
    one_of,
    read_bytes,
    read_lines,
    read_text,
)
from muq_plugins.errors import UserError

TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"}
TEXTS |= {"SHORT_BINUNICODE", "BINUNICODE8"}
# What a list of texts needs besides: its marks, its memory and its frame.
LIST = {"MARK", "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "STOP", "PROTO", "FRAME"}
MEMORY = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
SPLITS = ("folders", "lee-won")
FOLDERS = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "valid",
    **dict.fromkeys("def", "test"),
}
TOP = 50
# 0 bytes each where they are published.
UNREADABLE = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-"
    "204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_"
    "xiveme_ordre_couperin-88-117.mp3",
)
ANNOTATIONS = "annotations_final.csv"
SOURCE = "mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"
SPLIT_SOURCE = "the folder MTAT_split of github.com/jongpillee/music_dataset_split"
LISTS = ("MTAT_split", "music_dataset_split/MTAT_split", "")
SHEET = Sheet(
    "MagnaTagATune",
    f"{SOURCE} (mp3.zip.001 to .003 and {ANNOTATIONS}), the lists of Lee and Won from "
    f"{SPLIT_SOURCE}",
    "the audio is Magnatune's, CC BY-NC-SA 3.0",
    f"mp3/0 to mp3/f, {ANNOTATIONS}, and MTAT_split/ for the split of Lee and Won",
)


def magnatagatune(data_folder: str | Path, split: str = "folders") -> Labelled:
    """MagnaTagATune as it is downloaded, with the 50 tags of one split."""
    check_choice("split", split, SPLITS)
    names, matrix, paths = read_annotations(Path(data_folder) / ANNOTATIONS)
    if split == "folders":
        # Stable: tags that are equally frequent keep the order of their columns.
        top = np.argsort(-matrix.sum(axis=0), kind="stable")[:TOP]
        parted = [(row, _folder_part(path)) for row, path in enumerate(paths)]
    else:
        lists = one_of(data_folder, LISTS, "top50_tags.txt")
        top = _listed_tags(lists / "top50_tags.txt", names)
        parted = _lee_won(lists, paths, matrix[:, top])
    tags, matrix = [names[i] for i in top], matrix[:, top]
    clips = [
        TaggedClip(
            paths[row],
            part,
            [tags[i] for i in np.flatnonzero(matrix[row])],
            _names(paths[row].partition("/")[2]),
        )
        for row, part in parted
    ]
    audio = one_of(data_folder, ("mp3", ""), "0")
    known = {"known_unreadable": UNREADABLE}
    return Labelled(f"MagnaTagATune, split {split}", audio, clips, tags, **known)


def _names(file: str) -> dict[str, str]:
    """Song and artist, as the name of a file has them."""
    song = re.sub(r"-\d+-\d+\.mp3$", "", file)
    return {"song": song, "artist": song.partition("-")[0]}


def _folder_part(path: str) -> str:
    folder = path.partition("/")[0]
    if folder not in FOLDERS:
        raise damaged(ANNOTATIONS, f"{path!r} is in none of the folders 0 to f", SOURCE)
    return FOLDERS[folder]


def read_annotations(path: str | Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Read `annotations_final.csv`."""
    lines = read_lines(path, SOURCE)
    header, *rows = csv.reader(lines, delimiter="\t") if lines else [[]]
    if header[:1] != ["clip_id"] or header[-1] != "mp3_path":
        wanted = "it must have the columns clip_id, tags and mp3_path, divided by tabs"
        raise damaged(path, wanted, SOURCE)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or set(row[1:-1]) - {"0", "1"}:
            wanted = f"expected {len(header)} columns, 0 or 1 for every tag"
            raise damaged(f"{path}, line {number}", wanted, SOURCE)
    matrix = np.array([row[1:-1] for row in rows]) == "1"
    matrix = matrix.reshape(len(rows), len(header) - 2)
    return header[1:-1], matrix, [row[-1] for row in rows]


def _listed_tags(path: Path, names: list[str]) -> list[int]:
    """Columns of the tags of a list, where "no vocals" is written "noVocals"."""
    columns = {name.replace(" ", "").lower(): i for i, name in enumerate(names)}
    listed = read_text(path, SPLIT_SOURCE).split()
    for tag in listed or ["nothing"]:
        if tag.lower() not in columns:
            words = f"it lists the tag {tag!r}, which is no column of {ANNOTATIONS}"
            raise damaged(path, words, SPLIT_SOURCE)
    return [columns[tag.lower()] for tag in listed]


def _lee_won(
    folder: Path, paths: list[str], matrix: np.ndarray
) -> list[tuple[int, str]]:
    """Row in the annotations and part of every clip of the lists."""
    rows = {path: row for row, path in enumerate(paths)}
    parted = []
    for part in PARTS:
        file = folder / f"{part}_list_pub.cP"
        listed = []
        for name in read_pickled_texts(file):
            path = str(Path(name).with_suffix(".mp3").as_posix())
            if path not in rows:
                words = f"it lists {name!r}, but {ANNOTATIONS} has no {path!r}"
                raise damaged(file, words, f"{SPLIT_SOURCE}, and that from {SOURCE}")
            listed.append(rows[path])
        _check_truth(folder / f"y_{part}_pub.npy", listed, paths, matrix)
        parted += [(row, part) for row in listed]
    return parted


def _check_truth(
    file: Path, listed: list[int], paths: list[str], matrix: np.ndarray
) -> None:
    """Refuses a published matrix that is not that of the annotations."""
    if not file.is_file():
        return
    try:
        truth = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise damaged(file, f"it is no matrix ({error})", SPLIT_SOURCE) from error
    expected = matrix[listed]
    if truth.shape != expected.shape:
        words = f"it is {truth.shape}, but the clips of its list {expected.shape}"
        raise damaged(file, words, SPLIT_SOURCE)
    differs = (truth.astype(bool) != expected).any(axis=1)
    if differs.any():
        first = paths[listed[int(differs.argmax())]]
        words = (
            f"{ANNOTATIONS} gives different tags to {first!r}, or in another order "
            f"({int(differs.sum())} of {len(listed)} clips)"
        )
        raise damaged(file, words, f"{SPLIT_SOURCE}, and that from {SOURCE}")


def read_pickled_texts(path: str | Path) -> list[str]:
    """The texts of a list that Python 2 has pickled (`.cP`), without unpickling.

    Loading a pickle runs it as a program. These lists hold texts alone, so any
    operation that makes something else is refused.
    """
    content, texts, lists = read_bytes(path, SPLIT_SOURCE), [], 0
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in TEXTS:
                texts.append(argument)
            elif operation.name not in LIST | MEMORY:
                words = f"its {operation.name} is no text, and could run a program"
                raise damaged(path, words, SPLIT_SOURCE)
            lists += operation.name in ("LIST", "EMPTY_LIST")
    except UserError:
        raise
    except ValueError as error:
        raise damaged(path, f"it is no whole pickle ({error})", SPLIT_SOURCE) from error
    if lists != 1:
        raise damaged(path, f"it holds {lists} lists instead of one", SPLIT_SOURCE)
    return texts
