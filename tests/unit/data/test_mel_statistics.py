"""Statistics of log-mel spectrograms of several settings, and of several runs."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import soundfile
import torch
from torch import nn

from muq_plugins.data import mel_statistics as module
from muq_plugins.data.mel_statistics import mel_statistics, normalise
from muq_plugins.data.preparation import Manifests
from muq_plugins.lobes import (
    ConstantQ,
    LogMel,
    MultiViewTarget,
    RandomProjection,
    StackedFrames,
    Target,
)
from tests.unit.data.recordings import noise_manifest


@pytest.fixture
def manifest(tmp_path):
    return noise_manifest(tmp_path, [1.0] * 3, subtype="FLOAT")


def measure(n_fft, manifest, folder):
    return mel_statistics(LogMel(n_fft=n_fft), manifest, folder, progress=False)


def read(folder):
    return json.loads((folder / "mel_statistics.json").read_text(encoding="utf-8"))


@pytest.fixture
def measured_again(monkeypatch):
    """The settings that were measured, not read."""
    seen, statistics = [], module._statistics

    def observed(features, *others):
        seen.append(features.n_fft)
        return statistics(features, *others)

    monkeypatch.setattr(module, "_statistics", observed)
    return seen


def test_every_setting_is_measured_once(manifest, tmp_path, measured_again):
    first = [measure(n_fft, manifest, tmp_path) for n_fft in (2048, 512)]
    assert abs(first[0][0] - first[1][0]) > 3  # a shorter window hears less energy
    assert [measure(n_fft, manifest, tmp_path) for n_fft in (2048, 512)] == first
    assert measured_again == [2048, 512]
    assert [entry["settings"]["n_fft"] for entry in read(tmp_path)] == [2048, 512]


def test_a_long_file_is_measured_at_many_places(tmp_path):
    """Not in its middle alone, which may be its loudest."""
    wav = 0.3 * torch.randn(60 * 24000, generator=torch.Generator().manual_seed(0))
    wav[: 27 * 24000] *= 0.001
    wav[33 * 24000 :] *= 0.001
    soundfile.write(tmp_path / "a.wav", wav.numpy(), 24000, subtype="FLOAT")
    manifest = {"a": {"wav": str(tmp_path / "a.wav"), "duration": 60.0}}
    mean, std = measure(2048, manifest, tmp_path)
    features = LogMel(n_fft=2048)
    features.set_statistics(0.0, 1.0)
    whole = features(wav[None])[0]
    assert mean == pytest.approx(float(whole.mean()), abs=1)
    assert std == pytest.approx(float(whole.std()), rel=0.05)


def test_other_spectrograms_have_their_own(manifest, tmp_path):
    """Also where those of log-mel spectrograms are given."""
    parts = nn.ModuleList([LogMel(), ConstantQ(num_bins=24, bins_per_octave=12)])
    for _ in range(2):  # measured, then read
        normalise(parts, Manifests(tmp_path, manifest, {}, {}), [1.0, 2.0])
        assert (parts[0].mean, parts[0].std) == (1.0, 2.0)
    values = torch.cat(
        [
            ConstantQ(num_bins=24, bins_per_octave=12)(
                torch.from_numpy(soundfile.read(entry["wav"], dtype="float32")[0])[None]
            )[0]
            for entry in manifest.values()
        ]
    )
    assert float(parts[1].mean) == pytest.approx(float(values.mean()), rel=1e-4)
    assert float(parts[1].std) == pytest.approx(float(values.std()), rel=1e-2)
    assert [entry["class"] for entry in read(tmp_path)] == ["ConstantQ"]


def test_other_clips_in_the_same_folder_are_measured_again(
    manifest, tmp_path, measured_again
):
    fewer = dict(list(manifest.items())[:1])
    assert len(manifest) > 1
    first = [measure(2048, part, tmp_path) for part in (manifest, fewer)]
    assert first[0] != first[1]
    assert [measure(2048, part, tmp_path) for part in (manifest, fewer)] == first
    assert measured_again == [2048, 2048]


def test_other_files_with_the_same_names_are_measured_again(
    manifest, tmp_path, measured_again
):
    for seen in ("one", "one", "two"):
        (tmp_path / "scan.json").write_text(json.dumps({"seen": seen}))
        measure(2048, manifest, tmp_path)
    assert measured_again == [2048, 2048]


def test_other_shards_with_the_same_names_are_measured_again(
    manifest, tmp_path, measured_again
):
    for digest in ("one", "one", "two"):
        shards = {"shards": [{"index_sha256": digest}]}
        (tmp_path / "shards.json").write_text(json.dumps(shards))
        measure(2048, manifest, tmp_path)
    assert measured_again == [2048, 2048]


@pytest.mark.parametrize("is_list", [True, False])
def test_what_does_not_say_which_clips_it_is_of_is_measured_again(
    manifest, tmp_path, measured_again, is_list
):
    expected = measure(2048, manifest, tmp_path)
    (record,) = read(tmp_path)
    del record["clips"]
    before = {**record, "mean": 1.0}
    path = tmp_path / "mel_statistics.json"
    path.write_text(json.dumps([before] if is_list else before))
    assert measure(2048, manifest, tmp_path) == expected
    assert measure(2048, manifest, tmp_path) == expected
    assert measured_again == [2048, 2048]


def test_runs_at_the_same_time_lose_nothing(manifest, tmp_path, monkeypatch):
    measured, statistics = [], module._statistics

    def slow(features, *others):
        result = statistics(features, *others)
        time.sleep(0.2)  # time for others to find nothing, too
        measured.append(features.n_fft)
        return result

    monkeypatch.setattr(module, "_statistics", slow)
    with ThreadPoolExecutor(3) as runs:
        sizes = (2048, 512, 2048)
        found = list(runs.map(lambda n_fft: measure(n_fft, manifest, tmp_path), sizes))
    assert found[0] == found[2] != found[1]
    assert sorted(entry["settings"]["n_fft"] for entry in read(tmp_path)) == [512, 2048]
    assert sorted(measured) == [512, 2048]  # one waited for the other


def test_a_folder_that_is_read_only_is_enough_to_read(manifest, tmp_path, monkeypatch):
    expected = measure(2048, manifest, tmp_path)

    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(module, "locked", refuse)
    assert measure(2048, manifest, tmp_path) == expected


def views(*sizes):
    return MultiViewTarget(
        [
            Target(
                StackedFrames(LogMel(n_fft=n_fft)), RandomProjection(512, 1, 4, seed=i)
            )
            for i, n_fft in enumerate(sizes)
        ]
    )


def test_normalise_measures_each_of_several_settings(manifest, tmp_path):
    target = views(2048, 512)
    normalise(target, Manifests(tmp_path, manifest, {}, {}), None)
    found = [view.features.features for view in target.views]
    for log_mel in found:
        mean, std = measure(log_mel.n_fft, manifest, tmp_path)
        assert (float(log_mel.mean), float(log_mel.std)) == pytest.approx((mean, std))
    assert found[0].mean != found[1].mean


def test_given_values_are_refused_for_several_settings():
    manifests = Manifests(None, {}, {}, {})
    same = nn.ModuleList([views(512, 512), LogMel(n_fft=512)])
    normalise(same, manifests, [1.0, 2.0])
    assert {float(p.std) for p in same.modules() if isinstance(p, LogMel)} == {2.0}
    with pytest.raises(ValueError, match=r"is \[1.0, 2.0\].*2048.*512.*Set.* to null"):
        normalise(views(2048, 512), manifests, [1.0, 2.0])


@pytest.mark.parametrize("given", ["data", [], [1.0], [1.0, 0.0], [1.0, "2"], 3.0])
def test_values_that_are_no_statistics_are_refused(given):
    with pytest.raises(ValueError, match=r"must be \[mean, std\] in dB.* or null"):
        normalise(LogMel(n_fft=512), Manifests(None, {}, {}, {}), given)


def test_names_that_are_not_utf8(manifest, tmp_path):
    named = {f"caf\udce9 {name}": entry for name, entry in manifest.items()}
    normalise(LogMel(n_fft=512), Manifests(tmp_path, named, {}, {}), None)
    assert (tmp_path / "mel_statistics.json").is_file()
