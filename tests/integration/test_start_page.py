"""The page of the first five minutes does what it says, in Python."""

import re
from pathlib import Path

import pytest

from tests.unit.inference.tones import write_tone
from tests.unit.meter import needs_meter

PAGE = Path(__file__).parents[2] / "docs" / "start.md"


@needs_meter
def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys, pixels):
    for name, pitch in (("song.mp3", 220), ("near.wav", 225), ("far.flac", 3000)):
        write_tone(tmp_path / "music" / name, pitch, seconds=1)
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    found = {}
    exec(compile("\n".join(code), str(PAGE), "exec"), found)
    assert found["frames"].shape == (25, 256)
    assert float(found["track"].norm()) == pytest.approx(1)
    assert capsys.readouterr().out.startswith("['far.flac', ")
    far, near, song = found["tracks"]
    assert float(near @ song) > float(near @ far)
    assert "<svg" in (tmp_path / "music.svg").read_text("utf-8")
