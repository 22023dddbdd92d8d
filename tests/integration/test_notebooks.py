"""Every notebook runs from top to bottom, and what it shows is so."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from muq_plugins.data.corpus.notes import build_notes

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """A third of the notes that the notebooks render."""
    return build_notes(tmp_path_factory.mktemp("made") / "notes", 18, progress=False)


@pytest.fixture
def run(notes, tmp_path, monkeypatch):
    """Runs a notebook; gives what its names stand for in the end."""
    display = ModuleType("IPython.display")
    display.Audio = lambda data, rate: SimpleNamespace(data=data, rate=rate)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(notes, tmp_path / "notes")

    def run(name, **changes):
        cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
        code = ["".join(x["source"]) for x in cells if x["cell_type"] == "code"]
        names = {"__name__": "__main__"}
        text = "\n\n".join(code).replace("step=6", "step=18")
        for number, smaller in changes.items():
            assert f"\n{number} = " in text
            text = re.sub(rf"\n{number} = \d+", f"\n{number} = {smaller}", text)
        exec(compile(text, name, "exec"), names)
        return names

    return run


def test_features_and_a_classifier(run):
    scores = run("features_and_a_classifier")["scores"]
    assert scores["octave"][0] > 0.4 and scores["instrument_family"][0] > 0.15


def test_what_mel_rvq_keeps(run):
    found = run("what_mel_rvq_keeps")
    spectrogram, truth = found["spectrogram"], found["truth"]
    errors = [(spectrogram(n) - truth).square().mean() for n in (1, 4, 8)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < truth.var()
    heard = found["listen"](8)
    assert heard.rate == 24000 and len(heard.data) > 7 * heard.rate


def test_muq_in_a_speechbrain_recipe(run):
    right = run("muq_in_a_speechbrain_recipe")["brain"].right
    assert sum(right) / len(right) > 0.4


def test_pretrain_and_probe(run):
    found = run("pretrain_and_probe", updates=70)
    assert found["masked"] < found["counting"] - 0.05
    assert len(found["scores"]["trained"]) == len(found["scores"]["untrained"]) == 3


def test_music_and_text(run):
    found = run("music_and_text", updates=40)["found"]
    heights = [found[height] for height in ("low", "middle", "high")]
    gains = [right - chance for right, chance in heights]
    assert sum(gains) / len(gains) > 0.2
