"""Data sets of MARBLE in the layouts of their official downloads, made by the test."""

import gzip
import json
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import GroupShuffleSplit

from muq_plugins.data.datasets.keys import KEYS, key_name
from muq_plugins.data.datasets.vocalset import (
    FOLDERS,
    SEED,
    SINGERS,
    TECHNIQUES,
    TEST_SINGERS,
    draw_parts,
)
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.run import _left_out
from muq_plugins.evaluation.marble.task import open_task
from muq_plugins.evaluation.marble.tasks import TASKS
from tests.unit.data.datasets.conftest import published


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture(autouse=True)
def headers(monkeypatch):
    """Layouts are at stake here, not audio: every file that is there is a second."""
    from muq_plugins.data.audio import AudioInfo
    from muq_plugins.data.datasets import tagged

    monkeypatch.setattr(tagged, "audio_info", lambda path: AudioInfo(8000, 8000, 1))


def labels_of(opened):
    classes = opened.labelled.classes
    return {
        one.name: (one.part, classes[target])
        for one, target in zip(opened.recordings, opened.targets, strict=True)
    }


def write_gzip(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


def test_giantsteps(tmp_path):
    def about(number, part, key, artist=None):
        extra = {"id": number}
        if artist:
            extra["beatport_metadata"] = {"ARTIST": artist}
        return {"split": part, "y": key, "extra": extra}

    write_gzip(
        tmp_path / "giantsteps_clips.json.gz",
        {
            "0000001-0": about(1, "train", "Eb minor", "A"),
            "0000001-1": about(1, "train", "Eb minor", "A"),
            "0000002-0": about(2, "valid", "C major", "B"),
            "0000001-2": about(1, "test", "D# minor"),
        },
    )
    train, test = "giantsteps-mtg-key-dataset/audio", "giantsteps-key-dataset/audio"
    for name in (f"{train}/1", f"{train}/2", f"{test}/1"):
        touch(tmp_path / f"{name}.LOFI.mp3", tmp_path / f"{name}.LOFI.mp3.part")
    opened = open_task(TASKS["giantsteps_key"], tmp_path)
    assert labels_of(opened) == {
        f"{train}/1.LOFI.mp3": ("train", "Eb minor"),
        f"{train}/2.LOFI.mp3": ("valid", "C major"),
        f"{test}/1.LOFI.mp3": ("test", "Eb minor"),
    }
    assert opened.labelled.classes == list(KEYS)
    assert "not those of GiantSteps+" in opened.labelled.notes[0]  # T20
    # Artists of the training part are no groups of the test part.
    assert "Artists are not known in the test part" in _left_out(opened, {0, 1, 2})[0]
    (tmp_path / test / "1.LOFI.mp3").unlink()
    with pytest.raises(UserError, match=r"1 of 3 recordings are missing: .*zenodo"):
        open_task(TASKS["giantsteps_key"], tmp_path)
    with pytest.raises(UserError, match="No recording of the part 'test'"):
        open_task(TASKS["giantsteps_key"], tmp_path, leave_out_missing=True)
    # As Zenodo calls them, in the folders of mirdata.
    for name in ("giantsteps-mtg-key-dataset", "giantsteps-key-dataset"):
        (tmp_path / name).rename(tmp_path / f"before {name}")
    files = ["beatport_key/audio/1 A - X (Original Mix).mp3"]
    files += ["beatport_key/audio/2 B - 3 Y.mp3", "beatport_key/audio/12 C - Z.mp3"]
    files += ["giantsteps_key/audio/1 D - V.mp3"]
    touch(*(tmp_path / name for name in files))
    names = list(labels_of(open_task(TASKS["giantsteps_key"], tmp_path)))
    assert names == [files[0], files[1], files[3]]


def test_emo_is_standardised_by_training_and_validation(tmp_path):
    def about(number, part, arousal, valence):
        known = {"song_id": str(number), "mean_arousal": arousal}
        songs = {"Artist": f"\t{number} "}
        extra = {"static_annotations": {**known, "mean_valence": valence}}
        return {"split": part, "extra": {**extra, "songs_info": songs}}

    parts = ["train", "train", "valid", "test"]
    rows = [(1.0, 4.0), (3.0, 8.0), (5.0, 6.0), (9.0, 6.0)]
    content = {
        f"000{i}": about(i, part, *map(str, row))
        for i, (part, row) in enumerate(zip(parts, rows, strict=True))
    }
    write_gzip(tmp_path / "emomusic.json.gz", content)
    touch(*(tmp_path / "clips_45seconds" / f"{i}.mp3" for i in range(4)))
    opened = open_task(TASKS["emo"], tmp_path)
    known = np.array(rows[:3])
    expected = (np.array(rows) - known.mean(axis=0)) / known.std(axis=0)
    assert opened.targets == pytest.approx(expected)
    assert opened.recordings[3].labels["artist"] == "3"


def test_nsynth(tmp_path):
    for part in ("train", "valid", "test"):
        name = f"bass_electronic_018-022-{part}"
        about = {"instrument_family_str": "bass", "pitch": 22, "instrument_str": "b18"}
        touch(tmp_path / f"nsynth-{part}/audio/{name}.wav")
        path = tmp_path / f"nsynth-{part}/examples.json"
        path.write_text(json.dumps({name: about}))
    pitch = open_task(TASKS["nsynth_pitch"], tmp_path)
    assert pitch.targets.tolist() == [21] * 3  # MARBLE: the pitch minus one
    assert len(pitch.labelled.classes) == 128
    family = open_task(TASKS["nsynth_instrument"], tmp_path)
    assert family.targets.tolist() == [0] * 3
    assert len(family.labelled.classes) == 11
    assert family.labelled.classes == sorted(family.labelled.classes)
    path.write_text(json.dumps({name: {**about, "instrument_family_str": "gong"}}))
    with pytest.raises(UserError, match="'gong'.*Get it again from magenta"):
        open_task(TASKS["nsynth_instrument"], tmp_path)


def by_the_three_draws(files):
    """MARBLE's way: one global generator, three draws in this order."""
    np.random.seed(SEED)
    sung = [i for i, ((t, s), _) in enumerate(files) if t in TECHNIQUES]
    learned = np.array([i for i in sung if files[i][0][1] not in TEST_SINGERS])
    groups = np.array([group for _, group in files])

    def draw(places, share):
        split = GroupShuffleSplit(n_splits=1, test_size=share)
        train, test = next(split.split(places, groups=groups[places]))
        return set(places[train]), set(places[test])

    technique = draw(learned, 0.4)
    rest, test = draw(np.arange(len(files)), 0.2)
    singer = draw(np.array(sorted(rest)), 0.4)
    tested = {i for i in sung if files[i][0][1] in TEST_SINGERS}
    return {"technique": (*technique, tested), "singer": (*singer, test)}


def test_three_draws_of_vocalset():
    """T17: with scikit-learn's splitter and numpy's global generator."""
    files = [
        ((technique, SINGERS[(number + place) % 20]), place)
        for number, technique in enumerate(FOLDERS)
        for place in range(12 + number)
    ]
    found, expected = draw_parts(files), by_the_three_draws(files)
    for task in ("technique", "singer"):
        for part, places in zip(
            ("train", "valid", "test"), expected[task], strict=True
        ):
            its = {i for i, given in enumerate(found[task]) if given == part}
            assert its == places, (task, part)
    assert None not in found["singer"]
    assert found["technique"].count(None) == sum(
        t not in TECHNIQUES for (t, _), _ in files
    )


def test_vocalset(tmp_path):
    names = [f"{singer}_a_{i}" for singer in SINGERS for i in range(2)]
    for name in names:
        singer = re.sub("^f", "female", re.sub("^m", "male", name.split("_")[0]))
        for technique in ("belt", "vibrato", "forte", "unknown"):
            touch(tmp_path / f"FULL/{singer}/scales/{technique}/{name}.wav")
    touch(tmp_path / "FULL/male8/excerpts/straight/row_straight.wav")
    touch(tmp_path / "FULL/male8/excerpts/straight/._row_straight.wav")
    touch(tmp_path / "FULL/male8/excerpts/vibrato/row_vibrato.wav")
    singer = open_task(TASKS["vocalset_singer"], tmp_path)
    assert len(singer.recordings) == 40 * 3 + 1
    assert labels_of(singer)["male8/excerpts/straight/row_straight.wav"][1] == "m8"
    assert singer.labelled.classes == list(SINGERS)
    # One file less draws other groups: it is MARBLE's split of the whole set alone.
    assert singer.labelled.name == "VocalSet singer, drawn from 162 files"
    assert "162 files where VocalSet 1.1 has 3613" in singer.labelled.notes[0]
    technique = open_task(TASKS["vocalset_technique"], tmp_path)
    assert len(technique.recordings) == 40 * 2 + 1
    tested = [one for one in technique.recordings if one.part == "test"]
    assert {one.labels["singer"] for one in tested} == set(TEST_SINGERS)
    touch(tmp_path / "FULL/male8/excerpts/straight/nobody.wav")
    with pytest.raises(UserError, match="nobody.wav names none of the singers"):
        open_task(TASKS["vocalset_singer"], tmp_path)
    with pytest.raises(UserError, match="no recording of a singer.*zenodo.*CC BY"):
        open_task(TASKS["vocalset_singer"], tmp_path / "FULL/male8/excerpts/belt")


def test_mtg_jamendo_in_the_order_of_first_appearance(tmp_path):
    """T7: tags stand in the order in which the three parts first name them."""
    tags = {"train": ["genre---rock", "genre---ambient"], "validation": ["genre---pop"]}
    tags["test"] = ["genre---ambient", "genre---folk"]
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
    for number, (part, its) in enumerate(tags.items()):
        path = tmp_path / f"data/splits/split-0/autotagging_genre-{part}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = (
            f"track_{number}",
            f"artist_{number}",
            "album_0",
            f"0{number}/{number}.mp3",
        )
        path.write_text(header + "\t".join([*cells, "29.0", *its]) + "\n")
        touch(tmp_path / f"raw_30s/audio-low/0{number}/{number}.low.mp3")
    opened = open_task(TASKS["mtg_genre"], tmp_path)
    assert opened.labelled.classes == [
        *("genre---rock", "genre---ambient", "genre---pop", "genre---folk")
    ]
    assert opened.targets.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert [one.labels["artist"] for one in opened.recordings] == [
        *("artist_0", "artist_1", "artist_2")
    ]
    (tmp_path / "raw_30s").rename(tmp_path / "before")
    touch(*(tmp_path / f"audios/0{n}/{n}.mp3" for n in range(3)))  # as mirdata has it
    opened = open_task(TASKS["mtg_genre"], tmp_path)
    assert opened.recordings[2].wav == str(tmp_path / "audios/02/2.mp3")


