"""Captions of a folder of recordings."""

import json
import logging

import pytest

from muq_plugins.data.captions import CaptionWriter
from muq_plugins.data.preparation import Manifests, add_captions
from muq_plugins.errors import UserError


@pytest.fixture
def manifests(tmp_path):
    """Three recordings in each part."""
    parts = [
        {
            f"{part}-{i}": {"wav": str(tmp_path / part / f"{i}.flac"), "duration": 2.0}
            for i in range(3)
        }
        for part in ("train", "valid", "test")
    ]
    return Manifests(tmp_path, *parts)


def write(folder, content):
    path = folder / "captions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


EVERYTHING = {
    f"{part}/{i}.flac": f"Song {i} 歌"
    for part in ("train", "valid", "test")
    for i in range(3)
}


def test_captions_reach_the_entries(manifests, tmp_path):
    content = {**EVERYTHING, "train/1.flac": {"tags": ["jazz"], "piece": "a"}}
    found = add_captions(manifests, write(tmp_path, content), tmp_path)
    assert found.train["train-0"] == {
        **manifests.train["train-0"],
        "caption": "Song 0 歌",
    }
    assert found.train["train-1"]["piece"] == "a"
    assert CaptionWriter(found.train).caption("train-1", 5) == "jazz"
    assert "caption" not in manifests.train["train-0"]


def test_recordings_without_a_caption_are_left_out_and_counted(
    manifests, tmp_path, caplog
):
    content = dict(EVERYTHING)
    del content["valid/2.flac"]
    with caplog.at_level(logging.WARNING):
        found = add_captions(manifests, write(tmp_path, content), tmp_path)
    assert list(found.valid) == ["valid-0", "valid-1"] and len(found.train) == 3
    assert "1 of 3 recordings of the valid part are left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other/0.flac": "x"}, "knows none of the 3 recordings of the train part"),
        ({}, "it has 0 paths, such as 'none'"),
        (["x"], "must hold a JSON object"),
        ({**EVERYTHING, "train/0.flac": 3}, "'train/0.flac' must be a caption"),
        ({**EVERYTHING, "a": {"wav": "x"}}, "'a' must be a caption"),
        (None, "no file of captions"),
        (b"{", "captions.json is damaged .*line 1.*must be JSON"),
    ],
)
def test_files_that_are_wrong_are_errors(manifests, tmp_path, content, message):
    path = tmp_path / "captions.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(tmp_path, content)
    with pytest.raises(UserError, match=message):
        add_captions(manifests, path, tmp_path)


@pytest.mark.parametrize(
    "entry",
    ["x" * 200_000, {"captions": ["a", "x" * 200_000]}, {"tags": ["x" * 200_000]}],
)
def test_a_caption_of_megabytes_is_refused(manifests, tmp_path, entry):
    content = {**EVERYTHING, "train/1.flac": entry}
    with pytest.raises(UserError, match="'train/1.flac' has a text of 200,000"):
        add_captions(manifests, write(tmp_path, content), tmp_path)
