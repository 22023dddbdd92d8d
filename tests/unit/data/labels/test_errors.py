"""Labels that must not be used, and what is said about them."""

import hashlib
import json
import os
import re

import numpy as np
import pytest
import soundfile

from muq_plugins.data.labels import LabelSet, LabelWindows
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.extraction import extract_labels
from muq_plugins.errors import UserError
from tests.unit.data.labels.conftest import make_target

MINUTES = 2.5 / 60


@pytest.fixture
def folder(extract, tmp_path):
    """A complete set of labels."""
    extract(tmp_path / "labels")
    return tmp_path / "labels"


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


def test_labels_of_another_tokenizer(open_labels, folder):
    with refused("tokenizer is [0-9a-f]+ there, [0-9a-f]+ here", folder):
        open_labels(target=make_target(seed=1))


def test_labels_of_another_teacher_and_layer(open_labels, folder):
    with refused("teacher is teacher there, other here", folder):
        open_labels(target=make_target(fingerprint="other"))
    with refused("layer is 1 there, 2 here", folder):
        open_labels(target=make_target(layer=2))


def test_labels_of_another_codebook_size(open_labels, folder):
    with refused("codebook_size is 32 there, 64 here", folder):
        open_labels(target=make_target(codebook_size=64))


def test_labels_of_other_windows(open_labels, folder, target):
    with refused("window_frames is 20 there, 25 here", folder):
        open_labels(windows=LabelWindows(target, 25, 5))


def test_labels_of_another_corpus(open_labels, folder, manifest):
    longer = {**manifest, "track0": {**manifest["track0"], "duration": 9.0}}
    with refused("manifest is [0-9a-f]+ there, [0-9a-f]+ here", folder):
        open_labels(manifest=longer)


def test_a_shard_that_lacks_a_byte(open_labels, folder):
    path = folder / "shard-00001.codes"
    os.truncate(path, path.stat().st_size - 1)
    with refused("bytes instead of", path):
        open_labels()


@pytest.mark.parametrize("name", ["shard-00001.codes", "shard-00001.json"])
def test_a_missing_shard(open_labels, folder, name):
    (folder / name).unlink()
    with refused("is missing", folder / name):
        open_labels()


@pytest.mark.parametrize("content", ["{", "[]", '{"frames": 3}'])
@pytest.mark.parametrize("name", ["shard-00000.json", "labels.json"])
def test_damaged_json(open_labels, folder, name, content):
    (folder / name).write_text(content, encoding="utf-8")
    with refused("is damaged", folder / name):
        open_labels()


def test_labels_that_were_never_verified(open_labels, folder):
    (folder / "verified.json").unlink()
    with refused("never verified", folder / "verified.json"):
        open_labels()


def test_no_labels(open_labels, folder):
    (folder / "labels.json").unlink()
    with pytest.raises(UserError, match="There are no labels in"):
        open_labels()


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


def test_a_clip_that_is_not_covered(extract, folder):
    path = folder / "shard-00001.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["clips"].popitem()
    path.write_text(json.dumps(index), encoding="utf-8")
    with refused("does not cover its clips exactly once", path):
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
