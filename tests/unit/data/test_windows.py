"""Windows that are spread over a recording, and those of a stream."""

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.windows import (
    spans,
    spread,
    spread_on_grid,
    spread_windows,
    stream,
)


@pytest.mark.parametrize(
    ("length", "most", "starts"),
    [
        (30.0, 3, [0.0, 10.0, 20.0]),
        (29.0, 3, [0.0, 19.0]),  # as many as fit side by side
        (95.0, 3, [0.0, 42.5, 85.0]),
        (30.0, 1, [10.0]),
        (7.0, 3, [0.0]),
    ],
)
def test_windows_reach_from_one_end_to_the_other(length, most, starts):
    assert spread(length, 10.0, most) == starts


def test_windows_on_a_grid_share_no_sample():
    rows = spread_on_grid([100, 5], 9, 3, grid=5)
    assert rows.tolist() == [[0, 0, 10], [0, 1, 50], [0, 2, 80], [1, 0, 0]]
    assert spread_on_grid([100], 9, 99, grid=5)[:, 2].tolist() == list(range(0, 91, 10))


def test_a_click_is_followed_by_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(80, 0.5), 8000)
    (wav,) = spread_windows(tmp_path / "a.wav", 0.01, 10.0, 3, 8000)
    assert len(wav) == 1600 and wav[:80].min() > 0.4 and not wav[80:].any()


def clips_of(blocks, size):
    return [cut.audio for cut in stream(blocks, 1, size, size, last="wrapped")]


def whole(length, size):
    """What must come out, from the definition: the recording over and over."""
    count = -(-length // size)
    samples = torch.arange(float(length))
    return samples.repeat(count * size)[: count * size].view(count, size)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 10, 11, 16, 17, 23])
@pytest.mark.parametrize("block", [1, 3, 8, 100])
def test_every_sample_once_and_then_the_start(length, block):
    blocks = torch.arange(float(length)).split(block)
    clips = torch.stack(clips_of(blocks, 8))
    assert torch.equal(clips, whole(length, 8))


def test_nothing_gives_no_clip():
    assert clips_of([], 8) == []
    assert clips_of([torch.zeros(0)], 8) == []


def test_blocks_are_not_read_ahead():
    given = 0

    def blocks():
        nonlocal given
        for _ in range(100):
            given += 6
            yield torch.zeros(6)

    clips = stream(blocks(), 1, 8, 8, last="wrapped")
    for number in range(1, 76):
        next(clips)
        assert given <= 8 * number + 6


def test_stereo_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 5\): mix down"):
        clips_of([torch.zeros(2, 5)], 8)


@pytest.mark.parametrize("frames", [0, 1, 19, 20, 21, 39, 40, 41, 100])
def test_every_frame_is_in_one_span(frames):
    found = spans(frames, 20)
    covered = [frame for first, last in found for frame in range(first, last)]
    assert covered == list(range(frames))
    assert all(20 <= last - first < 40 for first, last in found if frames >= 20)
