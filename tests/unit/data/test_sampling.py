"""Tests of keys and of the order of the clips."""

import collections
import itertools

import pytest

from muq_plugins.data.clips import ClipSampler, clip_key, keyed_integer


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_key_is_the_same_everywhere():
    # Written down once: a change of these numbers changes every experiment.
    assert clip_key(1234, 0, "song") == 3799884010678655718
    assert clip_key(1234, 0, "caf\udce9") == clip_key(1234, 0, "caf\udce9")


def test_key_depends_on_each_part_and_fits_int64():
    keys = {
        clip_key(seed, epoch, clip_id)
        for seed in range(10)
        for epoch in range(10)
        for clip_id in ("a", "b", "1", "11")
    }
    assert len(keys) == 400
    assert all(0 <= key < 2**62 for key in keys)


def test_key_parts_do_not_run_into_each_other():
    assert clip_key(1, 23, "a") != clip_key(12, 3, "a")
    assert clip_key(1, 2, "3a") != clip_key(1, 23, "a")


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
    assert sorted((index, visit) for _, visit, index in first) == [
        (0, 0),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    assert sorted((index, visit) for _, visit, index in second) == [
        (0, 1),
        (1, 3),
        (1, 4),
        (1, 5),
        (2, 2),
        (2, 3),
    ]


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
    ],
)
def test_bad_arguments(change, message):
    settings = {"num_clips": 3, "batch_size": 2, "seed": 1, **change}
    with pytest.raises(ValueError, match=message):
        ClipSampler(**settings)


def test_negative_position():
    with pytest.raises(ValueError, match="got -1"):
        ClipSampler(3, 2, seed=1).set_position(-1)
