"""Labels that are stored and labels that are computed are the same."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.audio import AudioError
from muq_plugins.data.clips import ClipDataset, collate_clips
from muq_plugins.data.labels import (
    ComputedLabels,
    ComputedTarget,
    LabelSet,
    LabelWindows,
    StoredLabels,
)
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.windows import track_samples
from muq_plugins.data.preparation import Manifests
from muq_plugins.errors import UserError
from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames, Target, TeacherFeatures
from tests.unit.data.labels.conftest import TRACKS
from tests.unit.tiny_encoders import TINY, tiny_encoder

FRAME = 960


@pytest.fixture
def targets(target, manifest, tmp_path):
    """Stored and computed, as an experiment file asks for them."""
    manifests = Manifests(tmp_path, manifest, manifest, manifest)
    stored = StoredLabels(tmp_path / "labels", 0.8, 0.2, shard_minutes=2.5 / 60)
    return [
        source.target_for(target, manifests)
        for source in (stored, ComputedLabels(0.8, 0.2))
    ]


def test_every_clip_crop_and_padding(targets, manifest):
    stored, computed = targets
    seen = 0
    for clip_seconds in (0.44, 0.8, 1.5, 5.0):
        dataset = ClipDataset(manifest, clip_seconds, seed=3)
        clips = [dataset[(0, visit, i)] for visit in range(4) for i in range(5)]
        for begin in (0, 7, 14):  # in batches of different company
            batch = collate_clips(clips[begin : begin + 6])
            codes = stored(batch.wavs, batch.wav_lens, batch.crops)
            expected = computed(batch.wavs, batch.wav_lens, batch.crops)
            assert torch.equal(codes, expected)
            for row, wav_len in zip(codes, batch.wav_lens, strict=True):
                frames = int((row[:, 0] >= 0).sum())
                length = round(float(wav_len) * batch.wavs.shape[1])
                assert length // FRAME <= frames <= -(-length // FRAME)
                assert (row[frames:] == -1).all()
                seen += frames
    assert seen > 1000


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_kind_of_encoder_can_be_the_teacher(name, manifest, tmp_path):
    encoder = tiny_encoder(name)
    manifest = {name: entry for name, entry in manifest.items() if name != "track4"}
    features = TeacherFeatures(encoder, 1, name)
    torch.manual_seed(0)
    target = Target(features, ResidualVQ(features.output_size, 4, 256))
    manifests = Manifests(tmp_path, manifest, manifest, manifest)
    stored, computed = (
        source.target_for(target, manifests)
        for source in (
            StoredLabels(tmp_path / "labels", 0.8, 0.2, shard_minutes=1),
            ComputedLabels(0.8, 0.2),
        )
    )
    whole = computed.codes_of("track1", 0, 1000)
    assert len(whole) == pytest.approx(2.0 * encoder.frame_rate, abs=1)
    assert torch.equal(stored.codes_of("track1", 0, 1000), whole)
    assert torch.equal(stored.codes_of("track1", 7, 20), whole[7:27])
    assert len(whole.unique()) > 2


def test_the_label_of_a_frame_does_not_depend_on_the_crop(targets):
    for target in targets:
        whole = target.codes_of("track0", 0, 1000)
        assert len(whole) == round(3.3 * 25 - 0.5)
        for first, count in ((0, 1), (19, 2), (20, 20), (33, 17), (81, 9)):
            part = target.codes_of("track0", first, count)
            assert torch.equal(part, whole[first : first + count])
        assert len(target.codes_of("track0", 82, 5)) == 0
        assert len(whole.unique()) > 4


def test_a_label_hears_its_window_and_nothing_else(target, manifest, windows):
    """Frames of other windows, further away than the context, do not matter."""
    longer = LabelWindows(target, 20, 1000)
    own, other = (
        ComputedTarget(cut, manifest).codes_of("track0", 0, 20)
        for cut in (windows, longer)
    )
    assert not torch.equal(own, other)


def test_local_features_have_the_labels_of_the_whole_track(manifest):
    torch.manual_seed(0)
    target = Target(StackedFrames(LogMel()), ResidualVQ(512, 4, 32))
    windows = LabelWindows(target, 20, 5)
    computed = ComputedTarget(windows, manifest)
    for clip_id, entry in manifest.items():
        samples = track_samples(entry, 24000)
        if samples < 2048:
            continue
        wav, _ = windows.read(entry["wav"], samples, (0, samples // FRAME))
        whole = target(wav[None])[0]
        assert torch.equal(computed.codes_of(clip_id, 0, len(whole)), whole)


def test_a_crop_between_two_frames_is_refused(targets):
    with pytest.raises(UserError, match="begins at 0.01 s, between two frames"):
        targets[0](torch.zeros(1, 24000), None, [("track0", 0.01)])


def test_latents_are_stored_beside_the_codes(
    extract, target, windows, manifest, tmp_path
):
    extract(tmp_path / "labels", latents=True)
    latents = np.fromfile(tmp_path / "labels" / "shard-00000.latents", "<f2")
    latents = torch.from_numpy(latents.reshape(-1, 16).astype("f4"))
    codes = np.fromfile(tmp_path / "labels" / "shard-00000.codes", "<u2").reshape(-1, 2)
    assert len(latents) == len(codes) == round(3.3 * 25 - 0.5)
    same = target.quantizer.encode(latents).numpy() == codes
    assert same.mean() > 0.95  # half precision moves a latent over a border sometimes


def test_storage_is_compact(extract, manifest, tmp_path):
    extract(tmp_path / "labels")
    total = sum(path.stat().st_size for path in tmp_path.glob("labels/*.codes"))
    frames = sum(round(seconds * 24000) // FRAME for seconds, _ in TRACKS)
    assert total == frames * 2 * 2


def test_only_what_is_asked_for_is_in_memory(
    extract, target, windows, manifest, tmp_path
):
    extract(tmp_path / "labels")
    description = describe(windows, manifest, 2.5 / 60, latents=False)
    labels = LabelSet(tmp_path / "labels", manifest, description)
    assert labels.codes("track0", 3, 2).shape == (2, 2)
    opened = [os.path.realpath(path) for path in Path("/proc/self/fd").glob("*")]
    assert not [path for path in opened if path.endswith(".codes")]


def test_the_order_of_a_manifest_changes_nothing(extract, windows, manifest, tmp_path):
    """It follows from what is tested on."""
    extract(tmp_path / "labels")
    other = dict(reversed(manifest.items()))
    description = describe(windows, other, 2.5 / 60, latents=False)
    first, second = (
        LabelSet(tmp_path / "labels", m, description) for m in (manifest, other)
    )
    for clip in manifest:
        found = [labels.codes(clip, 0, 100) for labels in (first, second)]
        np.testing.assert_array_equal(*found)


def test_files_of_odd_rates_have_labels(windows, tmp_path):
    """The ratio of the rates is rounded, so that they are a little shorter."""
    path, rate, seconds = tmp_path / "odd.wav", 11024, 200.0
    wav = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, wav, rate)
    samples = round(seconds * windows.sample_rate)
    span = windows.spans(samples)[-1]
    assert len(windows.labels(str(path), samples, span)[0]) == span[1] - span[0]
    soundfile.write(path, wav[: -rate // 2], rate)
    with pytest.raises(AudioError, match="truncated"):
        windows.labels(str(path), samples, span)
