"""Probing as a user does: a CSV of labels, an encoder, a report; again from the cache.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import json

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import recipe


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


def options(folder, tasks="[{label: sound}, {label: tags, kind: multi}]"):
    """Options of the command."""
    return [
        "hparams/probe_csv.yaml",
        *("--encoder", folder / "encoder"),
        *("--labels_csv", folder / "labels.csv"),
        *("--group", "artist", "--tasks", tasks),
        *("--output_folder", folder / "probe", "--features.folder", folder / "cache"),
        *("--reader.max_epochs", "5", "--seeds", "[0]"),
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
    assert len(files) == 3

    again = recipe("probe.py", *options(labelled))
    assert (again.stdout + again.stderr).count("finished before") == 2
    assert {p: p.stat().st_mtime_ns for p in labelled.glob("cache/*")} == files
    assert json.loads((folder / "scores.json").read_text()) == scores


def test_mistakes_are_one_message(labelled):
    result = recipe("probe.py", *options(labelled, "[{label: sond}]"), check=False)
    assert result.returncode == 2
    assert "error: No clip has the label 'sond'; the nearest one is 'sound'" in (
        result.stderr
    )
