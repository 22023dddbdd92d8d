"""Every other data set of MARBLE as it unpacks, from its folder to the report."""

import json

import numpy as np
import pytest
import soundfile

from muq_plugins.data.datasets.vocalset import SINGERS
from tests.integration.test_marble import marble, options, run  # noqa: F401
from tests.integration.test_marble_frames import write_text, write_tones
from tests.unit.data.datasets.test_marble_layouts import write_gzip

PARTS = ("train",) * 4 + ("valid",) * 2 + ("test",) * 2
RATE = 16000


def write_tone(path, hertz, seconds=0.6):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(RATE * seconds)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time), RATE)


def write_giantsteps(folder):
    clips = {}
    for number, part in enumerate(PARTS):
        places = {"test": "giantsteps-key-dataset"}
        place = places.get(part, "giantsteps-mtg-key-dataset")
        write_tone(
            folder / place / "audio" / f"{number}.LOFI.mp3", (262, 740)[number % 2]
        )
        about = {"split": part, "y": ("C major", "F# minor")[number % 2]}
        clips[f"{number:07}-0"] = {**about, "extra": {"id": number}}
    write_gzip(folder / "giantsteps_clips.json.gz", clips)


def write_emo(folder):
    songs = {}
    for number, part in enumerate(PARTS):
        write_tone(
            folder / "clips_45seconds" / f"{number}.mp3", 200 * 2 ** (number % 4)
        )
        known = {"song_id": str(number), "mean_arousal": str(number % 4)}
        known["mean_valence"] = str(3 - number % 4)
        extra = {"static_annotations": known, "songs_info": {"Artist": str(number)}}
        songs[f"000{number}"] = {"split": part, "extra": extra}
    write_gzip(folder / "emomusic.json.gz", songs)


def write_magnatagatune(folder):
    """With the lists of Lee and Won, as Python 2 has written them."""
    tags = ["guitar", "vocal", *(f"rare{at}" for at in range(48))]
    rows, lists = ["\t".join(["clip_id", *tags, "mp3_path"])], {}
    for number, part in enumerate(PARTS):
        path = f"{ {'train': 0, 'valid': 'c', 'test': 'd'}[part] }/{number}-x-1-y-0-29"
        write_tone(folder / "mp3" / f"{path}.mp3", (300, 900)[number % 2])
        has = [number % 2, 1 - number % 2, *[0] * 48]
        rows.append("\t".join([str(number), *map(str, has), f"{path}.mp3"]))
        lists.setdefault(part, []).append(f"S'{path}.npy'\np{number + 2}\na")
    write_text(folder / "annotations_final.csv", *rows)
    write_text(folder / "MTAT_split/top50_tags.txt", *tags)
    for part, items in lists.items():
        content = "".join(["(lp1\n", *items, "."]).encode()
        (folder / f"MTAT_split/{part}_list_pub.cP").write_bytes(content)


def write_mtg(folder):
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    rows = {"train": [header], "valid": [header], "test": [header]}
    for number, part in enumerate(PARTS):
        path, tag = f"0{number}/{number}", ("rock", "pop")[number % 2]
        write_tone(folder / "audio-low" / f"{path}.low.mp3", (300, 900)[number % 2])
        cells = f"track_{number}", f"artist_{number}", "album_0", f"{path}.mp3", "0.6"
        rows[part].append("\t".join([*cells, f"genre---{tag}"]))
    for part, lines in rows.items():
        word = {"valid": "validation"}.get(part, part)
        write_text(folder / f"data/splits/split-0/autotagging_genre-{word}.tsv", *lines)


def write_nsynth(folder):
    notes = {"train": {}, "valid": {}, "test": {}}
    for number, part in enumerate(PARTS):
        pitch, name = (48, 72)[number % 2], f"bass_electronic_018-{number:03}"
        write_tone(folder / f"nsynth-{part}/audio/{name}.wav", (131, 523)[number % 2])
        about = {"instrument_family_str": "bass", "instrument_str": "b18"}
        notes[part][name] = {**about, "pitch": pitch}
    for part, its in notes.items():
        (folder / f"nsynth-{part}/examples.json").write_text(json.dumps(its))


