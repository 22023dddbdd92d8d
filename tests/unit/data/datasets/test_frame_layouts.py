"""Data sets with beats, chords or sections in the layouts that they come in."""

import json
from collections import Counter
from pathlib import Path

import pytest

from muq_plugins.data.audio import AudioInfo
from muq_plugins.data.datasets import tagged
from muq_plugins.data.datasets.annotations import BEATS, CHORDS, SECTIONS, TEMPO
from muq_plugins.data.datasets.chords import TRIADS
from muq_plugins.data.datasets.harmonix import CLASSES, section_class
from muq_plugins.data.datasets.tagged import drawn_parts
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.task import open_task
from muq_plugins.evaluation.marble.tasks import TASKS
from tests.unit.data.datasets.conftest import published

PARTS = ["train", "valid", "test"]
LAB = "0.0 0.5 N\n0.5 1.0 C:maj7\n"
ROWS = [[0.0, 0.5, "N"], [0.5, 1.0, "C:maj7"]]


@pytest.fixture(autouse=True)
def headers(monkeypatch):
    """Layouts are at stake here, not audio: every file that is there is a second."""
    monkeypatch.setattr(tagged, "audio_info", lambda path: AudioInfo(8000, 8000, 1))


def write(folder, **files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def parts_of(opened):
    return {one.name: one.part for one in opened.recordings}


def test_gtzan_with_its_beats_and_tempi(tmp_path):
    names = {
        "train": ["jazz.00003"],
        "valid": ["rock.00001"],
        "test": ["pop.00002"],
    }
    for part, its in names.items():
        lines = [f"{name.split('.')[0]}/{name}.wav" for name in its]
        write(tmp_path, **{f"{part}_filtered.txt": "\n".join(lines)})
        for line in lines:
            genre, number = Path(line).stem.split(".")
            write(tmp_path, **{f"genres_original/{line}": ""})
            beats = "0.25\n0.75\n" if genre == "jazz" else "0.25\t4\n0.75\t1\n"
            folder, stem = "gtzan_tempo_beat-main", f"gtzan_{genre}_{number}"
            write(tmp_path, **{f"{folder}/beats/{stem}.beats": beats})
            write(tmp_path, **{f"{folder}/tempo/{stem}.bpm": "1.2587e+02\n"})
    opened = open_task(TASKS["gtzan_beat"], tmp_path)
    assert parts_of(opened) == {
        "jazz/jazz.00003.wav": "train",
        "rock/rock.00001.wav": "valid",
        "pop/pop.00002.wav": "test",
    }
    jazz, rock, _ = opened.recordings
    assert rock.labels[BEATS] == [[0.25, 4], [0.75, 1]] and rock.labels[TEMPO] == 125.87
    assert jazz.labels[BEATS] == [[0.25, 0], [0.75, 0]]
    assert "Of 1 recordings bars" in opened.labelled.notes[0]
    (tmp_path / "gtzan_genre").mkdir()  # as mirdata unpacks it
    audio = (tmp_path / "genres_original").rename(tmp_path / "gtzan_genre/genres")
    (audio / "blues").mkdir()
    again = open_task(TASKS["gtzan_beat"], tmp_path)
    assert again.recordings[0].wav == str(audio / "jazz/jazz.00003.wav")
    path = tmp_path / "gtzan_tempo_beat-main/tempo/gtzan_rock_00001.bpm"
    path.write_text("fast")
    with pytest.raises(UserError, match=r"rock_00001.bpm: 'fast' is no tempo.*GTZAN-R"):
        open_task(TASKS["gtzan_tempo"], tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"rock_00001.bpm does not exist.*no licence"):
        open_task(TASKS["gtzan_downbeat"], tmp_path)
    split = opened.split
    rock.labels[BEATS][0][0] = 0.26
    assert opened.split != split


def test_chords1217_by_its_folds_and_as_marble_has_it(tmp_path):
    train = [f"TRAAA{number}" for number in range(12)]
    write(tmp_path, **{"train00.csv": "\n".join(train), "test00.csv": "TRBBB\n"})
    for name in (*train, "TRBBB"):
        write(tmp_path, **{f"chordlab/{name}.lab": LAB, f"audio/{name}.mp3": ""})
    opened = open_task(TASKS["chords1217"], tmp_path)
    counts = Counter(one.part for one in opened.recordings)
    assert counts == {"train": 10, "valid": 2, "test": 1}
    assert opened.recordings[0].labels[CHORDS] == ROWS
    assert opened.labelled.classes == TRIADS and len(TRIADS) == 25
    assert "fold 0 of the published five" in opened.labelled.notes[0]
    (tmp_path / "audio/TRBBB.mp3").unlink()
    with pytest.raises(UserError, match="1 of 13 .*missing: TRBBB.wav.*m-a-p/Chords"):
        open_task(TASKS["chords1217"], tmp_path)
    for name, word in {"TRBBB": "train", "TRAAA0": "val", "TRAAA1": "test"}.items():
        label = [
            {"start_time": begin, "end_time": end, "chord_str": chord}
            for begin, end, chord in ROWS
        ]
        about = {"audio_path": f"data/Chords1217/audio/{name}.flac", "label": label}
        text = json.dumps({**about, "title": "\u2028"}, ensure_ascii=False)
        write(tmp_path, **{f"Chords1217.{word}.jsonl": text + "\n"})
        write(tmp_path, **{f"audio/{name}.flac": ""})
    opened = open_task(TASKS["chords1217"], tmp_path)
    assert opened.labelled.name == "Chords1217, split of MARBLE"
    assert parts_of(opened) == {
        "TRBBB.flac": "train",
        "TRAAA0.flac": "valid",
        "TRAAA1.flac": "test",
    }
    assert opened.recordings[2].labels[CHORDS] == ROWS
    write(tmp_path, **{"Chords1217.val.jsonl": '{"label": 3}\n'})
    with pytest.raises(UserError, match="Chords1217.val.jsonl: line 1 is not as it is"):
        open_task(TASKS["chords1217"], tmp_path)


@pytest.mark.parametrize("artist", ["The Beatles/", ""])
def test_isophonics_in_albums_with_or_without_a_folder_of_the_artist(tmp_path, artist):
    for album in ("01_-_Please", "02_-_With", "03_-_Hard"):
        for song in ("01_-_Mr._X", "02_-_Y"):
            name = f"chordlab/The Beatles/{album}/{song}.lab"
            audio = f"audio/{artist}{album}/{song}.flac"
            write(tmp_path / "annotations", **{name: LAB})
            write(tmp_path, **{audio: ""})
    opened = open_task(TASKS["isophonics_chords"], tmp_path)
    assert len(opened.recordings) == 6
    assert opened.recordings[0].name == f"{artist}01_-_Please/01_-_Mr._X.wav"
    albums = {one.labels["album"]: one.part for one in opened.recordings}
    assert sorted(albums.values()) == sorted(PARTS)  # whole albums
    assert "whole albums" in opened.labelled.notes[0]
    path = tmp_path / "annotations/chordlab/The Beatles/02_-_With/02_-_Y.lab"
    path.write_text("0.0 1.0 H:maj\n")
    with pytest.raises(UserError, match="02_-_Y.wav: 'H:maj' is no chord.*isophonics"):
        open_task(TASKS["isophonics_chords"], tmp_path)
    path.write_text("0.0 1.0\n")
    with pytest.raises(UserError, match="02_-_Y.lab: 0 to 1 s has no label"):
        open_task(TASKS["isophonics_chords"], tmp_path)


def test_billboard_in_artists_each_song_once(tmp_path):
    header = "id,chart_date,target_rank,actual_rank,title,artist,peak_rank,weeks\n"
    songs = ["", "One,A", "Two,A", "Three,B", 'Four,"C,D"', "One,A"]
    rows = [f"{at},1961-07-03,1,1,{song or ','},1,1\n" for at, song in enumerate(songs)]
    write(tmp_path, **{"billboard-2.0-index.csv": header + "".join(rows)})
    for number in range(1, 6):
        write(tmp_path, **{f"McGill-Billboard/{number:04}/full.lab": LAB})
        write(tmp_path, **{f"audio/{number:04}.mp3": ""})
    opened = open_task(TASKS["billboard_chords"], tmp_path)
    names = [one.name for one in opened.recordings]
    assert names == ["0001.wav", "0002.wav", "0003.wav", "0004.wav"]
    artists = [one.labels["artist"] for one in opened.recordings]
    assert artists == ["A", "A", "B", "C,D"]
    assert opened.recordings[0].part == opened.recordings[1].part
    for name in ("A/One", "A/Two", "B/Three", "C,D/Four"):  # as mirdata has them
        write(tmp_path / "audio/1960s" / name, **{"audio.flac": ""})
    opened = open_task(TASKS["billboard_chords"], tmp_path)
    assert opened.recordings[3].name == "1960s/C,D/Four/audio.wav"
    assert opened.recordings[3].wav.endswith("audio/1960s/C,D/Four/audio.flac")
    (tmp_path / "billboard-2.0-index.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"index.csv: it is no index of it.*CC0"):
        open_task(TASKS["billboard_chords"], tmp_path)


def test_any_folder_of_chords(tmp_path):
    with pytest.raises(UserError, match="There is no .lab file in"):
        open_task(TASKS["harte_chords"], tmp_path)
    for name in "abcde":
        write(tmp_path, **{f"{name}.lab": LAB, f"{name}.wav": ""})
    opened = open_task(TASKS["harte_chords"], tmp_path)
    assert Counter(parts_of(opened).values()) == {"train": 3, "valid": 1, "test": 1}
    assert opened.labelled.group == "folder"


def test_songs_of_one_folder_are_drawn_for_themselves_and_hidden_files_are_none(
    tmp_path,
):
    for name in "abcde":
        write(tmp_path / "songs", **{f"{name}.lab": LAB, f"{name}.wav": ""})
    write(tmp_path / "songs", **{"._a.lab": "\0"})  # as macOS leaves it
    opened = open_task(TASKS["harte_chords"], tmp_path)
    assert Counter(parts_of(opened).values()) == {"train": 3, "valid": 1, "test": 1}
    assert "draws whole songs" in opened.labelled.notes[0]
    assert opened.labelled.group == "song"
    assert {one.labels["song"] for one in opened.recordings} == {
        f"songs/{name}" for name in "abcde"
    }


def test_harmonix_with_or_without_its_artists(tmp_path):
    names = ["0001_12step", "0003_6foot", "0004_abc", "0005_again"]
    for name in names:
        sections = "0.0 intro\n0.3 prechorus\n0.5 chorus2\n0.9 gtrbreak\n1.0 end\n"
        write(tmp_path / "dataset/segments", **{f"{name}.txt": sections})
        beats = "0.0\t1\t1\n0.5\t2\t1\n"
        write(tmp_path / "dataset/beats_and_downbeats", **{f"{name}.txt": beats})
        write(tmp_path / "audio", **{f"{name}.mp3": ""})
    write(tmp_path / "dataset/segments", **{"._0001_12step.txt": "\0"})
    table = "File,Title,Artist\n" + "".join(
        f"{name},x,{artist}\n" for name, artist in zip(names, "AaBC", strict=True)
    )
    write(tmp_path / "dataset", **{"metadata.csv": table})
    opened = open_task(TASKS["harmonix_structure"], tmp_path)
    one, two, *_ = opened.recordings
    assert one.part == two.part and one.labels["artist"] == "a"
    assert [row[2] for row in one.labels[SECTIONS]] == [
        *("intro", "verse", "chorus", "inst")
    ]
    assert one.labels[SECTIONS][-1][:2] == [0.9, 1.0]
    assert one.labels[BEATS] == [[0.0, 1], [0.5, 2]]
    assert opened.labelled.classes == CLASSES
    (tmp_path / "dataset/metadata.csv").unlink()
    opened = open_task(TASKS["harmonix_structure"], tmp_path)
    assert len({one.part for one in opened.recordings}) == 3
    assert "whole songs" in opened.labelled.notes[0]
    (tmp_path / "dataset/segments/0004_abc.txt").write_text("zero intro\n1.0 end\n")
    with pytest.raises(UserError, match=r"0004_abc.txt: .*'zero'.*harmonixset"):
        open_task(TASKS["harmonix_structure"], tmp_path)


def test_names_of_sections():
    given = ["Intro2", "quietchorus", "postchorus", "preverse", "instrumentalverse"]
    given += ["transition", "outroa", "solo", "silence", "worstthingever"]
    expected = ["intro", "chorus", "chorus", "verse", "verse"]
    expected += ["bridge", "outro", "inst", "silence", "inst"]
    assert list(map(section_class, given)) == expected


def test_parts_that_are_drawn_have_whole_groups_and_three_of_five_train():
    groups = [f"artist {number % 37}" for number in range(500)]
    parts = drawn_parts(groups)
    assert parts == drawn_parts(groups[::-1])
    counts = Counter(parts[group] for group in groups)
    assert abs(counts["train"] - 300) < 30 and abs(counts["test"] - 100) < 30
    assert sorted(drawn_parts("abc").values()) == sorted(PARTS)


# Recordings, and of how many there are beats, chords or sections.
PUBLISHED = {"gtzan_beat": 930, "harmonix_structure": 912}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_annotations(name):
    """Those that are in that folder of data sets, with or without their audio."""
    task = TASKS[name]
    labelled = task.read(published(task.sheet.name))
    assert len(labelled.clips) == PUBLISHED[name]
    for clip in labelled.clips:
        task.frames.truth(clip.labels, clip.path)
