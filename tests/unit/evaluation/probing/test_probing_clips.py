"""CSV files of labels: what is read, and every mistake as a message."""

import logging

import numpy as np
import pytest
import soundfile

from muq_plugins.data.preparation import Manifests
from muq_plugins.evaluation.probing.clips import (
    ProbeError,
    csv_clips,
    folder_clips,
    or_rather,
)


@pytest.fixture
def folder(tmp_path):
    """Three recordings and their labels."""
    (tmp_path / "audio").mkdir()
    for name in "abc":
        soundfile.write(tmp_path / "audio" / f"{name}.wav", np.zeros(4000), 8000)
    (tmp_path / "labels.csv").write_text(
        "path,instrument,part\naudio/a.wav,flute,train\naudio/b.wav,,valid\n"
        "audio/c.wav,harp,test\n"
    )
    return tmp_path


def test_a_file_is_read(folder):
    clips = csv_clips(folder / "labels.csv", split_column="part")
    assert [clip.part for clip in clips] == ["train", "valid", "test"]
    assert [clip.labels.get("instrument") for clip in clips] == ["flute", None, "harp"]
    assert [clip.duration for clip in clips] == [0.5] * 3
    assert csv_clips(folder / "labels.csv")[0].part is None


def test_blanks_around_a_cell_are_no_part_of_it(folder):
    (folder / "x.csv").write_text('path, x, y\naudio/a.wav, "b, c",d \n\naudio/b.wav\n')
    first, second = csv_clips(folder / "x.csv")
    assert first.labels == {"path": "audio/a.wav", "x": "b, c", "y": "d"}
    assert second.labels == {"path": "audio/b.wav"}


def test_paths_may_start_elsewhere_and_the_file_may_have_a_mark(folder):
    text = "\ufefffile,x\na.wav,1\n"
    (folder / "other.csv").write_text(text, encoding="utf-8")
    clips = csv_clips(folder / "other.csv", folder / "audio", path_column="file")
    assert clips[0].labels == {"file": "a.wav", "x": "1"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,x\n", {}, "lists no recordings"),
        ("pth,x\na,1\n", {}, "no column 'path'; the nearest one is 'pth'"),
        ("path;x\na;1\n", {}, "no column 'path': .* not separated by ',' but by ';'"),
        ("path,x\na,\udcdf\n", {}, "cannot be read .*0xdf.*: save it as CSV in UTF-8"),
        ("path,part\naudio/a.wav,train\n", {"split_column": "prt"}, "is 'part'"),
        ("path,s\naudio/a.wav,dev\n", {"split_column": "s"}, "line 2: the split is 'd"),
        (
            "path\naudio/a.wav\naudio/x.wav\naudio/y.wav\n",
            {},
            "'audio/x.wav', 'audio/y",
        ),
        ("path\naudio/a.wav\naudio/a.wav\n", {}, "'audio/a.wav' more than once"),
        ("path\naudio/a.wav\n./audio/a.wav\n", {}, "more than once as 'audio/a.wav'"),
        ('path,x\na,"b\nc,d\n', {}, "line 3 cannot be read .*end of data"),
        ('path,x\na,"b\nc",d\n', {}, "line 3: 3 cells below 2 columns"),
        ('path,x\na,"b\nc"\n', {}, "line 3: a cell that begins with 'b' goes on"),
        ("path,x\na,piano, solo\n", {}, "line 2: 3 cells below 2 columns"),
        ("path,x,x\na,b,c\n", {}, "has the column 'x' more than once"),
        ("path\nlabels.csv\n", {}, "line 2: .*undecodable"),
        ("path\n" + "".join(f"{n}.wav\n" for n in range(8)), {}, "and 3 more"),
        (None, {}, "There is no file .*labels.csv"),
    ],
)
def test_mistakes(folder, text, options, message):
    (folder / "labels.csv").unlink()
    if text is not None:
        (folder / "labels.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ProbeError, match=message):
        csv_clips(folder / "labels.csv", **options)


def test_nothing_is_near_nothing():
    assert or_rather("x", []) == ": there are none."


def manifests_of(folder, *names):
    """Manifests of recordings, one in each part and the rest in the first."""
    entries = [{"wav": f"{folder}/{name}", "duration": 1.0} for name in names]
    parts = [dict(enumerate(entries[2:], 2)), {0: entries[0]}, {1: entries[1]}]
    return Manifests(folder, *parts)


def test_subfolders_are_classes_whatever_is_below(tmp_path, caplog):
    names = ["harp/a.wav", "flute/x/a.wav", "flute/y/b.wav", "loose.wav"]
    with caplog.at_level(logging.WARNING):
        clips = folder_clips(manifests_of(tmp_path, *names), tmp_path)
    found = {clip.name: clip.labels["class"] for clip in clips}
    assert found == dict(zip(names, ["harp", "flute", "flute", None], strict=True))
    assert {clip.part for clip in clips} == {None}
    assert "left out" in caplog.text and "loose.wav" in caplog.text


@pytest.mark.parametrize(
    ("names", "words"),
    [(["a.wav", "b.wav"], "no subfolder"), (["x/a.wav", "x/b.wav"], "class, 'x'")],
)
def test_a_folder_without_two_classes_is_refused(tmp_path, names, words):
    with pytest.raises(ProbeError, match=words):
        folder_clips(manifests_of(tmp_path, *names), tmp_path)
