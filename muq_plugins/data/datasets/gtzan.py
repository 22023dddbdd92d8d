"""GTZAN: 30 s recordings of ten genres, in the split without faults and shared artists.

The split is that of Kereliuk, Sturm and Larsen ("Deep learning and music adversaries",
arXiv 1507.04761): 443, 197 and 290 of the 1000 recordings. Its three files are in
github.com/coreyker/dnn-mgr (folder `gtzan`) and elsewhere; each line is a path such as
`blues/blues.00012.wav`. The audio comes as `genres/blues/blues.00012.wav` or `.au`.
"""

from __future__ import annotations

from pathlib import Path

from muq_plugins.data.datasets.annotations import BEATS, TEMPO, read_beats
from muq_plugins.data.datasets.keys import KEYS
from muq_plugins.data.datasets.tagged import (
    PARTS,
    Labelled,
    Sheet,
    TaggedClip,
    damaged,
    one_of,
    read_lines,
    read_text,
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
SPLIT = "GTZAN, fault-filtered split"
LISTS = ("", "gtzan", "GTZAN_split", "splits")
AUDIO = (
    *("genres_original", "genres", "Data/genres_original"),
    *("gtzan_genre/genres", ""),  # as mirdata unpacks it
)
SHEET = Sheet(
    "GTZAN",
    "kaggle.com/datasets/andradaolteanu/gtzan-dataset-music-genre-classification (the "
    f"official hosts are gone), the split from {SOURCE}",
    "no licence is stated: recordings of others, for research",
    "genres_original/<genre>/<genre>.NNNNN.wav (or genres/...) and "
    "train_filtered.txt, valid_filtered.txt, test_filtered.txt",
)
KEY_SOURCE = "github.com/alexanderlerch/gtzan_key"
KEY_FOLDERS = ("gtzan_key/genres", "gtzan_key/gtzan_key/genres", "genres")
# The annotations count the keys from A upwards, majors first; -1 is none or several.
FROM_A = 9
KEY_SHEET = Sheet(
    SHEET.name,
    f"{SHEET.source}, the keys from {KEY_SOURCE}",
    SHEET.licence,
    f"{SHEET.layout}, and gtzan_key/genres/<genre>/<genre>.NNNNN.lerch.txt",
)

BEAT_SOURCE = "github.com/TempoBeatDownbeat/gtzan_tempo_beat"
BEAT_FOLDERS = ("gtzan_tempo_beat", "gtzan_tempo_beat-main", "")
BEAT_SHEET = Sheet(
    SHEET.name,
    f"{SHEET.source}, beats and tempi (GTZAN-Rhythm) from {BEAT_SOURCE}",
    SHEET.licence,
    f"{SHEET.layout}, and gtzan_tempo_beat/beats/gtzan_<genre>_NNNNN.beats and "
    "gtzan_tempo_beat/tempo/gtzan_<genre>_NNNNN.bpm",
)


def gtzan_genre(data_folder: str | Path) -> Labelled:
    """GTZAN as it is downloaded; each genre is a tag, and the label "genre"."""
    lists = one_of(data_folder, LISTS, "train_filtered.txt")
    audio = one_of(data_folder, AUDIO, GENRES[0])
    endings = "", ".au"
    return Labelled(SPLIT, audio, _listed(lists), list(GENRES), endings, UNREADABLE)


def gtzan_key(data_folder: str | Path) -> Labelled:
    """GTZAN as it is downloaded, with the keys of Lerch."""
    genres = gtzan_genre(data_folder)
    folder = one_of(data_folder, KEY_FOLDERS, "blues/blues.00000.lerch.txt")
    clips, without = [], 0
    for clip in genres.clips:
        path = folder / Path(clip.path).with_suffix(".lerch.txt")
        text = read_text(path, KEY_SOURCE).strip()
        if text not in map(str, range(-1, len(KEYS))):
            words = f"{text[:20]!r} is no key from 0 to 23, and not -1"
            raise damaged(path, words, KEY_SOURCE)
        if text == "-1":
            without += 1
            continue
        key = int(text)
        place = (key + FROM_A) % 12 + (12 if key >= 12 else 0)
        clips.append(TaggedClip(clip.path, clip.part, [KEYS[place]], clip.labels))
    note = f"{without} recordings without one key are left out."
    known = list(KEYS), genres.endings, UNREADABLE, [note] * bool(without)
    return Labelled(f"{SPLIT}, keys of Lerch", genres.audio_folder, clips, *known)


def _listed(folder: str | Path) -> list[TaggedClip]:
    """What the three lists of the split list."""
    clips = []
    for part in PARTS:
        path = Path(folder) / f"{part}_filtered.txt"
        for number, line in enumerate(read_lines(path, SOURCE), start=1):
            if name := line.strip():
                clips.append(_clip(name, part, f"{path}, line {number}"))
    return clips


def _clip(name: str, part: str, where: str) -> TaggedClip:
    genre, _, file = name.partition("/")
    if genre not in GENRES or not file.startswith(f"{genre}."):
        words = (
            f"{name!r} is no recording of GTZAN, such as 'blues/blues.00012.wav' with "
            f"one of {', '.join(GENRES)}"
        )
        raise damaged(where, words, SOURCE)
    return TaggedClip(name, part, [genre], {"genre": genre})


def gtzan_beats(data_folder: str | Path) -> Labelled:
    """GTZAN as it is downloaded, with its beats, downbeats and tempi."""
    genres = gtzan_genre(data_folder)
    folder = one_of(data_folder, BEAT_FOLDERS, "beats")
    clips, barless = [], 0
    for clip in genres.clips:
        genre, number = Path(clip.path).stem.split(".")
        name = f"gtzan_{genre}_{number}"
        path = folder / "beats" / f"{name}.beats"
        beats = read_beats(path, BEAT_SOURCE)
        barless += not beats.knows_bars
        path = folder / "tempo" / f"{name}.bpm"
        text = read_text(path, BEAT_SOURCE)
        try:
            tempo = float(text)
        except ValueError:
            tempo = 0.0
        if not 0 < tempo < 1000:
            raise damaged(path, f"{text[:20]!r} is no tempo", BEAT_SOURCE)
        labels = {**clip.labels, BEATS: beats.rows(), TEMPO: tempo}
        clips.append(TaggedClip(clip.path, clip.part, clip.tags, labels))
    notes = [f"Of {barless} recordings bars are not known."] * bool(barless)
    known = ["beat", "downbeat"], genres.endings, UNREADABLE, notes
    return Labelled(f"{SPLIT}, GTZAN-Rhythm", genres.audio_folder, clips, *known)
