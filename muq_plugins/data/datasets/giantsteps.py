"""GiantSteps keys: two minutes of electronic dance music, one key each.

Tested on the 604 recordings of GiantSteps-key with their original labels (the later
revision, GiantSteps+, has 600 of them with other labels: a number on it is another
number), trained on those of GiantSteps-MTG-key whose key is certain. Which ones these
are, and who validates, is in `giantsteps_clips.json.gz` of jukemir: 923, 236 and 604
recordings, no artist in two parts.
"""

from __future__ import annotations

import re
from pathlib import Path

from muq_plugins.data.audio import AUDIO_EXTENSIONS
from muq_plugins.data.datasets.keys import KEYS, key_name
from muq_plugins.data.datasets.tagged import (
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    one_of,
    read_gzipped_json,
    visible,
)

METADATA = "giantsteps_clips.json.gz"
SOURCE = "the folder metadata of github.com/p-lambda/jukemir"
# Of the test part and of the others, of GitHub or of mirdata; or all in one folder.
AUDIO = {
    "test": ("giantsteps-key-dataset/audio", "giantsteps_key/audio", "audio"),
    "train": ("giantsteps-mtg-key-dataset/audio", "beatport_key/audio", "audio"),
}
# From GitHub files are called 10089.LOFI.mp3, from Zenodo "10089 Artist - Title.mp3".
NUMBER = re.compile(r"(\d+)(?:\.LOFI\.| )")
SHEET = Sheet(
    "GiantSteps",
    "zenodo.org/records/1095691 and 1101082 (audio.zip) or the scripts of "
    f"github.com/GiantSteps, the split from {SOURCE}",
    "CC BY-SA 4.0",
    "giantsteps-key-dataset/audio and giantsteps-mtg-key-dataset/audio (or as mirdata "
    "has them, giantsteps_key/audio and beatport_key/audio; or one folder audio for "
    f"both) with <id>.LOFI.mp3 or '<id> Artist - Title.mp3', and {METADATA}",
)


def giantsteps_key(data_folder: str | Path) -> Labelled:
    """Both data sets as they are downloaded."""
    path = one_of(data_folder, ("", "metadata", "jukemir/metadata"), METADATA)
    path = path / METADATA
    clips: dict[str, TaggedClip] = {}
    folders = {part: one_of(data_folder, places) for part, places in AUDIO.items()}
    files = {part: _numbered(folder) for part, folder in folders.items()}
    for name, about in read_gzipped_json(path, SOURCE).items():
        key = key_name(str(about.get("y")))
        part, number = about.get("split"), about.get("extra", {}).get("id")
        if key is None or part not in ("train", "valid", "test") or number is None:
            raise damaged(path, f"{name!r} has no key, split or id", SOURCE)
        # A recording stands there once for each 30 s of it.
        where = "test" if part == "test" else "train"
        folder = folders[where].relative_to(data_folder).as_posix()
        file = files[where].get(str(number), f"{number}.LOFI.mp3")
        labels = {"track": str(number)}
        if artist := about["extra"].get("beatport_metadata", {}).get("ARTIST"):
            labels["artist"] = artist
        known = f"{folder}/{file}", part, [key], labels
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


def _numbered(folder: Path) -> dict[str, str]:
    """Recordings by the number that they begin with."""
    names = [path.name for path in visible(folder, "*")]
    names = [name for name in names if name.lower().endswith(AUDIO_EXTENSIONS)]
    found = ((NUMBER.match(name), name) for name in names)
    return {match[1]: name for match, name in found if match}
