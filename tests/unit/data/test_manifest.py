"""Tests of manifests, clip ids and splits."""

import pytest
from speechbrain.dataio.dataset import DynamicItemDataset

from muq_plugins.data.audio import AudioInfo
from muq_plugins.data.manifest import (
    clip_ids,
    load_manifest,
    manifest_entry,
    split_files,
)
from muq_plugins.files import write_json


def test_speechbrain_reads_what_we_write(tmp_path):
    label = {"caption": "a {lively} tune", "programs": [0, 40], "families": ["{x}"]}
    audio = AudioInfo(44100, 110250, 2, "WAV", "PCM_16")
    entry = manifest_entry("al{b}um/s.wav", audio, **label)
    write_json(tmp_path / "train.json", {"s": entry})
    ours = load_manifest(tmp_path / "train.json", "/music")
    assert ours["s"]["wav"] == "/music/al{b}um/s.wav"
    assert {name: ours["s"][name] for name in label} == label
    theirs = DynamicItemDataset.from_json(
        tmp_path / "train.json", {"data_root": "/music"}
    )
    assert theirs.data["s"]["wav"] == ours["s"]["wav"]


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no manifest .*train.json.*scan_folder"),
        ("no json", "not valid JSON"),
        ("{}", "holds no clips"),
        ("[1]", "holds no clips"),
        ('{"a": 1}', "clip 'a' must be an object, got 1"),
        ('{"a": {"duration": 1.0}}', "clip 'a' needs \"wav\".*got None"),
        ('{"a": {"wav": "x"}}', "clip 'a' needs \"duration\".*got None"),
        ('{"a": {"wav": "x", "duration": "2"}}', "duration.*got '2'"),
        ('{"a": {"wav": "x", "duration": 0}}', "duration.*above 0, got 0"),
        ('{"a": {"wav": "x", "duration": NaN}}', "duration.*got nan"),
        ('{"a": {"wav": "{other}/x", "duration": 1}}', "placeholder .*'other'"),
        ('{"a": {"wav": "x{", "duration": 1}}', "placeholder other than {data_root}"),
    ],
)
def test_bad_manifest(tmp_path, text, message):
    path = tmp_path / "train.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_manifest(path, "/music")
    assert str(path) in str(error.value)


def test_ids_are_unique():
    paths = ["a/b.wav", "a__b.wav", "c.wav", "c.flac", "c.live.wav", "d.wav"]
    ids = clip_ids(paths)
    assert len(set(ids)) == len(paths)
    assert ids[-2:] == ["c.live", "d"]
    assert ids[0].startswith("a__b-") and ids[2].startswith("c-")


def test_split_is_stable_when_files_are_added():
    paths = [f"album{i % 7}/{i}.wav" for i in range(2000)]
    before = split_files(paths[:1500], 1234, 0.1, 0.05)
    after = split_files(paths, 1234, 0.1, 0.05)
    for name, files in before.items():
        assert set(files) <= set(after[name])
    sizes = {name: len(files) for name, files in after.items()}
    assert sum(sizes.values()) == 2000
    assert 150 < sizes["valid"] < 250 and 60 < sizes["test"] < 140


def test_split_depends_on_seed_and_folder():
    paths = [f"{i}.wav" for i in range(200)]
    first = split_files(paths, 1, 0.2, 0.2)
    assert first != split_files(paths, 2, 0.2, 0.2)
    moved = split_files([f"b/{path}" for path in paths], 1, 0.2, 0.2)
    assert [f"b/{path}" for path in first["valid"]] != moved["valid"]


@pytest.mark.parametrize(
    "count, expected", [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (4, [2, 1, 1])]
)
def test_small_folders_have_every_split(count, expected):
    for seed in range(20):
        paths = [f"{i}.wav" for i in range(count)]
        split = split_files(paths, seed, 0.001, 0.001)
        assert [len(files) for files in split.values()] == expected


def test_train_is_never_empty():
    for seed in range(50):
        split = split_files(["a.wav", "b.wav", "c.wav"], seed, 0.45, 0.45)
        assert len(split["train"]) >= 1
        assert sorted(sum(split.values(), [])) == ["a.wav", "b.wav", "c.wav"]
    split = split_files([f"{i}.wav" for i in range(100)], 1, 0.0, 0.0)
    assert [len(files) for files in split.values()] == [100, 0, 0]
