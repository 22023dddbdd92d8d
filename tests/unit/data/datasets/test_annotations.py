"""Beats and intervals: what manifests and published files may say, and what not."""

import numpy as np
import pytest

from muq_plugins.data.datasets.annotations import (
    Beats,
    Intervals,
    read_beats,
    read_boundaries,
    read_intervals,
)
from muq_plugins.errors import UserError


def test_rows_of_a_manifest_come_back():
    rows = [[0.5, 2], [1.0, 1], [1.5, 2], [2.25, 0]]
    beats = Beats.of(rows, "a clip")
    assert beats.rows() == rows and beats.downbeats.tolist() == [1.0]
    rows = [[0.0, 1.5, "C:maj7"], [2.0, 3.0, "N"]]
    chords = Intervals.of(rows, "a clip")
    assert chords.rows() == rows
    moments = np.array([0.0, 1.49, 1.5, 2.0, 3.0])
    assert chords.at(moments).tolist() == [0, 0, -1, 1, -1]
    late = Intervals.of([[1.0, 2.0, "N"]], "a clip")
    assert late.at(moments[:3]).tolist() == [-1, 0, 0]
    assert Intervals.of([], "a clip").at(moments).tolist() == [-1] * 5
    assert Beats.of([], "a clip").rows() == []


@pytest.mark.parametrize(
    ("kind", "rows", "says"),
    [
        (Beats, [[1.0, 1], [1.0, 2]], "beat at 1 s is not after the last one"),
        (Beats, [[-0.1, 1]], "before the start"),
        (Beats, [[0.1, 1.5]], "1.5 is no place in a bar"),
        (Beats, [[0.1]], r"\[0.1\] should be 2 numbers"),
        (Beats, [[float("nan"), 1]], "should be 2 numbers"),
        (Intervals, [[0, 1, "A"], [0.9, 2, "B"]], "begins at 0.9 s"),
        (Intervals, [[1, 1, "A"]], "is no stretch"),
        (Intervals, [[0, 1]], "has no label"),
        (Intervals, [["a", 1, "A"]], "should be 2 numbers"),
    ],
)
def test_what_cannot_be_is_said_with_where_it_is(kind, rows, says):
    with pytest.raises(UserError, match=f"clip 7: .*{says}"):
        kind.of(rows, "clip 7")


def test_published_text_files(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("0.1\n0.62\n")  # GTZAN, some jazz
    assert read_beats(path, "there").rows() == [[0.1, 0], [0.62, 0]]
    path.write_text("0.0\t1\t1\n0.5\t2\t1\n")  # Harmonix
    assert read_beats(path, "there").positions.tolist() == [1, 2]
    path.write_text("0.0 0.5 N\r\n0.5\t1.5\tC:maj/3\r\n1.5 1.50 N\r\n")
    rows = [[0.0, 0.5, "N"], [0.5, 1.5, "C:maj/3"]]
    assert read_intervals(path, "there").rows() == rows
    path.write_text("0.0 intro\n8.5 verse one\n20.1 end\n")  # Harmonix
    rows = [[0.0, 8.5, "intro"], [8.5, 20.1, "verse one"]]
    assert read_boundaries(path, "there").rows() == rows
    path.write_text("0.0 0.5 N\n0.4 oops\n")
    with pytest.raises(UserError, match=r"one.txt: .*oops.* again from there"):
        read_intervals(path, "there")
    path.write_text("")
    with pytest.raises(UserError, match="lists nothing. Get it again from there"):
        read_beats(path, "there")
