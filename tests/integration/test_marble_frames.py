"""Tasks of frames as a user does them: annotations as they unpack, a report."""

import json

import numpy as np
import pytest
import soundfile

from muq_plugins.errors import UserError
from tests.integration.test_marble import marble, options, run  # noqa: F401

RATE = 22050
TONES = {"C": 262, "G": 392, "A:min": 440, "N": 0}
GENRES = ["blues", "rock", "pop", "jazz"]


def write(path, wav):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * wav, RATE)


def write_text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_gtzan(folder, seconds=8.0):
    """A click on each beat; higher on the first of a bar."""
    parts = {"train": range(2), "valid": range(2, 3), "test": range(3, 4)}
    time = np.arange(int(RATE * 0.05)) / RATE
    for part, places in parts.items():
        names = [(genre, f"{place:05}") for genre in GENRES for place in places]
        lines = [f"{genre}/{genre}.{number}.wav" for genre, number in names]
        write_text(folder / f"{part}_filtered.txt", *lines)
        for at, (genre, number) in enumerate(names):
            beats = np.arange(0.2 + 0.1 * at, seconds - 0.1, 0.5)
            wav = np.zeros(int(RATE * seconds))
            for place, beat in enumerate(beats):
                first = int(beat * RATE)
                hertz = 600 if place % 4 else 1200
                wav[first : first + len(time)] = np.sin(2 * np.pi * hertz * time)
            write(folder / f"genres_original/{genre}/{genre}.{number}.wav", wav)
            name, annotations = f"gtzan_{genre}_{number}", folder / "gtzan_tempo_beat"
            lines = [f"{beat:.3f}\t{1 + i % 4}" for i, beat in enumerate(beats)]
            write_text(annotations / "beats" / f"{name}.beats", *lines)
            write_text(annotations / "tempo" / f"{name}.bpm", "1.2e+02")


def write_tones(path, labels, seconds=0.5):
    """A tone for each label, half a second long."""
    time = np.arange(int(RATE * seconds)) / RATE
    tones = [np.sin(2 * np.pi * TONES[label] * time) for label in labels]
    write(path, np.concatenate(tones))
    return [(seconds * at, seconds * (at + 1), name) for at, name in enumerate(labels)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    write_gtzan(folder / "GTZAN")
    for at in range(6):
        labels = rng.permutation(list(TONES))
        rows = write_tones(folder / f"Harte/audio/album {at}/Mr. X.wav", labels)
        lines = [f"{begin:.3f} {end:.3f} {label}" for begin, end, label in rows]
        write_text(folder / f"Harte/album {at}/Mr. X.lab", *lines)
        rows = write_tones(folder / f"Harmonix/audio/{at}_song.wav", ["C", "G"], 4.0)
        lines = ["0.0 intro", "4.0 chorusinst", "8.0 end"]
        write_text(folder / f"Harmonix/dataset/segments/{at}_song.txt", *lines)
    lines = [f"{at}_song,Some Artist {at}" for at in range(6)]
    write_text(folder / "Harmonix/dataset/metadata.csv", "File,Artist", *lines)
    return folder


def test_what_there_is_of_frames_from_folder_to_report(root, run, capsys):  # noqa: F811
    tasks = "[gtzan_beat, gtzan_tempo, harte_chords, harmonix_structure, chords1217]"
    arguments = [
        *("--data_root", root, "--tasks", tasks, "--encoder", "log_mel"),
        *("--beside", "[]", *options(run, "frames")[2:]),
    ]
    marble("all", *arguments)
    said = capsys.readouterr().out
    assert "Left out: chords1217. Chords1217 in " in said and "m-a-p/Chords1217" in said
    results = json.loads((run / "frames" / "scores.json").read_text())
    beats, tempo, chords, songs = results
    assert beats["clips"] == {"train": 8, "valid": 4, "test": 4}
    rows = {row["features"]: row for row in beats["rows"] if row["chosen"]}
    assert rows["log_mel"]["value"] > 0.8 > beats["chance"]
    assert tempo["metric"] == "tempo_acc1" and tempo["classes"] == ["beat", "downbeat"]
    assert beats["about"]["frame_rates"] == dict.fromkeys(rows, 25.0)
    rows = {row["features"]: row for row in chords["rows"] if row["chosen"]}
    assert rows["log_mel"]["value"] > 0.7 > chords["chance"]
    assert chords["test_groups"] == chords["clips"]["test"]  # albums of one song
    assert {"chord_sevenths", "frame_accuracy"} <= set(rows["log_mel"]["metrics"])
    rows = {row["features"]: row for row in songs["rows"] if row["chosen"]}
    assert rows["log_mel"]["value"] > 0.8 and songs["group"] == "artist"
    assert set(songs["about"]["frame_rates"].values()) == {5.0}
    text = (run / "frames" / "report.md").read_text()
    assert "| GTZAN beats | F of beats |" in text
    assert "what comes before a chorus is a verse" in text and "(T22)" in text
    assert "it is a protocol of its own" in text
    # All tasks at one rate share a folder, and two the features of the same audio.
    places = {p.parent for p in (run / "features").glob("framing-*/recordings.jsonl")}
    lines = [len((p / "recordings.jsonl").read_text().splitlines()) for p in places]
    assert sorted(lines) == [6, 16 + 6]

    stamps = {p: p.stat().st_mtime_ns for p in (run / "features").rglob("*.*")}
    marble("all", *arguments)
    again = {p: p.stat().st_mtime_ns for p in (run / "features").rglob("*.*")}
    assert again == stamps
    assert json.loads((run / "frames" / "scores.json").read_text()) == results


def test_beats_as_marble_has_them_and_annotations_that_are_broken(
    root,
    run,  # noqa: F811
):
    path = root / "GTZAN" / "gtzan_tempo_beat" / "beats" / "gtzan_pop_00001.beats"
    arguments = (
        *("--data_folder", root / "GTZAN", "--tasks", "[gtzan_beat]"),
        *("--protocol", "v2_as_shipped", *options(run, "v2", "--beside", "[]")),
    )
    marble("gtzan_genre", *arguments)
    (result,) = json.loads((run / "v2" / "scores.json").read_text())
    (row,) = result["rows"]
    assert row["layer"] == "all layers" and set(row["metrics"]) == {
        *("beat_f", "downbeat_f")
    }
    lines = path.read_text()
    path.write_text(lines + "0.1\t1\n")
    with pytest.raises(UserError) as error:
        marble("gtzan_genre", *arguments)
    assert "gtzan_pop_00001.beats: the beat at 0.1" in str(error.value)
    assert "gtzan_tempo_beat" in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match="gtzan_pop_00001.beats does not exist. Get it"):
        marble("gtzan_genre", *arguments)
