"""VocalSet 1.1: 20 singers, and the techniques that they sing with.

The split is MARBLE's, which no file holds: it follows from numpy's global generator,
seeded once with 42617, in three draws of scikit-learn's GroupShuffleSplit: who
validates the technique, who tests the singer, who validates the singer. A group is the
place of a file among the sorted files of its technique, so that unrelated recordings
share one. Technique is tested on five singers of its own; the singer is told by 17
techniques, the technique is one of 10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from muq_plugins.data.datasets.tagged import (
    Labelled,
    Sheet,
    TaggedClip,
    one_of,
    visible,
)
from muq_plugins.errors import UserError

SEED = 42617
# Of version 1.1, as it is unpacked: with any other number groups are others.
COUNT = 3613
TECHNIQUES = (
    *("belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill"),
    *("trillo", "vibrato", "vocal_fry"),
)
FOLDERS = (
    *TECHNIQUES,
    *("fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano"),
)
SINGERS = (*(f"f{i}" for i in range(1, 10)), *(f"m{i}" for i in range(1, 12)))
# On whom technique is tested: as in the paper of the data set.
TEST_SINGERS = ("f2", "f8", "m3", "m5", "m10")
# Files without a singer in their name, or with a wrong technique in it, and whose they
# are: as MARBLE has it.
NAMED_WRONGLY = {
    "lip_trill": {"lip_trill_arps": "f2", "scales_lip_trill": "m3"},
    "straight": {
        **{f"arpeggios_straight_{vowel}": "f4" for vowel in "aeiou"},
        **{f"scales_straight_{vowel}": "f4" for vowel in "aeiou"},
        "row_straight": "m8",
    },
    "vocal_fry": {"scales_vocal_fry": "f2"},
    "fast_forte": {"arps_fast_piano_c": "f9"},
    "fast_piano": {
        **{
            f"scales_{key}_fast_piano_{vowel}": "m10"
            for key in "cf"
            for vowel in "aeiou"
        },
        **{"fast_piano_arps_f": "f2", "arps_c_fast_piano": "m3"},
        "scales_fast_piano_f": "f3",
    },
}
# Copies, and songs without a known singer.
DELETED = {
    *("f2_scales_vibrato_a(1)", "caro_vibrato", "dona_vibrato", "row_vibrato"),
    "slow_vibrato_arps",
}
SOURCE = "zenodo.org/records/1203819 (VocalSet11.zip)"
SHEET = Sheet(
    "VocalSet",
    SOURCE,
    "CC BY 4.0",
    "FULL/<singer>/<context>/<technique>/<file>.wav",
)


def vocalset(data_folder: str | Path, label: str) -> Labelled:
    """VocalSet as it is downloaded, with the label "singer" or "technique"."""
    folder = one_of(data_folder, ("FULL", "VocalSet/FULL", ""), "female1")
    paths = visible(folder, "*/*/*/*.wav")
    files = _files(folder, paths)
    if not files:
        raise UserError(f"There is no recording of a singer in {folder}.")
    parts = draw_parts([(name, group) for _, name, group in files])[label]
    classes = SINGERS if label == "singer" else TECHNIQUES
    clips = []
    for (path, name, _), part in zip(files, parts, strict=True):
        if part is not None:
            technique, singer = name
            its = singer if label == "singer" else technique
            known = {"singer": singer, "technique": technique, "artist": singer}
            if label == "singer":
                del known["artist"]  # every singer is in every part
            clips.append(TaggedClip(path, part, [its], known))
    split, notes = "MARBLE's split", []
    if len(paths) != COUNT:
        split = f"drawn from {len(paths)} files"
        notes = [
            f"{len(paths)} files where VocalSet 1.1 has {COUNT}: MARBLE's draws make "
            "another split of them, and a number is comparable with others of the same "
            "files alone."
        ]
    notes += [
        "A group of the split is the place of a file in its folder of a technique: "
        "recordings of one song by one singer may be in two parts (T8)."
    ]
    name = f"VocalSet {label}, {split}"
    return Labelled(name, folder, clips, list(classes), notes=notes)


def _files(
    folder: Path, paths: Sequence[Path]
) -> list[tuple[str, tuple[str, str], int]]:
    """Every recording in MARBLE's order: path, technique and singer, group."""
    of_technique: dict[str, dict[str, str]] = {}
    # Below it: <singer>/<context>/<technique>/<file>; of two files with the same name
    # the last one stays.
    for path in paths:
        technique = path.parent.name
        if technique in FOLDERS and path.stem not in DELETED:
            singer = NAMED_WRONGLY.get(technique, {}).get(path.stem)
            stem = path.stem if singer is None else f"{singer}_{path.stem}"
            name = f"{stem}{path.suffix}"
            place = path.relative_to(folder).as_posix()
            of_technique.setdefault(technique, {})[name] = place
    files = []
    for technique in sorted(of_technique):
        for group, name in enumerate(sorted(of_technique[technique])):
            singer = re.split(r"[_.]", name)[0]
            if singer not in SINGERS:
                place = of_technique[technique][name]
                raise UserError(
                    f"{place} names none of the singers f1 to f9 and m1 to m11."
                )
            files.append((of_technique[technique][name], (technique, singer), group))
    return files


def draw_parts(
    files: Sequence[tuple[tuple[str, str], int]],
) -> dict[str, list[str | None]]:
    """The part of every file, a (technique, singer) and a group, for each task.

    None for what is in no part. The draws look at groups alone, so those of whole files
    are those of their chunks.
    """
    generator = np.random.RandomState(SEED)
    groups = np.array([group for _, group in files])
    technique: list[str | None] = [None] * len(files)
    learned = []
    for at, ((its, singer), _) in enumerate(files):
        if its in TECHNIQUES and singer in TEST_SINGERS:
            technique[at] = "test"
        elif its in TECHNIQUES:
            learned.append(at)
    singer_of: list[str | None] = ["test"] * len(files)
    _deal(technique, np.array(learned), groups, generator)
    rest, _ = _split(np.arange(len(files)), groups, 0.2, generator)
    _deal(singer_of, rest, groups, generator)
    return {"technique": technique, "singer": singer_of}


def _deal(parts: list, places: np.ndarray, groups: np.ndarray, generator) -> None:
    """Two fifths of the groups validate, the others train."""
    train, valid = _split(places, groups, 0.4, generator)
    for part, some in (("train", train), ("valid", valid)):
        for at in some:
            parts[at] = part


def _split(places, groups, share: float, generator) -> tuple[np.ndarray, np.ndarray]:
    splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=generator)
    try:
        kept, held_out = next(splitter.split(places, groups=groups[places]))
    except ValueError as error:
        raise UserError(f"Too few recordings to split: {error}.") from error
    return places[kept], places[held_out]