def write_vocalset(folder):
    for singer in SINGERS:
        name = singer.replace("f", "female").replace("m", "male", singer[0] == "m")
        for technique, hertz in (("belt", 250), ("vibrato", 700)):
            path = f"FULL/{name}/scales/{technique}/{singer}_a_{technique}.wav"
            write_tone(folder / path, hertz)


def write_chords(folder):
    """Isophonics, Billboard, and the ids of Chords1217."""
    header = "id,chart_date,target_rank,actual_rank,title,artist,peak_rank,weeks"
    rows = [f"{at},1961-07-03,1,1,Song {at},Artist {at},1,1" for at in range(1, 7)]
    write_text(folder / "Billboard/billboard-2.0-index.csv", header, *rows)
    ids = [f"TR{at}" for at in range(1, 7)]
    write_text(folder / "Chords1217/train00.csv", *ids[:4])
    write_text(folder / "Chords1217/test00.csv", *ids[4:])
    for at, name in enumerate(ids, start=1):
        song = f"The Beatles/Album {at}/Song"
        for lab, audio in (
            (f"Isophonics/chordlab/{song}", f"Isophonics/audio/{song}.flac"),
            (
                f"Billboard/McGill-Billboard/{at:04}/full",
                f"Billboard/audio/{at:04}.mp3",
            ),
            (f"Chords1217/chordlab/{name}", f"Chords1217/audio/{name}.wav"),
        ):
            tones = write_tones(folder / audio, ["C", "A:min", "G", "N"])
            lines = [f"{begin:.2f} {end:.2f} {label}" for begin, end, label in tones]
            write_text(folder / f"{lab}.lab", *lines)


@pytest.fixture
def root(tmp_path):
    """A folder for each data set."""
    write_giantsteps(tmp_path / "GiantSteps")
    write_emo(tmp_path / "EMO")
    write_magnatagatune(tmp_path / "MagnaTagATune")
    write_mtg(tmp_path / "MTG-Jamendo")
    write_nsynth(tmp_path / "NSynth")
    write_vocalset(tmp_path / "VocalSet")
    write_chords(tmp_path)
    return tmp_path


def test_every_data_set_from_its_folder_to_the_report(root, run, capsys):  # noqa: F811
    (root / "NSynth/nsynth-valid/audio/bass_electronic_018-005.wav").unlink()
    broken = root / "VocalSet/FULL/male1/scales/belt/m1_a_belt.wav"
    broken.write_bytes(b"broken")
    tasks = ["giantsteps_key", "emo", "magnatagatune", "magnatagatune_lee_won"]
    tasks += ["mtg_genre", "nsynth_pitch", "vocalset_technique"]
    tasks += ["isophonics_chords", "billboard_chords", "chords1217"]

    def results_of(out, names, *more):
        marble(
            *("all", "--data_root", root, "--tasks", f"[{', '.join(names)}]"),
            *("--encoder", "log_mel", "--beside", "[]", *options(run, out)[2:], *more),
        )
        return json.loads((run / out / "scores.json").read_text())

    (key,) = results_of("faults", ["giantsteps_key", *tasks[5:7]])
    said = capsys.readouterr().out
    assert "Left out: nsynth_pitch." in said and "018-005.wav" in said
    assert "Left out: vocalset_technique." in said and "m1_a_belt.wav" in said
    write_tone(broken, 250)  # nothing goes on without a file that cannot be read
    results = results_of("whole", tasks, "--leave_out_missing", "True")
    assert [one["label"] for one in results] == tasks and results[0] == key
    best = {
        one["label"]: next(row["value"] for row in one["rows"] if row["chosen"])
        for one in results
    }
    told = {"giantsteps_key", "mtg_genre", "nsynth_pitch", "vocalset_technique"}
    assert all(best[name] > 0.9 for name in told), best
    assert all(best[name] > 0.6 for name in best if "chords" in name), best
    assert any("1 recordings without a file" in note for note in results[5]["notes"])
    text = (run / "whole" / "report.md").read_text()
    assert all(one["about"]["title"] in text for one in results)
