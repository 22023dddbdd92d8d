"""Probing as a user does: a CSV of labels, an encoder, a report; again from the
cache.
"""

import json

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import recipe, recipe_here


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A folder of tones and noises with their labels, and an encoder."""
    folder = tmp_path_factory.mktemp("labelled")
    lines = ["path,sound,tags,artist"]
    for index in range(36):
        rng = np.random.default_rng(index)
        time = np.arange(8000) / 16000
        loud, tonal = 0.1 + 0.1 * rng.random(), index % 2
        wave = np.sin(2 * np.pi * rng.uniform(200, 400) * time)
        wav = loud * (wave if tonal else rng.normal(size=8000))
        soundfile.write(folder / f"{index}.wav", wav, 16000)
        tags = ";".join(["tone"] * tonal + ["even"] * (index % 4 < 2))
        lines.append(f"{index}.wav,{['noise', 'tone'][tonal]},{tags},{index // 4}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    encoder = MuQEncoder(16, num_layers=2, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(folder / "encoder", encoder)
    return folder


def options(folder, tasks="[{label: sound}, {label: tags, kind: multi}]", out="probe"):
    """Options of the command."""
    return [
        "hparams/probe_csv.yaml",
        *("--encoder", folder / "encoder"),
        *("--labels_csv", folder / "labels.csv"),
        *("--group", "artist", "--tasks", tasks),
        *("--output_folder", folder / out, "--features.folder", folder / "cache"),
        *("--reader.max_epochs", "5", "--seeds", "[0]", "--untrained_seeds", "[1, 2]"),
    ]


@pytest.mark.slow
def test_a_probe_leaves_everything_and_goes_on(labelled):
    result = recipe("probe.py", *options(labelled))
    assert "sound " in result.stdout.lower() and "Report:" in result.stdout
    folder = labelled / "probe"
    scores = json.loads((folder / "scores.json").read_text())
    assert [task["label"] for task in scores] == ["sound", "tags"]
    rows = scores[0]["rows"]
    assert {row["features"] for row in rows} == {
        "log-mel statistics",
        "untrained encoder",
        "trained encoder",
    }
    assert max(row["value"] for row in rows) > 0.9  # noises are told from tones
    for name in ("report.html", "report.md", "hyperparams.yaml", "tasks/tags.npz"):
        assert (folder / name).stat().st_size > 0, name
    files = {path: path.stat().st_mtime_ns for path in labelled.glob("cache/*")}
    assert sum("reading" not in path.name for path in files) == 2 + 2

    recipe("probe.py", *options(labelled))
    assert {p: p.stat().st_mtime_ns for p in labelled.glob("cache/*")} == files
    assert json.loads((folder / "scores.json").read_text()) == scores


def test_mistakes_are_one_message(labelled):
    wrong = options(labelled, "[{label: sond}]", "mistaken")
    result = recipe("probe.py", *wrong, check=False)
    assert result.returncode == 2
    assert "error: No clip has the label 'sond'; the nearest one is 'sound'" in (
        result.stderr
    )


@pytest.mark.slow
def test_notes_are_probed_beside_music_and_alone(labelled, data_options, tmp_path):
    """A label of the notes is heard there, whatever the music; by linear probes."""
    options = [
        *("--encoder", labelled / "encoder", "--untrained_seeds", "[1]"),
        *("--notes.notes_folder", tmp_path / "notes", "--notes.step", "12"),
        *("--features.folder", tmp_path / "cache", "--features.window_seconds", "1"),
        *("--reader.folds", "2"),
    ]
    both = [
        *("--data.data_folder", data_options[1], *data_options[2:]),
        *("--tasks", "[{label: octave, group: source}]"),
        *("--reader.readers", "[linear]", "--reader.mixture", "False"),
    ]
    folder = tmp_path / "both"
    recipe_here(
        "probe.py", "hparams/probe.yaml", *options, *both, "--output_folder", folder
    )
    (octave,) = json.loads((folder / "scores.json").read_text())
    assert (octave["label"], octave["group"]) == ("octave", "source")
    assert octave["clips"]["train"] == 168 and octave["test_groups"] == 14
    best = max(row["value"] for row in octave["rows"])
    assert best > octave["chance"] + 0.2

    folder = tmp_path / "alone"
    recipe_here(
        "probe.py", "hparams/probe_notes.yaml", *options, "--output_folder", folder
    )
    tasks = json.loads((folder / "scores.json").read_text())
    assert [task["label"] for task in tasks] == ["pitch", "instrument_family"]
    assert {row["reader"] for task in tasks for row in task["rows"]} == {"linear"}
