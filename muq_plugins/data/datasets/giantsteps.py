"""GiantSteps keys: two minutes of electronic dance music, one key each.

Tested on the 604 recordings of GiantSteps-key with their original labels (the later
revision, GiantSteps+, has 600 of them with other labels: a number on it is another
number), trained on those of GiantSteps-MTG-key whose key is certain. Which ones these
are, and who validates, is in `giantsteps_clips.json.gz` of jukemir: 923, 236 and 604
recordings, no artist in two parts.
"""

from __future__ import annotations

from pathlib import Path

from muq_plugins.data.datasets.keys import KEYS, key_name
from muq_plugins.data.datasets.tagged import (
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    one_of,
    read_gzipped_json,
)

METADATA = "giantsteps_clips.json.gz"
SOURCE = "the folder metadata of github.com/p-lambda/jukemir"
# Of the test part and of the others; or all in one folder.
AUDIO = {
    "test": ("giantsteps-key-dataset/audio", "audio"),
    "train": ("giantsteps-mtg-key-dataset/audio", "audio"),
}
SHEET = Sheet(
    "GiantSteps",
    "zenodo.org/records/1095691 and 1101082 (audio.zip) or the scripts of "
    f"github.com/GiantSteps, the split from {SOURCE}",
    "CC BY-SA 4.0",
    "giantsteps-key-dataset/audio and giantsteps-mtg-key-dataset/audio with "
    f"<id>.LOFI.mp3 (or one folder audio for both), and {METADATA}",
)


def giantsteps_key(data_folder: str | Path) -> Labelled:
    """Both data sets as they are downloaded."""
    path = one_of(data_folder, ("", "metadata", "jukemir/metadata"), METADATA)
    path = path / METADATA
    clips: dict[str, TaggedClip] = {}
    for name, about in read_gzipped_json(path, SOURCE).items():
        key = key_name(str(about.get("y")))
        part, number = about.get("split"), about.get("extra", {}).get("id")
        if key is None or part not in ("train", "valid", "test") or number is None:
            raise damaged(path, f"{name!r} has no key, split or id", SOURCE)
        # A recording stands there once for each 30 s of it.
        folder = one_of(data_folder, AUDIO["test" if part == "test" else "train"])
        folder = folder.relative_to(data_folder).as_posix()
        labels = {"track": str(number)}
        if artist := about["extra"].get("beatport_metadata", {}).get("ARTIST"):
            labels["artist"] = artist
        known = f"{folder}/{number}.LOFI.mp3", part, [key], labels
        if clips.setdefault(f"{part} {number}", TaggedClip(*known)).tags != [key]:
            raise damaged(path, f"the recording {number} has two keys", SOURCE)
    notes = ["Labels of the test part: the original ones, not those of GiantSteps+."]
    return Labelled(
        "GiantSteps key, split of jukemir",
        Path(data_folder),
        list(clips.values()),
        list(KEYS),
        ("", ".wav"),
        notes=notes,
    )
