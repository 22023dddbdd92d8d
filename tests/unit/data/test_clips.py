"""Clips: crops, the order they are heard in, and batches."""

import collections
import itertools

import pytest
import torch

from muq_plugins.data.audio import read_audio
from muq_plugins.data.clips import (
    Clip,
    ClipDataset,
    ClipSampler,
    clip_key,
    collate_clips,
    evaluation_loader,
    keyed_integer,
    make_loader,
)
from muq_plugins.errors import UserError
from tests.unit.data.recordings import noise_manifest


@pytest.fixture
def manifest(tmp_path):
    """Six files of noise, 1 to 6 seconds, at two rates."""
    return noise_manifest(tmp_path, range(1, 7), rates=(24000, 44100))


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
    weights = ClipDataset(manifest, clip_seconds=2.0).crops_per_clip()
    assert weights.tolist() == [1, 1, 1, 2, 2, 3]


def test_fixed_windows_do_not_overlap(manifest):
    dataset = ClipDataset(manifest, 1.0, fixed=True, windows_per_clip=10)
    assert len(dataset) == 1 + 2 + 3 + 4 + 5 + 6
    clips = [dataset[i] for i in range(len(dataset))]
    assert [clip.start for clip in clips if clip.id == "clip2"] == [0.0, 1.0, 2.0]
    assert len({clip.key for clip in clips}) == len(clips)
    assert all(clip.wav.shape == (24000,) for clip in clips)


@pytest.mark.parametrize(
    "seconds, windows, starts",
    [
        (1.0, 1, [3.0]),
        (1.0, 2, [1.0, 4.0]),
        (1.0, 3, [1.0, 3.0, 5.0]),
        (1.01, 9, [0.0, 1.04, 2.08, 3.12, 4.16]),  # on the grid
    ],
)
def test_fixed_windows_are_spread(manifest, seconds, windows, starts):
    manifest = {"clip5": manifest["clip5"]}
    dataset = ClipDataset(manifest, seconds, fixed=True, windows_per_clip=windows)
    assert [dataset[i].start for i in range(len(dataset))] == pytest.approx(starts)


def test_fewer_windows_are_of_clips_from_all_over(manifest):
    batches = evaluation_loader(manifest, 1.0, 2, windows_per_clip=1, max_windows=3)
    assert [batch.ids for batch in batches] == [["clip0", "clip2"], ["clip4"]]


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
    with pytest.raises(UserError, match=message) as error:
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


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_key_is_the_same_everywhere():
    # Written down once: a change of these numbers changes every experiment.
    assert clip_key(1234, 0, "song") == 3799884010678655718
    assert clip_key(1234, 0, "caf\udce9") == 1643480221169522835


def test_key_depends_on_each_part_and_fits_int64():
    parts = itertools.product(range(10), range(30), ("a", "b", "1", "3a", "11"))
    keys = [clip_key(*part) for part in parts]
    assert len(set(keys)) == len(keys), "parts run into each other"
    assert all(0 <= key < 2**62 for key in keys)


def test_keyed_integer_is_uniform():
    counts = collections.Counter(keyed_integer(10, "test", i) for i in range(10000))
    assert set(counts) == set(range(10))
    assert all(850 < count < 1150 for count in counts.values())


def test_an_epoch_visits_every_clip_once():
    stream = sum(take(ClipSampler(10, 5, seed=1), 6), [])
    for epoch in range(3):
        visits = stream[epoch * 10 : (epoch + 1) * 10]
        assert all(visit[:2] == (epoch, epoch) for visit in visits)
        assert sorted(index for _, _, index in visits) == list(range(10))
    orders = [[visit[2] for visit in stream[i : i + 10]] for i in (0, 10, 20)]
    assert orders[0] != orders[1] != orders[2]


def test_batches_straddle_epochs_and_drop_nothing():
    batches = take(ClipSampler(7, 4, seed=1), 7)
    assert all(len(batch) == 4 for batch in batches)
    assert [visit[0] for visit in batches[1]] == [0, 0, 0, 1]
    counts = collections.Counter(index for _, _, index in sum(batches, []))
    assert set(counts.values()) == {4}


def test_a_batch_larger_than_the_corpus():
    (batch,) = take(ClipSampler(2, 5, seed=1), 1)
    assert [visit[0] for visit in batch] == [0, 0, 1, 1, 2]


