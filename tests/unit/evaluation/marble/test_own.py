"""Tasks on labels of one's own: where they are read from, and that they are probed."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.datasets.keys import KEYS
from muq_plugins.errors import UserError
from muq_plugins.evaluation.intervals import interval, mean_draws
from muq_plugins.evaluation.marble.own import file_labels, own_task
from muq_plugins.evaluation.marble.protocols import CORRECTED, V2
from muq_plugins.evaluation.marble.run import marble_task
from muq_plugins.evaluation.marble.task import open_task

COUNT, LEVELS = 96, 4


class Told:
    """Hears which of a few levels a recording has: a feature that is the label."""

    sample_rate, frame_rate, layers, fingerprint = 4000, 4000.0, 1, "told"

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


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"lable": "level"}, "mapping with the key label"),
        ({"label": "level", "metrics": "r2"}, "not 'metric'"),
        ({"label": "level", "kind": "sinlge"}, "must be one of single, multi, numbers"),
        ({"label": "level", "metric": "r2"}, "one of accuracy, mirex2005, mirex2017"),
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
    task = own_task({"label": "genre"}, dict, 10.0, 2)
    with pytest.raises(UserError, match="genre is no task of v2_as_shipped"):
        V2.plan(task)
    assert CORRECTED.plan(task).cutting == (10.0, 2, False)
