"""Tests of JSON files that survive being interrupted.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import pytest

from muq_plugins.data.jsonio import (
    append_json_line,
    open_json_lines,
    read_json_lines,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    before = path.read_text()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == before


def test_lines_are_on_disk_while_the_file_is_open(tmp_path):
    with open_json_lines(tmp_path / "a.jsonl") as file:
        append_json_line(file, {"a": 1})
        assert read_json_lines(tmp_path / "a.jsonl") == [{"a": 1}]


def test_half_a_line_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    with open_json_lines(path) as file:
        append_json_line(file, {"a": 3})
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_no_file_no_lines(tmp_path):
    assert read_json_lines(tmp_path / "a.jsonl") == []
