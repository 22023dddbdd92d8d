"""Inst-Sim-ABX: majorities, baselines, and what an encoder chooses."""

import csv
from collections import Counter

import numpy as np
import pytest
import soundfile

from muq_plugins.data.datasets.inst_sim_abx import (
    ASPECTS,
    SOUNDS,
    read_triplets,
    song_of,
)
from muq_plugins.errors import UserError
from muq_plugins.evaluation.marble.similarity import (
    SIMILARITY_TASKS,
    one_listener,
    open_similarity,
    same_song,
    similarity_results,
)
from muq_plugins.evaluation.probing.features import LogMelFrames
from tests.unit.data.datasets.conftest import published

COLUMNS = ("Unnamed: 0", "ex_name", "subject_id", "reference", "sample_a", "sample_b")
COLUMNS += (*ASPECTS.values(), "choice_time")


def write_abx(folder, listeners=3, triplets=6):
    """Tones in the layout of the data set: those of 1900 + n sound like each other.

    All listeners choose what is as high as the first segment, but for the last of them
    in timbre, who chooses the other one; the first says nothing of the rhythm.
    """
    rows = {"XAB": [], "XYC": []}
    sounds = ("drums", "mix")
    for number in range(triplets):
        for kind, names in (("XAB", "XAB"), ("XYC", "XYC")):
            sound, song = sounds[number % 2], 1900 + number
            where = f"set0/{number}/{sound}"
            # In XYC, Y is of the same song; in XAB, A is of another that is as high.
            songs = song, song + (100 if kind == "XAB" else 0), song + 50
            hertz = 200 + 60 * number, 205 + 60 * number, 3000 + 60 * number
            paths = []
            for name, of, height in zip(names, songs, hertz, strict=True):
                path = f"{where}/{name}_{of}-{number}.wav"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                time = np.arange(4410) / 14700
                tone = 0.3 * np.sin(2 * np.pi * height * time)
                soundfile.write(folder / path, tone, 14700)
                paths.append(path)
            for listener in range(listeners):
                pair = paths[1:] if listener % 2 == 0 else paths[:0:-1]
                same = "A+" if pair[0] == paths[1] else "B-"
                other = "B+" if same == "A+" else "A-"
                last = listener == listeners - 1
                rhythm = same if listener else "NA"
                said = [same, other if last else same, rhythm, same]
                asked = ["ex1", f"subject{listener}", paths[0], *pair]
                rows[kind].append([len(rows[kind]), *asked, *said, 1000])
    (folder / "csvs").mkdir()
    for kind, some in rows.items():
        path = folder / "csvs" / f"inst_sim_abx_answers_{kind}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *some])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_abx(tmp_path_factory.mktemp("abx"))


def test_majorities_and_what_they_are_compared_with(data):
    triplets = read_triplets(data, "XYC")
    assert len(triplets) == 6 and song_of(triplets[0].x) == "1900"
    one = triplets[0]
    said = {name: len(votes) for name, votes in one.answers.items()}
    assert said == {"overall": 3, "timbre": 3, "rhythm": 2, "melody": 3}
    assert one.majority("overall") == one.same_song
    assert one.majority("timbre") == one.same_song
    assert one.majority("timbre", without=0) is None  # one against one
    truth = [each.majority("timbre") for each in triplets]
    assert same_song(triplets, truth) == {"drums": 1.0, "mix": 1.0}
    assert one_listener(triplets, "overall") == {"drums": 1.0, "mix": 1.0}
    # The last is against both others, each of whom faces a tie, which tells nothing.
    assert one_listener(triplets, "timbre") == {"drums": 0.0, "mix": 0.0}
    assert read_triplets(data, "XAB")[0].same_song is None


def test_an_encoder_that_hears_as_the_listeners_do(data, tmp_path):
    opened = open_similarity(SIMILARITY_TASKS["abx_xab"], data)
    assert len(opened.recordings) == 18 and len(opened.triplets) == 6
    results = similarity_results(opened, {"log_mel": [LogMelFrames()]}, tmp_path)
    assert [one.label for one in results] == [f"abx_xab_{name}" for name in ASPECTS]
    for result in results:
        (row,) = result.rows
        assert (row.value, row.layer, row.chosen) == (1.0, None, True)
        assert row.metrics == {"accuracy": 1.0, "drums": 1.0, "mix": 1.0}
        assert (result.chance, result.test_groups) == (0.5, 6)
    notes = " ".join(results[1].notes)
    assert "A listener against the others: drums 0.0%, mix 0.0%." in notes
    assert "6 triplets have a majority, 0 have none" in notes
    assert "same song" not in notes


def test_what_is_missing_is_named(tmp_path):
    folder = write_abx(tmp_path / "abx")
    task = SIMILARITY_TASKS["abx_xyc"]
    (folder / "set0/1/mix/Y_1901-1.wav").unlink()
    with pytest.raises(UserError, match="1 of 18 .* set0/1/mix/Y_1901-1.wav") as error:
        open_similarity(task, folder)
    assert "zume06" in str(error.value) and "no redistribution" in str(error.value)
    opened = open_similarity(task, folder, leave_out_missing=True)
    assert len(opened.triplets) == 5 and opened.left_out == 1
    path = folder / "csvs" / "inst_sim_abx_answers_XYC.csv"
    path.write_text(path.read_text().replace(",NA,", ",C,", 1))
    with pytest.raises(UserError, match="'C' is no answer"):
        open_similarity(task, folder)


def test_published_answers():
    """How many there are, and how often the same song has the majority in XYC."""
    folder = published("Inst-Sim-ABX")
    for experiment, answers in (("XAB", 13_476), ("XYC", 13_422)):
        triplets = read_triplets(folder, experiment)
        assert sum(len(one.answers["overall"]) for one in triplets) == answers
        sounds = Counter(one.sound for one in triplets)
        assert sounds == {**dict.fromkeys(SOUNDS, 476), "mix": 240}
    majority = [one.majority("overall") for one in triplets]
    kept = [place for place, wanted in enumerate(majority) if wanted is not None]
    found = same_song([triplets[at] for at in kept], [majority[at] for at in kept])
    shares = (0.974, 0.924, 0.957, 0.961, 0.932, 0.949)
    assert found == pytest.approx(dict(zip(SOUNDS, shares, strict=True)), abs=5e-4)
