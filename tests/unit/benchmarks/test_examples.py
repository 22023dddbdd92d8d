"""Search by an audio example: what counts as found, and what is left out."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.lobes import MuQEncoder

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
# Its files are scripts that import each other as neighbours.
sys.path.insert(0, str(BENCHMARKS))

import examples  # noqa: E402


def notes(instruments, recordings=None, libraries=None):
    numbers = [str(number) for number in range(len(instruments))]
    parts = (instruments, recordings or numbers, libraries or ["one"] * len(numbers))
    return examples.Notes(numbers, *(np.array(list(part)) for part in parts))


def test_average_precision_by_hand():
    # The nearest to 0 are 2, 1, 3; the same instrument has 1 alone.
    angles = np.array([0.0, 0.3, 0.2, 1.0])
    latents = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = examples.search_scores(latents, notes("aabb"), own_library=False)
    assert found[0, :2].tolist() == [0.5, 0.0]
    # Chance: rank 1, 2 or 3.
    assert found[0, 2] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found[0, 3] == pytest.approx(1 / 3)


def test_the_query_and_its_recording_are_left_out():
    latents = np.array([[1.0, 0], [1.0, 0], [0.5, 0.5], [0, 1.0]])
    pieces = notes("aaab", recordings="xxyz")
    found = examples.search_scores(latents, pieces, own_library=False)
    # Neither itself nor 1, from the same recording: 2 is first, and right.
    assert found[0, :2].tolist() == [1, 1]
    assert found[0, 3] == 0.5
    assert np.isnan(found[3]).all()  # the only one of its instrument


def test_in_its_own_library_a_note_has_other_instruments_beside_it():
    latents = np.array([[1.0, 0], [0.9, 0.1], [0.8, 0.2], [0, 1.0], [1.0, 0]])
    many = notes("aabba", libraries="xxxyy")
    everywhere = examples.search_scores(latents, many, own_library=False)
    inside = examples.search_scores(latents, many, own_library=True)
    assert everywhere[0, 0] == pytest.approx(1)  # 4, then 1
    assert inside[0, 0] == 1  # 1 before 2
    assert inside[0, 2] == 0.75  # one of two
    assert np.isnan(inside[3:]).all()  # nothing of the same instrument there


def test_differences_are_of_the_same_queries():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), 10)
    good = np.eye(6)[kinds] + 0.1 * rng.normal(size=(60, 6))
    bad = rng.normal(size=(60, 6))
    result = examples.compare(
        {examples.LOG_MEL: bad, "model": good}, notes(kinds.astype(str))
    )
    log_mel, model = result[examples.EVERYWHERE]["rows"]
    assert model["map"][0] == pytest.approx(1)
    assert log_mel["map"][0] == pytest.approx(log_mel["chance"], abs=0.1)
    value, low, high = model["difference"]
    assert value == pytest.approx(model["map"][0] - log_mel["map"][0])
    assert 0.5 < low < value < high
    assert log_mel["difference"] == [0, 0, 0]
    text = examples.markdown(result)
    assert "| all libraries | 60 | model | 1.000 [1.000, 1.000] |" in text
    assert f"| chance | {log_mel['chance']:.3f} |" in text


def test_standardised_features_lose_what_all_notes_share():
    values = np.array([[101.0, 7], [99.0, 7]])
    both = examples.both_ways("x", values)
    assert both["x"] is values
    assert both["x, standardised"].tolist() == [[1, 0], [-1, 0]]


@pytest.fixture
def folder(tmp_path):
    """Notes of two instruments, as the manifest of a collection lists them."""
    rows = []
    for number in range(8):
        instrument = ("flute", "drum")[number % 2]
        time = np.arange(12000) / 24000
        tone = np.sin(2 * np.pi * (800 + 10 * number) * time)
        noise = np.random.default_rng(number).normal(size=12000)
        wav = 0.3 * (tone if instrument == "flute" else noise)
        path = f"audio/{number}.ogg"
        (tmp_path / "audio").mkdir(exist_ok=True)
        soundfile.write(tmp_path / path, wav, 24000)
        row = {"path": path, "kind": "note", "instrument": instrument}
        row |= {"source_repo": "repo", "source_path": f"{number}.wav"}
        rows.append({**row, "source_set": "set"})
    rows.append({**rows[0], "kind": "music", "path": "audio/none.ogg"})
    with open(tmp_path / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


class Deaf:
    """A model to which all recordings sound the same."""

    fingerprint = "deaf"

    def __init__(self):
        encoder = MuQEncoder(
            32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4
        )
        self.mods = SimpleNamespace(audio=SimpleNamespace(encoder=encoder))

    def embed_file(self, path):
        return torch.tensor([1.0, 0.0])


def test_the_command_on_a_folder(folder, monkeypatch, capsys):
    monkeypatch.setattr(
        examples.MuQMuLan, "from_pretrained", lambda source, device: Deaf()
    )
    examples.main(
        [
            *(str(folder), "--models", "mine", "--json", str(folder / "out.json")),
            *("--latents_folder", str(folder / "kept")),
        ]
    )
    result = json.loads((folder / "out.json").read_text())
    part = result[examples.EVERYWHERE]
    assert part["queries"] == 8  # the music is no note
    rows = {row["name"]: row for row in part["rows"]}
    assert len(rows) == 4
    log_mel, model = rows[examples.LOG_MEL], rows["mine, standardised"]
    # Tones and noise are easily told by their spectrum; equal latents tell nothing.
    assert log_mel["map"][0] == pytest.approx(1)
    assert model["map"][0] == pytest.approx(model["chance"])
    assert rows["mine"]["map"] == model["map"]
    assert "| all libraries | 8 | mine |" in capsys.readouterr().out
