"""Annotation files that cannot be read."""

import pytest

from muq_plugins.data.datasets.tagged import read_text
from muq_plugins.errors import UserError


def test_a_mark_of_utf_8_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffclip".encode())
    assert read_text(tmp_path / "a.csv", "the web") == "clip"


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="a.csv does not exist. Get it from the web"):
        read_text(tmp_path / "a.csv", "the web")


def test_annotations_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a.csv is no text .* from the web"):
        read_text(tmp_path / "a.csv", "the web")