def test_magnatagatune_in_both_splits(tmp_path):
    """T2: clips without a tag stay in one split and are not in the other."""
    files = {
        f"{folder}/a_b-song-01-x-{i}-{i + 29}.mp3" for i, folder in enumerate("0cf")
    }
    lines = ['"clip_id"\t"rock"\t"slow"\t"mp3_path"']
    for number, path in enumerate(sorted(files)):
        rock = int(number != 1)
        lines.append(f'"{number}"\t"{rock}"\t"0"\t"{path}"')
        touch(tmp_path / "mp3" / path)
    (tmp_path / "annotations_final.csv").write_text("\n".join(lines) + "\n")
    opened = open_task(TASKS["magnatagatune"], tmp_path)
    assert [one.part for one in opened.recordings] == ["train", "valid", "test"]
    assert opened.targets.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert {one.labels["artist"] for one in opened.recordings} == {"a_b"}
    with pytest.raises(UserError, match="top50_tags.txt does not exist.*MTAT_split"):
        open_task(TASKS["magnatagatune_lee_won"], tmp_path)


def test_names_of_keys():
    given = ["C major", "d# minor\t2\t", "Gb:maj", "B minor", "cb major", "E#:min"]
    assert [key_name(text) for text in given] == [
        *("C major", "Eb minor", "Gb major", "B minor", "B major", "F minor")
    ]
    assert key_name("H major") is key_name("C") is key_name("-") is None
    assert len(KEYS) == 24 and KEYS[12] == "C minor"


# Counts of the published files, which are not ours to copy.
PUBLISHED = {
    "gtzan_genre": (443, 197, 290, 10),
    "giantsteps_key": (923, 236, 604, 24),
    "emo": (504, 115, 125, 2),
    # Three files of the training part are empty where they are published.
    "magnatagatune": (18706 + 3, 1825, 5329, 50),
    "magnatagatune_lee_won": (15244, 1529, 4332, 50),
    "mtg_top50": (32136, 10888, 11356, 50),
    "mtg_genre": (32572, 11043, 11479, 87),
    "mtg_instrument": (14395, 5466, 5115, 40),
    "mtg_mood": (9949, 3802, 4231, 56),
    "nsynth_pitch": (289_205, 12_678, 4096, 128),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_annotations(name):
    """Those that are in that folder of data sets, with or without their audio."""
    task = TASKS[name]
    labelled = task.read(published(task.sheet.name))
    counts = Counter(clip.part for clip in labelled.clips)
    found = (
        *(counts[part] for part in ("train", "valid", "test")),
        len(labelled.classes),
    )
    assert found == PUBLISHED[name]
