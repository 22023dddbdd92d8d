"""Recordings as clips of one length."""

import pytest
import torch

from muq_plugins.inference.clips import wrapped_clips


def whole(length, size):
    """What must come out, from the definition: the recording over and over."""
    count = -(-length // size)
    samples = torch.arange(float(length))
    return samples.repeat(count * size)[: count * size].view(count, size)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 10, 11, 16, 17, 23])
@pytest.mark.parametrize("block", [1, 3, 8, 100])
def test_every_sample_once_and_then_the_start(length, block):
    blocks = torch.arange(float(length)).split(block)
    clips = torch.stack(list(wrapped_clips(blocks, 8)))
    assert torch.equal(clips, whole(length, 8))


def test_nothing_gives_no_clip():
    assert list(wrapped_clips([], 8)) == []
    assert list(wrapped_clips([torch.zeros(0)], 8)) == []


def test_blocks_are_not_read_ahead():
    given = 0

    def blocks():
        nonlocal given
        for _ in range(100):
            given += 6
            yield torch.zeros(6)

    clips = wrapped_clips(blocks(), 8)
    for number in range(1, 76):
        next(clips)
        assert given < 8 * number + 6


def test_stereo_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 5\): mix down"):
        list(wrapped_clips([torch.zeros(2, 5)], 8))
