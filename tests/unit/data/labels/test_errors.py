"""Labels that must not be used, and what is said about them."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from muq_plugins.data.labels import LabelSet, LabelWindows
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.extraction import extract_labels
from muq_plugins.errors import UserError
from tests.unit.data.labels.conftest import make_target, make_windows, write_tracks

MINUTES = 2.5 / 60


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A complete set of labels."""
    folder = tmp_path_factory.mktemp("extracted")
    windows, manifest = make_windows(make_target()), write_tracks(folder)
    extract_labels(folder / "labels", windows, manifest, shard_minutes=MINUTES)
    return folder / "labels"


@pytest.fixture
def folder(extracted, tmp_path):
    """A copy of it, beside a copy of the music."""
    return shutil.copytree(extracted, tmp_path / "labels")


@pytest.fixture
def open_labels(folder, target, manifest):
    """Opens them, for what is given."""

    def run(target=target, windows=None, manifest=manifest):
        windows = windows or LabelWindows(target, 20, 5)
        description = describe(windows, manifest, MINUTES, latents=False)
        return LabelSet(folder, manifest, description)

    return run


def refused(match, path):
    return pytest.raises(UserError, match=f"{re.escape(str(path))}.*{match}")


def test_good_labels_open(open_labels):
    assert open_labels().codes("track0", 0, 5).shape == (5, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "tokenizer is [0-9a-f]+ there, [0-9a-f]+ here"),
        ({"fingerprint": "other"}, "teacher is teacher there, other here"),
        ({"layer": 2}, "layer is 1 there, 2 here"),
        ({"codebook_size": 64}, "codebook_size is 32 there, 64 here"),
    ],
)
def test_labels_of_another_tokenizer(open_labels, folder, changes, message):
    with refused(message, folder):
        open_labels(target=make_target(**changes))


def test_labels_of_other_windows_and_music(open_labels, folder, target, manifest):
    with refused("window_frames is 20 there, 25 here", folder):
        open_labels(windows=LabelWindows(target, 25, 5))
    longer = {**manifest, "track0": {**manifest["track0"], "duration": 9.0}}
    with refused("manifest is [0-9a-f]+ there, [0-9a-f]+ here", folder):
        open_labels(manifest=longer)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shard-00001.codes", b"1", "has 1 bytes instead of"),
        ("shard-00001.codes", None, "is missing"),
        ("shard-00001.json", None, "is missing"),
        *(
            (name, content, "is damaged")
            for name in ("shard-00000.json", "labels.json")
            for content in (b"{", b"[]", b'{"frames": 3}')
        ),
        ("verified.json", None, "never verified"),
        ("labels.json", None, "There are no labels in"),
    ],
)
def test_missing_and_damaged_files(open_labels, folder, name, content, message):
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        open_labels()
    assert str(folder) in str(refusal.value) and name in str(refusal.value)


def test_audio_that_was_changed_after_labelling(open_labels, manifest):
    path = manifest["track1"]["wav"]
    wav, rate = soundfile.read(path)
    soundfile.write(path, wav[::-1], rate, subtype="PCM_16")  # of the same size
    os.utime(path, ns=(1, 1))
    labels = open_labels()
    for _ in range(2):  # not only the first time
        with refused("has changed since it was labelled", path):
            labels.codes("track1", 0, 5)
    assert len(labels.codes("track0", 0, 5)) == 5


def test_audio_that_was_only_copied_is_the_same(open_labels, manifest):
    os.utime(manifest["track1"]["wav"], ns=(1, 1))
    assert len(open_labels().codes("track1", 0, 5)) == 5


def test_a_clip_without_labels(open_labels):
    with pytest.raises(UserError, match="has no labels of another"):
        open_labels().codes("another", 0, 5)


def test_a_shard_that_was_deleted_as_told_is_made_again(open_labels, folder, extract):
    before = open_labels().codes("track0", 0, 100)
    (folder / "shard-00000.codes").write_bytes(b"")
    with pytest.raises(UserError, match="Delete shard-00000.json beside it and run"):
        open_labels()
    (folder / "shard-00000.json").unlink()
    extract(folder)
    np.testing.assert_array_equal(open_labels().codes("track0", 0, 100), before)


# The final check --------------------------------------------------------------


def verify_again(extract, folder):
    (folder / "verified.json").unlink()
    extract(folder)


def test_a_byte_that_was_changed(extract, folder):
    path = folder / "shard-00000.codes"
    content = bytearray(path.read_bytes())
    content[6] ^= 1
    path.write_bytes(content)
    with refused("was changed after it was written", path):
        verify_again(extract, folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index["clips"].popitem(), r"track2 .*None, not \(50, 12, 12000"),
        (
            lambda index: index["clips"]["track2"].update(first=1),
            r"track2 .*\(1, 12",
        ),
        (lambda index: index["failures"].update(other="empty"), "other"),
    ],
)
def test_clips_that_are_not_covered_exactly_once(extract, folder, change, words):
    path = folder / "shard-00001.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    change(index)
    path.write_text(json.dumps(index), encoding="utf-8")
    with refused(f"does not cover .* exactly once: {words}", path):
        verify_again(extract, folder)


def test_labels_that_are_off_by_a_frame(extract, folder, target, windows, manifest):
    """With right sizes and hashes: only computing again can tell."""
    for path in folder.glob("shard-*.codes"):
        codes = np.fromfile(path, "<u2").reshape(-1, 2)
        np.roll(codes, 1, axis=0).tofile(path)
        index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        index["sha256"]["codes"] = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(index), encoding="utf-8")
    with refused("are what the tokenizer says now", folder):
        verify_again(extract, folder)


def test_unreadable_audio_is_reported_and_limited(extract, tmp_path, manifest, target):
    path = manifest["track1"]["wav"]
    with open(path, "r+b") as file:
        file.truncate(20000)
    with pytest.raises(UserError, match=r"1 of 5 clips have no labels.*track1"):
        extract(tmp_path / "a")
    extract(tmp_path / "b", max_bad_fraction=0.2)
    verified = json.loads((tmp_path / "b" / "verified.json").read_text("utf-8"))
    assert verified["failures"] == {"track1": "truncated"}
    assert verified["clips"] == 4


def test_audio_that_is_gone_for_now_is_labelled_later(extract, tmp_path, manifest):
    path = Path(manifest["track1"]["wav"])
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{path}: missing .*run the same command"):
        extract(tmp_path / "a", max_bad_fraction=0.2)
    (tmp_path / "elsewhere").rename(path)
    extract(tmp_path / "a")
    verified = json.loads((tmp_path / "a" / "verified.json").read_text("utf-8"))
    assert verified["failures"] == {} and verified["clips"] == 5


def test_audio_that_is_shorter_than_the_manifest_says(extract, tmp_path, manifest):
    manifest["track1"]["duration"] += 1.0
    with pytest.raises(UserError, match=r"track1 \(truncated\)"):
        extract(tmp_path / "a")


def test_what_cannot_be_stored(windows, manifest, target, tmp_path):
    from muq_plugins.lobes import MultiViewTarget

    several = LabelWindows(MultiViewTarget([target]), 20, 5)
    with pytest.raises(UserError, match="not of a MultiViewTarget"):
        extract_labels(tmp_path, several, manifest)
    target.codebook_size = 65537
    with pytest.raises(UserError, match="65537 entries cannot be stored"):
        extract_labels(tmp_path, windows, manifest)
    with pytest.raises(ValueError, match="not whole numbers of frames"):
        LabelWindows.in_seconds(target, 0.81, 0.2)
