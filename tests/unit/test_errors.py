"""The error that a person sees."""

import errno
import os
from pathlib import Path

import pytest
from torch._utils import ExceptionWrapper

from muq_plugins.errors import UserError, nearest, refusal, shown, words_of


def test_the_nearest_name_is_found():
    known = ["num_layers", "seed", "width"]
    assert nearest("num_layer", known) == "num_layers"
    assert nearest("x", []) == ""
    assert nearest("xyz", known, cutoff=0.6) == ""


def test_what_is_no_text_is_replaced():
    assert shown(Path(os.fsdecode(b"caf\xe9.wav"))) == "caf\ufffd.wav"
    assert (
        shown("a\x1b[31m\x9b\r.wav: \ud83d\nno")
        == "a\ufffd[31m\ufffd\ufffd.wav: \ufffd\nno"
    )


def test_what_a_disk_refuses_is_one_line():
    full = OSError(errno.ENOSPC, "No space left on device", "x/labels.json")
    words = "x/labels.json: No space left on device: make room"
    assert refusal(full).startswith(words)
    try:
        raise RuntimeError("cannot be saved") from full
    except RuntimeError as error:
        assert refusal(error).startswith(words)
    rust = Exception("I/O error: No space left on device (os error 28)")
    assert refusal(rust).startswith("I/O error: No space left on device: make room")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file")]
)
def test_what_may_be_a_bug_is_none(error):
    assert refusal(error) is None


def test_an_error_of_a_worker_is_told_without_its_traceback():
    try:
        try:
            raise FileNotFoundError("no file")
        except FileNotFoundError as cause:
            raise UserError("a.tar is missing: copy it.\nSecond line.") from cause
    except UserError as error:
        assert words_of(error) == "a.tar is missing: copy it.\nSecond line."
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(UserError, match="Traceback") as caught:
        wrapped.reraise()
    assert words_of(caught.value) == "a.tar is missing: copy it.\nSecond line."