def test_two_ranks_hear_what_one_rank_accumulates():
    one = take(ClipSampler(11, 3, seed=1), 20)
    ranks = [
        take(ClipSampler(11, 3, seed=1, rank=rank, world_size=2), 10)
        for rank in range(2)
    ]
    for update in range(10):
        assert one[2 * update : 2 * update + 2] == [rank[update] for rank in ranks]


def test_jump_equals_iteration():
    settings = {"seed": 1, "rank": 1, "world_size": 3, "weights": [1, 5, 2, 1, 1]}
    iterated = take(ClipSampler(5, 4, **settings), 30)
    sampler = ClipSampler(5, 4, **settings)
    for position in (0, 1, 7, 23):
        sampler.set_position(position)
        assert take(sampler, 7) == iterated[position : position + 7]


def test_iteration_does_not_move_the_position():
    sampler = ClipSampler(5, 2, seed=1)
    sampler.set_position(3)
    assert take(sampler, 4) == take(sampler, 4)
    assert sampler.position == 3


def test_weights_repeat_clips_with_a_visit_each():
    sampler = ClipSampler(3, 6, seed=1, weights=[1, 3, 2])
    assert sampler.epoch_size == 6
    first, second = take(sampler, 2)
    for epoch, visits in enumerate((first, second)):
        expected = [
            (index, epoch * weight + repeat)
            for index, weight in enumerate((1, 3, 2))
            for repeat in range(weight)
        ]
        assert sorted((index, visit) for _, visit, index in visits) == expected


def test_seed_changes_the_order():
    assert take(ClipSampler(50, 50, seed=1), 1) != take(ClipSampler(50, 50, seed=2), 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_clips": 0}, "at least one clip.*num_clips=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"rank": 2, "world_size": 2}, "rank 2 does not exist in a world of 2"),
        ({"weights": [1, 1]}, "weights must be 3 integers"),
        ({"weights": [1, 0, 1]}, "minimum 0"),
        ({"weights": [1.0, 1.5, 1.0]}, "float64"),
        ({"position": -1}, "got -1"),
    ],
)
def test_bad_arguments_of_a_sampler(change, message):
    settings = {"num_clips": 3, "batch_size": 2, "seed": 1, **change}
    position = settings.pop("position", 0)
    with pytest.raises(ValueError, match=message):
        ClipSampler(**settings).set_position(position)


def clip(name, samples, key=0, failures=()):
    wav = None if samples is None else torch.full((samples,), 0.5)
    return Clip(name, key, wav, 0.0, 24000, list(failures))


def test_padding_and_lengths():
    batch = collate_clips([clip("a", 12000, 2**62 - 1), clip("b", 48000, 5)])
    assert len(batch) == 2 and batch.ids == ["a", "b"]
    assert batch.wavs.shape == (2, 48000) and batch.wavs.dtype == torch.float32
    assert batch.wavs[0, 11999] == 0.5
    assert batch.wavs[0, 12000:].abs().max() == 0
    assert batch.wav_lens.tolist() == [0.25, 1.0]
    assert batch.wav_lens.dtype == torch.float32
    assert batch.clip_keys.dtype == torch.int64
    assert batch.clip_keys.tolist() == [2**62 - 1, 5]
    assert batch.audio_seconds == 2.5


def test_lengths_come_back_exactly_in_float32():
    lengths = [719_999, 719_041, 123_457, 720_000]
    batch = collate_clips([clip(str(n), n) for n in lengths])
    assert (batch.wav_lens * 720_000).round().long().tolist() == lengths


def test_clips_without_audio_only_count_as_failures():
    bad = clip("bad", None, failures=[("bad.wav", "truncated")])
    good = clip("good", 240, failures=[("x.wav", "missing")])
    batch = collate_clips([bad, good])
    assert batch.ids == ["good"] and batch.wavs.shape == (1, 240)
    assert batch.failures == [("bad.wav", "truncated"), ("x.wav", "missing")]
    empty = collate_clips([bad])
    assert len(empty) == 0 and empty.wavs.shape == (0, 0)
    assert empty.audio_seconds == 0 and empty.failures == bad.failures


def test_to_device_leaves_lengths_and_keys_where_they_can_be_read():
    batch = collate_clips([clip("a", 240)]).to("meta")
    tensors = (batch.wavs, batch.wav_lens, batch.clip_keys)
    assert [tensor.device.type for tensor in tensors] == ["meta", "cpu", "cpu"]
    assert batch.ids == ["a"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pin_memory():
    batch = collate_clips([clip("a", 240)]).pin_memory()
    assert batch.wavs.is_pinned()
