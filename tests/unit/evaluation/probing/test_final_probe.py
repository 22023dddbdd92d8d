"""The probe that ends a training, and what iterations and pages read of it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from muq_plugins.evaluation.intervals import interval
from muq_plugins.evaluation.probing import run
from muq_plugins.evaluation.probing.features import UNTRAINED_SEEDS
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    LOG_MEL,
    TRAINED,
    UNTRAINED,
    load_final_probe,
)
from muq_plugins.evaluation.probing.run import probe_run
from muq_plugins.lobes import MuQEncoder
from tests.unit.evaluation.probed import save_final_probe, write_songs, write_tones

# Of 71 and 40 clips, as version 0.1 wrote it.
OF_BEFORE = Path(__file__).parents[3] / "data" / "probe_of_before.json"


@pytest.fixture(autouse=True)
def two_initialisations(monkeypatch):
    """Each costs as much as the trained encoder."""
    monkeypatch.setattr(run, "UNTRAINED_SEEDS", UNTRAINED_SEEDS[:2])


def encoder():
    return MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)


def test_an_encoder_is_compared_with_itself_untrained(tmp_path, caplog):
    train, test = write_tones(tmp_path, 16), write_tones(tmp_path, 16)
    train["low0"]["family"], test["low2"]["family"] = "mixed", None
    del train["high1"]["family"]
    test["low4"]["family"] = "Theremin"
    for manifest, name in ((train, "low6"), (test, "low8")):
        (tmp_path / f"broken{name}.wav").write_bytes(b"no audio")
        manifest[name]["wav"] = str(tmp_path / f"broken{name}.wav")
    assert probe_run(tmp_path, encoder().train(), train, test)
    probe = load_final_probe(tmp_path)
    assert [row.features for row in probe.chosen()] == [LOG_MEL, UNTRAINED, TRAINED]
    assert probe.chosen()[0].value == 1.0  # labels still belong to their clips
    assert probe.clips == {"train": 13, "valid": 0, "test": 13}
    assert "2 of 29 clips could not be read" in probe.notes[0]
    assert "Theremin" in probe.notes[2]
    assert "brokenlow6" in caplog.text and "brokenlow8" in caplog.text


def test_where_notes_are_known_they_are_probed_for(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "UNTRAINED_SEEDS", UNTRAINED_SEEDS)
    train = write_songs(tmp_path, range(6))
    test = write_songs(tmp_path, range(6, 12))
    for entry in [*train.values(), *test.values()]:
        entry["family"] = "Theremin"  # which alone would be no probe
    assert probe_run(tmp_path, encoder(), train, test)
    probe = load_final_probe(tmp_path)
    assert (probe.label, probe.kind, probe.test_groups) == ("notes", "frames", 6)
    assert [row.layer for row in probe.curve(TRAINED, LINEAR)] == [0, 1]
    assert len(probe.row(UNTRAINED, LINEAR).initialisations) == 5
    assert probe.gain(probe) == (0.0, 0.0, 0.0)
    del test["song6"]["midi"]
    assert probe_run(tmp_path, encoder(), train, test)
    assert load_final_probe(tmp_path).test_groups == 5
    assert not load_final_probe(tmp_path).gain(probe)


def test_all_layers_are_read(tmp_path):
    manifest = write_tones(tmp_path, 12)
    deep = MuQEncoder(16, num_layers=2, num_heads=2, ffn_width=16, conv_channels=2)
    assert probe_run(tmp_path, deep, manifest, manifest)
    probe = load_final_probe(tmp_path)
    for features, initialisations in ((TRAINED, None), (UNTRAINED, 2)):
        rows = probe.curve(features, LINEAR)
        assert [row.layer for row in rows] == [0, 1, 2]
        for row in rows:
            assert len(row.initialisations or []) == (initialisations or 0)


def test_no_labels_or_too_few_do_not_end_the_run_with_an_error(tmp_path):
    manifest = {"a": {"wav": "a.wav", "duration": 1.0}}
    assert not probe_run(tmp_path, encoder(), manifest, manifest)
    manifest = write_tones(tmp_path, 4, lambda piece: "low")
    assert not probe_run(tmp_path, encoder(), manifest, manifest)
    assert load_final_probe(tmp_path) is None


def test_a_probe_of_before_is_read(tmp_path):
    old = json.loads(OF_BEFORE.read_text("utf-8"))
    shutil.copy(OF_BEFORE, tmp_path / "probe.json")
    probe = load_final_probe(tmp_path)
    for row, was in zip(probe.chosen(), old, strict=True):
        assert (row.features, row.layer) == (was["name"], was["layer"])
        assert row.value == was["balanced_accuracy"]
        assert [row.low, row.high] == was["interval"]
        # Drawn again from its predictions, the interval is the same.
        assert interval(row.value, probe.draws(row))[1:] == tuple(was["interval"])
        recalls = list(probe.recalls(row).values())
        assert np.mean(recalls) == pytest.approx(row.value)
    (gain, _) = probe.comparisons
    # What the code of then said about it.
    found = gain.reference, round(gain.difference, 9), gain.low, gain.high
    assert found == (UNTRAINED, -0.130036630, -0.3101262626262626, 0.02430375180375146)


def signal(strength, seed, clips=80):
    """Two classes in noise, the pieces of which have two clips each."""
    labels = np.array(["Organ", "Organ", "Piano", "Piano"] * (clips // 4))
    x = np.random.default_rng(seed).normal(size=(clips, 3))
    x[:, 0] += strength * (labels == "Piano")
    parts = ["train"] * (clips // 2) + ["test"] * (clips // 2)
    return x, labels, parts, np.arange(clips) // 2


def test_the_gain_over_another_probe_is_paired(tmp_path):
    (good, *about), (bad, *_) = signal(3.0, 0, 240), signal(0.0, 1, 240)
    better = save_final_probe(tmp_path / "good", {TRAINED: good}, *about)
    worse = save_final_probe(tmp_path / "bad", {TRAINED: bad}, *about)
    better, worse = (load_final_probe(tmp_path / name) for name in ("good", "bad"))
    value, low, high = better.gain(worse)
    values = [probe.row(TRAINED, LINEAR).value for probe in (better, worse)]
    assert value == pytest.approx(values[0] - values[1]) and 0 < low < value < high
    assert better.gain(better) == (0.0, 0.0, 0.0)
    other = dict(worse.predictions, groups=worse.predictions["groups"][::-1])
    assert better.gain(dataclasses.replace(worse, predictions=other)) is None


def test_intervals_are_over_pieces_and_the_layer_is_chosen_in_training(tmp_path):
    x, labels, parts, pieces = signal(1.0, 2)
    copied = [np.repeat(values, 6, axis=0) for values in (x, labels, parts)]
    of = {
        name: save_final_probe(tmp_path / name, {TRAINED: copied[0]}, *copied[1:], own)
        for name, own in (("pieces", np.repeat(pieces, 6)), ("clips", range(480)))
    }
    # Clips six times over: no new knowledge, so the interval must not narrow.
    rows = {name: probe.row(TRAINED, LINEAR) for name, probe in of.items()}
    widths = {name: row.high - row.low for name, row in rows.items()}
    assert widths["pieces"] > 1.8 * widths["clips"]
    layers = np.random.default_rng(0).normal(size=(80, 2, 3))
    layers[:40, 1, 0] += 4 * (labels[:40] == "Piano")
    layers[40:, 0, 0] += 4 * (labels[40:] == "Piano")  # whoever looks takes this one
    probe = save_final_probe(tmp_path, {TRAINED: layers}, labels, parts, pieces)
    assert probe.row(TRAINED, LINEAR).layer == 1
    assert probe.row(TRAINED, LINEAR).value < 0.7
