"""Tests of the log of files that went bad during training."""

import pytest

from muq_plugins.brains.logbook import QuarantineLog
from muq_plugins.errors import UserError
from muq_plugins.files import read_json_lines


def test_files_are_counted_once_and_written(tmp_path):
    log = QuarantineLog(tmp_path / "new", max_bad_fraction=0.5)
    assert log.record([], 10) == 0
    assert not log.path.exists()
    failures = [("a.wav", "missing"), ("b.wav", "truncated"), ("a.wav", "missing")]
    assert log.record(failures, 10) == 2
    assert log.record([("b.wav", "truncated")], 10) == 0
    assert len(log) == 2
    assert read_json_lines(log.path) == [
        {"path": "a.wav", "reason": "missing"},
        {"path": "b.wav", "reason": "truncated"},
    ]


def test_a_resumed_run_goes_on_counting(tmp_path):
    QuarantineLog(tmp_path, 0.5).record([("a.wav", "missing")], 10)
    log = QuarantineLog(tmp_path, 0.5)
    assert len(log) == 1
    assert log.record([("a.wav", "missing"), ("b.wav", "empty")], 10) == 1
    assert len(read_json_lines(log.path)) == 2


def test_half_a_line_of_a_killed_run(tmp_path):
    log = QuarantineLog(tmp_path, 0.5)
    log.record([("a.wav", "missing")], 10)
    with open(log.path, "a", encoding="utf-8") as file:
        file.write('{"path": "b.w')
    log = QuarantineLog(tmp_path, 0.5)
    log.record([("c.wav", "missing")], 10)
    assert len(QuarantineLog(tmp_path, 0.5)) == 2


def test_too_many(tmp_path):
    log = QuarantineLog(tmp_path, max_bad_fraction=0.2)
    log.record([("a.wav", "missing"), ("b.wav", "missing")], 10)
    message = r"(?s)3 of 10 .*30.0%.*20.0%.*a.wav: missing.*quarantine.jsonl.*delete"
    with pytest.raises(UserError, match=message):
        log.record([("c.wav", "truncated")], 10)
    assert len(QuarantineLog(tmp_path, 0.2)) == 3


def test_a_stopped_run_stops_again(tmp_path):
    failures = [("a.wav", "missing")]
    for _ in range(2):
        with pytest.raises(UserError, match="1 of 10"):
            QuarantineLog(tmp_path, max_bad_fraction=0.0).record(failures, 10)


def test_bad_fraction(tmp_path):
    with pytest.raises(ValueError, match="share in 0..1, got 1.5"):
        QuarantineLog(tmp_path, max_bad_fraction=1.5)
