"""The error that a person sees."""

import os
from pathlib import Path

from muq_plugins.errors import nearest, shown


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
