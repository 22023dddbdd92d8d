"""Tests of crops, fixed windows and substitutes."""

import itertools

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import BatchSampler

from muq_plugins.data.audio import read_audio
from muq_plugins.data.clips import (
    ClipDataset,
    ClipSampler,
    clip_key,
    collate_clips,
    make_loader,
)


@pytest.fixture
def manifest(tmp_path):
    """Six files of noise, 1 to 6 seconds, at two rates."""
    rng = np.random.default_rng(0)
    entries = {}
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        rate, seconds = (24000, 44100)[number % 2], number + 1
        soundfile.write(path, rng.uniform(-0.5, 0.5, rate * seconds), rate)
        entries[f"clip{number}"] = {"wav": str(path), "duration": float(seconds)}
    return entries


def test_crop_is_where_it_says(manifest):
    dataset = ClipDataset(manifest, clip_seconds=1.0)
    assert len(dataset) == 6
    for visit in range(5):
        clip = dataset[(0, visit, 4)]
        assert clip.id == "clip4" and clip.failures == []
        assert clip.key == clip_key(1234, visit, "clip4")
        assert round(clip.start * 24000) % 960 == 0 and 0 <= clip.start <= 4
        expected = read_audio(manifest["clip4"]["wav"], clip.start, 1.0)
        assert torch.equal(clip.wav, expected)


def test_crops_differ_by_visit_and_cover_the_file(manifest):
    dataset = ClipDataset(manifest, clip_seconds=2.0)
    starts = {dataset[(0, visit, 5)].start for visit in range(60)}
    assert len(starts) > 30
    assert min(starts) < 0.4 and max(starts) > 3.6
    assert dataset[(0, 3, 5)].start == dataset[(9, 3, 5)].start
    other = ClipDataset(manifest, clip_seconds=2.0, seed=5)
    assert [dataset[(0, v, 5)].start for v in range(5)] != [
        other[(0, v, 5)].start for v in range(5)
    ]


def test_short_file_is_taken_whole(manifest):
    clip = ClipDataset(manifest, clip_seconds=3.0)[(0, 7, 1)]
    assert clip.start == 0.0 and clip.wav.shape == (2 * 24000,)


def test_grid(manifest):
    dataset = ClipDataset(manifest, clip_seconds=1.0, grid=24000)
    starts = {dataset[(0, visit, 5)].start for visit in range(40)}
    assert starts == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


def test_crops_per_clip(manifest):
    assert ClipDataset(manifest, clip_seconds=2.0).crops_per_clip() == [
        1,
        1,
        1,
        2,
        2,
        3,
    ]


def test_fixed_windows_do_not_overlap(manifest):
    dataset = ClipDataset(manifest, 1.0, fixed=True, windows_per_clip=10)
    assert len(dataset) == 1 + 2 + 3 + 4 + 5 + 6
    clips = [dataset[i] for i in range(len(dataset))]
    assert [clip.start for clip in clips if clip.id == "clip2"] == [0.0, 1.0, 2.0]
    assert len({clip.key for clip in clips}) == len(clips)
    assert all(clip.wav.shape == (24000,) for clip in clips)


@pytest.mark.parametrize(
    "windows, starts", [(1, [3.0]), (2, [1.0, 4.0]), (3, [1.0, 3.0, 5.0])]
)
def test_fixed_windows_are_spread(manifest, windows, starts):
    manifest = {"clip5": manifest["clip5"]}
    dataset = ClipDataset(manifest, 1.0, fixed=True, windows_per_clip=windows)
    assert [dataset[i].start for i in range(len(dataset))] == starts


def test_fixed_windows_begin_on_the_grid(manifest):
    manifest = {"clip5": manifest["clip5"]}
    dataset = ClipDataset(manifest, 1.01, fixed=True, windows_per_clip=9)
    starts = [dataset[i].start for i in range(len(dataset))]
    assert starts == pytest.approx([0.0, 1.04, 2.08, 3.12, 4.16])


def test_deleted_file_is_replaced_and_reported(manifest, tmp_path):
    dataset = ClipDataset(manifest, clip_seconds=1.0)
    before = dataset[(0, 0, 3)]
    (tmp_path / "3.wav").unlink()
    clip = dataset[(0, 0, 3)]
    assert clip.failures == [(str(tmp_path / "3.wav"), "missing")]
    assert clip.id != "clip3" and clip.wav.shape == (24000,)
    # The substitute is no second hearing of the clip it is taken from.
    index = dataset.ids.index(clip.id)
    assert clip.key not in (before.key, dataset[(0, 0, index)].key)
    again = dataset[(0, 0, 3)]
    assert (again.id, again.key, again.start) == (clip.id, clip.key, clip.start)


def test_substitutes_differ(manifest, tmp_path):
    dataset = ClipDataset(manifest, clip_seconds=1.0)
    (tmp_path / "3.wav").unlink()
    assert len({dataset[(0, visit, 3)].id for visit in range(40)}) == 5


def test_everything_is_gone(manifest, tmp_path):
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    dataset = ClipDataset(manifest, clip_seconds=1.0, max_attempts=3)
    message = r"(?s)3 files in a row.*2.wav: missing.*data folder is still there"
    with pytest.raises(RuntimeError, match=message) as error:
        dataset[(0, 0, 2)]
    assert str(error.value).count(": missing") == 3


def test_failed_window_is_left_out_and_reported(manifest, tmp_path):
    (tmp_path / "3.wav").unlink()
    dataset = ClipDataset(manifest, clip_seconds=1.0, fixed=True)
    clip = dataset[3]
    assert clip.id == "clip3" and clip.wav is None
    batch = collate_clips([dataset[i] for i in range(6)])
    assert batch.ids == ["clip0", "clip1", "clip2", "clip4", "clip5"]
    assert batch.failures == [(str(tmp_path / "3.wav"), "missing")]


def test_workers_do_not_change_the_batches(manifest, tmp_path):
    (tmp_path / "3.wav").unlink()
    dataset = ClipDataset(manifest, clip_seconds=2.0)
    sampler = ClipSampler(6, 4, seed=1, weights=dataset.crops_per_clip())
    alone = list(itertools.islice(make_loader(dataset, sampler), 6))
    loader = make_loader(dataset, sampler, num_workers=2)
    batches = list(itertools.islice(loader, 6))
    for one, other in zip(alone, batches, strict=True):
        assert one.ids == other.ids and one.failures == other.failures
        assert torch.equal(one.wavs, other.wavs)
        assert torch.equal(one.wav_lens, other.wav_lens)
        assert torch.equal(one.clip_keys, other.clip_keys)
    # The living workers go on from another position, as after a resume.
    sampler.set_position(4)
    resumed = next(iter(loader))
    assert torch.equal(resumed.clip_keys, alone[4].clip_keys)


def test_validation_loader(manifest):
    dataset = ClipDataset(manifest, clip_seconds=1.0, fixed=True)
    ranks = [
        [
            clip_id
            for batch in make_loader(dataset, BatchSampler(range(r, 6, 2), 2, False))
            for clip_id in batch.ids
        ]
        for r in range(2)
    ]
    assert ranks == [["clip0", "clip2", "clip4"], ["clip1", "clip3", "clip5"]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clip_seconds": 0.0}, "clip_seconds must be > 0, got 0.0"),
        ({"max_attempts": 0}, "max_attempts must be > 0"),
        ({"manifest": {}}, "holds no clip"),
    ],
)
def test_bad_arguments(manifest, change, message):
    settings = {"manifest": manifest, "clip_seconds": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        ClipDataset(**settings)
