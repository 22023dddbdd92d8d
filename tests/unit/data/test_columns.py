"""Tests of large manifests, which are kept as columns."""

import json
import os
import pickle
from pathlib import PurePosixPath

import numpy as np
import pytest

from muq_plugins.data import manifest as manifests
from muq_plugins.data.clips import ClipDataset, keyed_integer, make_loader
from muq_plugins.data.columns import Columns, Manifest, Texts
from muq_plugins.data.manifest import clip_ids, load_manifest, split_files
from muq_plugins.data.preparation import Manifests
from tests.unit.data.recordings import write_noise

ENTRIES = {
    "b": {"wav": "{data_root}/caf\udce9 {{b}}.wav", "duration": 2.5, "tags": ["{{x}}"]},
    "ä": {"wav": "/elsewhere/ä.wav", "duration": 3, "more": {"text": "{data_root}"}},
    "a": {"wav": "{data_root}/a.wav", "duration": 0.1},
}


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A manifest that counts as large."""
    monkeypatch.setattr(manifests, "SMALL", 2)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(ENTRIES), encoding="utf-8")
    return path


def test_texts():
    texts = Texts.of(["", "ä", "caf\udce9", ""])
    assert list(texts) == [texts[i] for i in range(4)] == ["", "ä", "caf\udce9", ""]
    assert texts[-2] == "caf\udce9" and texts.index("ä") == 1
    with pytest.raises(IndexError):
        texts[4]


def test_columns_say_what_the_file_says(large, monkeypatch):
    first = load_manifest(large, "/music")
    assert large.with_suffix(".columns").is_file()
    monkeypatch.setattr(manifests.json, "loads", None)  # it is not read again
    again = load_manifest(large, "/music")
    monkeypatch.undo()
    small = load_manifest(large, "/music")
    assert list(first) == list(again) == list(small) == ["b", "ä", "a"]
    assert first == again == small
    assert again["b"] == {
        "wav": "/music/caf\udce9 {b}.wav",
        "duration": 2.5,
        "tags": ["{x}"],
    }
    assert again["ä"]["more"] == {"text": "/music"} and "c" not in again
    assert load_manifest(large, "/moved")["a"]["wav"] == "/moved/a.wav"


def test_columns_follow_the_file(large):
    load_manifest(large, "/music")
    large.write_text(json.dumps({**ENTRIES, "c": ENTRIES["a"]}), encoding="utf-8")
    assert list(load_manifest(large, "/music")) == ["b", "ä", "a", "c"]
    columns = large.with_suffix(".columns")
    columns.write_bytes(columns.read_bytes()[:-1])
    assert len(load_manifest(large, "/music")) == 4
    assert Manifest(Columns.of(load_manifest(large, "/music")))["c"]["duration"] == 0.1


def test_a_folder_that_cannot_be_written_is_enough(large, monkeypatch):
    def refused(*args):
        raise PermissionError

    monkeypatch.setattr(manifests, "write_columns", refused)
    assert load_manifest(large, "/music")["a"]["wav"] == "/music/a.wav"
    assert not large.with_suffix(".columns").exists()


def test_a_run_notes_the_same_music_as_ever(large, tmp_path):
    """Folders of runs hold these hashes."""
    mapped = load_manifest(large, "/music")
    in_memory = {name: mapped[name] for name in mapped}
    facts = [
        Manifests(tmp_path, part, part, {"a": ENTRIES["a"]}).facts()
        for part in (mapped, in_memory)
    ]
    assert facts[0] == facts[1]
    assert facts[0] == {"train": 3, "valid": 3, "test": 1, "hash": "22dee0561807f2fe"}
    assert Manifests(tmp_path, mapped, {}, {}).heard() == "music (3 files, 0.1 minutes)"


def test_workers_keep_the_manifest_that_they_were_given(tmp_path, monkeypatch):
    """Another run may find new files, and put others in its place."""
    monkeypatch.setattr(manifests, "SMALL", 2)
    entries = {}
    for number in range(3):
        write_noise(tmp_path / f"{number}.wav", 0.1)
        entries[str(number)] = {"wav": f"{{data_root}}/{number}.wav", "duration": 0.1}
    path = tmp_path / "train.json"
    manifests.write_manifest(path, entries)
    dataset = ClipDataset(load_manifest(path, tmp_path), 0.1)
    manifests.write_manifest(path, dict(reversed(entries.items())))
    batches = [[(0, 0, index)] for index in range(3)]
    loader = make_loader(dataset, batches, num_workers=1)
    assert [batch.ids for batch in loader] == [["0"], ["1"], ["2"]]


def test_columns_in_memory_are_small_in_workers():
    manifest = {
        f"{n}": {"wav": f"{n}.wav", "duration": 1.0, "labels": ["long"] * 99}
        for n in range(1000)
    }
    assert len(pickle.dumps(ClipDataset(manifest, 1.0))) < 60_000


def test_splits_and_ids_are_those_of_one_hash_after_another():
    """As they were before they were computed together; a corpus depends on them."""
    paths = [f"album {n % 7}/{n:x}é\udce9.live.flac" for n in range(500)]
    paths += ["a.b/c", "x/.y.ogg", "end.", "..z.wav", "a/one.wav", "a__one.flac"]
    for path, name in zip(paths, clip_ids(paths), strict=True):
        stem = str(PurePosixPath(path).with_suffix("")).replace("/", "__")
        number = f"-{keyed_integer(1 << 32, 'clip id', path):08x}"
        assert name == stem + number * (stem == "a__one")
    parts = split_files(paths, 7, 0.1, 0.2)
    share = {
        path: keyed_integer(1 << 53, 7, "split", path) / (1 << 53) for path in paths
    }
    assert parts["valid"] == sorted(path for path in paths if share[path] < 0.1)
    assert parts["train"] == sorted(path for path in paths if share[path] >= 0.1 + 0.2)
    assert np.isclose(len(parts["test"]), 100, atol=40)


def test_manifests_that_are_dropped_leave_no_file_open(large):
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        load_manifest(large, "/music")
    assert len(os.listdir("/dev/fd")) <= before + 1
