"""Tasks on labels of one's own: where they are read from, and that they are probed."""

import csv
import json
from dataclasses import replace

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch

from muq_plugins.data.datasets.keys import KEYS
from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import interval, mean_draws
from muq_plugins.evaluation.marble.own import Labels, file_labels, own_task
from muq_plugins.evaluation.marble.protocols import CORRECTED, V2
from muq_plugins.evaluation.marble.run import marble_task
from muq_plugins.evaluation.marble.task import open_task

COUNT, LEVELS = 96, 4


class Told:
    """Hears which of a few levels a recording has: a feature that is the label."""

    sample_rate, frame_rate, layers, fingerprint = 4000, 4000.0, 1, "told"
    others = ()

    def states(self, wavs, wav_lens):
        level = (wavs.abs() * 10).round().long().clamp(0, LEVELS)
        return [torch.nn.functional.one_hot(level, LEVELS + 1).float()], wav_lens


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV file of recordings, each of one level, a third of them to test on."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    levels = np.arange(COUNT) % LEVELS
    shuffled = rng.permutation(levels)
    rows = []
    for number, level in enumerate(levels):
        path = folder / "audio" / f"{number:02}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.full(40, (level + 1) / 10), 4000)
        rows.append(
            {
                "path": f"audio/{path.name}",
                "artist": number // 8,
                "level": f"L{level}",
                "shuffled": f"L{shuffled[number]}",
                "loudness": 3 + 100 * level,
                "tags": ";".join(["low", "odd"][i] for i in (0, 1) if level >> i & 1),
                "key": ["C major", "c# min", "Db:maj", "?"][level],
                "split": ["train", "valid", "test"][number // 8 % 3],
            }
        )
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labels.csv"


def opened(table, about, **options):
    options = {"group": "artist", "split_column": "split", **options}
    labels = file_labels(table, **options)
    return open_task(own_task(about, lambda: labels, 10.0, 2), "")


def probed(table, about, folder):
    return marble_task(opened(table, about), {"told": [Told()]}, CORRECTED, [0], folder)


def test_a_feature_that_is_the_label_gives_all_of_every_kind(table, tmp_path):
    result = probed(table, {"label": "level"}, tmp_path)
    assert result.row("told", "hidden layer").value == 1.0 and result.chance == 0.25
    assert result.group == "artist" and result.test_groups == 4
    assert result.clips == {"train": 32, "valid": 32, "test": 32}
    result = probed(table, {"label": "loudness", "kind": "numbers"}, tmp_path)
    row = result.row("told", "hidden layer")
    assert row.value > 0.98 and list(row.metrics) == ["r2"]
    assert "Standardised: 153 ± 111.8 in training." in result.notes
    result = probed(table, {"label": "tags", "kind": "multi"}, tmp_path)
    assert result.row("told", "hidden layer").value == 1.0
    assert result.classes == ["low", "odd"] and result.chance == pytest.approx(2 / 3)


def test_shuffled_labels_give_chance(table, tmp_path):
    result = probed(table, {"label": "shuffled"}, tmp_path)
    known = result.predictions
    hits = known[result.row("told", "hidden layer").key][0] == known["targets"]
    _, low, high = interval(hits.mean(), mean_draws(hits, known["groups"]))
    assert low <= 0.25 <= high < 0.6


def test_keys_are_the_24_however_they_are_written(table):
    about = {"label": "key", "metric": "mirex2005", "ignore": ["?"]}
    with pytest.raises(UserError, match="'?', which is no key such as"):
        opened(table, {**about, "ignore": []})
    found = opened(table, about)
    assert found.labelled.classes == list(KEYS)
    assert {KEYS[number] for number in found.targets} == {
        *("C major", "Db minor", "Db major")
    }


def test_manifests_are_a_data_set_too_and_groups_are_kept_apart(table, tmp_path):
    clips = file_labels(table, split_column="split").clips
    for part in ("train", "valid", "test"):
        manifest = {
            clip.name: {
                **clip.labels,
                "wav": "{data_root}/" + clip.name,
                "duration": clip.duration,
            }
            for clip in clips
            if clip.part == part
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(manifest))
    about = {"label": "level"}
    found = opened(tmp_path, about, audio_folder=table.parent)
    assert found.split == opened(table, about).split
    dealt = opened(table, about, split_column=None)
    artists = {}
    for clip in dealt.recordings:
        artists.setdefault(clip.part, set()).add(clip.labels["artist"])
    assert set(artists) == {"train", "valid", "test"}
    assert sum(map(len, artists.values())) == len(set().union(*artists.values()))


@pytest.mark.parametrize("kind", ["single", "numbers"])
def test_groups_that_given_parts_share_are_noted(table, kind):
    about = {"label": "loudness", "kind": kind}
    assert "Not apart" not in "".join(opened(table, about).labelled.notes)
    notes = opened(table, about, group="level").labelled.notes
    assert "Not apart: 4 of 4 values of 'level'" in notes[0]


class ToldFrames:
    """Hears a code in every frame, of which all that there is follows."""

    sample_rate, frame_rate, layers, fingerprint = 4000, 25.0, 1, "told"
    others = ()

    def frames(self, wavs, wav_lens):
        code = wavs.unfold(1, 160, 160).abs().amax(-1).mul(20).round().long()
        return [torch.nn.functional.one_hot(code.clamp(0, 8), 9).float()], wav_lens


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Manifests of songs of ten seconds, whose frames say all that is stated."""
    folder, rng = tmp_path_factory.mktemp("songs"), np.random.default_rng(0)
    for part, count in {"train": 6, "valid": 3, "test": 4}.items():
        manifest = {}
        for number in range(count):
            name = f"{part}{number}"
            code = np.zeros(250, dtype=int)
            step = rng.integers(10, 16)  # frames between beats
            code[5::step] += 1
            cut, change = rng.integers(100, 150), rng.integers(60, 90)
            code[cut:] += 2
            code[change:] += 4
            soundfile.write(folder / f"{name}.wav", (code / 20).repeat(160), 4000)
            midi = pretty_midi.PrettyMIDI()
            midi.instruments.append(pretty_midi.Instrument(0))
            for begin, end, pitch in ((0, change / 25, 60), (change / 25, 10, 67)):
                midi.instruments[0].notes.append(
                    pretty_midi.Note(80, int(pitch), begin, end)
                )
            midi.write(str(folder / f"{name}.mid"))
            times = np.arange(5, 250, step) / 25 + 0.02
            bars = [[time, place % 3 + 1] for place, time in enumerate(times)]
            cut, change = cut / 25, change / 25
            manifest[name] = {
                "wav": f"{{data_root}}/{name}.wav",
                "midi": f"{{data_root}}/{name}.mid",
                "duration": 10.0,
                "beats": bars,
                "sections": [[0.0, cut, "A"], [cut, 10.0, "B"]],
                "chords": [[0.0, change, "C:maj"], [change, 10.0, "G:min"]],
            }
        (folder / f"{part}.json").write_text(json.dumps(manifest))
    return folder


def frames_probed(labels, label, folder):
    task = own_task({"label": label, "kind": "frames"}, lambda: labels, 10.0, 1)
    told = {"told": [ToldFrames()]}
    result = marble_task(open_task(task, ""), told, CORRECTED, [0], folder)
    return result, result.row("told", "hidden layer")


@pytest.mark.parametrize(
    ("label", "least"), [("beats", 1), ("sections", 1), ("chords", 0.98), ("notes", 1)]
)
def test_frames_that_are_the_label_give_all(songs, tmp_path, label, least):
    result, row = frames_probed(file_labels(songs), label, tmp_path)
    assert row.value >= least > result.chance + 0.1
    assert result.clips == {"train": 6, "valid": 3, "test": 4}
    if label == "beats":
        assert {"downbeat_f", "tempo_acc1"} <= row.metrics.keys()


def test_shuffled_names_of_frames_give_chance(songs, tmp_path):
    labels = file_labels(songs)
    for number, clip in enumerate(labels.clips):
        for row in clip.labels["sections"] if number % 2 else []:
            row[-1] = {"A": "B", "B": "A"}[row[-1]]
    result, row = frames_probed(labels, "sections", tmp_path)
    assert row.low <= 0.5 <= row.high and row.value < 0.75


def test_of_so_many_recordings_some_are_enough(songs, tmp_path):
    about, labels = {"label": "notes", "kind": "frames"}, file_labels(songs)
    task = own_task(about, lambda: labels, 10.0, 1, {"train": 4, "test": 2})
    found = open_task(task, "")
    assert [clip.part for clip in found.recordings] == (
        4 * ["train"] + 3 * ["valid"] + 2 * ["test"]
    )
    assert found.labelled.classes == ["60", "67"]


@pytest.mark.parametrize(
    ("label", "rows", "words"),
    [
        ("notes", [["a", 1, 60]], "should be 3 numbers"),
        ("notes", [[0, 1], [1, 2], [2, 3]], "should be 3 numbers"),
        ("notes", [[0, 1, 440]], "440 is no MIDI pitch"),
        ("sections", [0.0, 9.6], "should be 2 numbers"),
        ("chords", [[9.0, 1.0, "C:maj"]], "is no stretch"),
        ("beats", [0.5, 1.0], "should be 2 numbers"),
    ],
)
def test_labels_of_frames_that_cannot_be_are_told_with_the_recording(
    songs, label, rows, words
):
    clips = [
        replace(clip, labels={**clip.labels, label: rows}) if at == 9 else clip
        for at, clip in enumerate(file_labels(songs).clips)
    ]
    for clip in clips:
        clip.labels.pop("midi")
        clip.labels.setdefault("notes", [[0.0, 5.0, 60], [5.0, 9.0, 67]])
    about, labels = {"label": label, "kind": "frames"}, Labels("songs", clips)
    with pytest.raises(UserError, match=f"{clips[9].name}.*{words}"):
        open_task(own_task(about, lambda: labels, 10.0, 1), "")


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"lable": "level"}, "mapping with the key label"),
        ({"label": "level", "metrics": "r2"}, "not 'metric'"),
        ({"label": "level", "kind": "sinlge"}, "one of single, multi, numbers, frames"),
        ({"label": "level", "metric": "r2"}, "one of accuracy, mirex2005, mirex2017"),
        ({"label": "level", "kind": "frames"}, "of the labels beats, chords, sections"),
        ({"label": "beats", "kind": "frames"}, "No clip has the label 'beats'"),
        ({"label": "beats", "kind": "frames", "ignore": [1]}, "only classes of whole"),
        ({"label": "levle"}, "No clip has the label 'levle'; the nearest one is 'le"),
        ({"label": "level", "kind": "numbers"}, "'L0', which is no number"),
    ],
)
def test_what_is_wrong_is_said(table, about, words):
    with pytest.raises(UserError, match=words):
        opened(table, about)


def test_tasks_need_labels_and_a_protocol_that_has_them():
    with pytest.raises(UserError, match="say in `labels` where they are"):
        own_task({"label": "genre"}, None, 10.0, 2)
    with pytest.raises(UserError, match="'valld': its keys are train, valid, test"):
        own_task({"label": "genre"}, dict, 10.0, 2, {"valld": 3})
    task = own_task({"label": "genre"}, dict, 10.0, 2)
    with pytest.raises(UserError, match="genre is no task of v2_as_shipped"):
        V2.plan(task)
    assert CORRECTED.plan(task).cutting == (10.0, 2, False)
