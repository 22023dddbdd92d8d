"""Windows that are spread over a recording."""

import numpy as np
import pytest
import soundfile

from muq_plugins.data.windows import spread, spread_on_grid, spread_windows


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
    assert spread_on_grid(100, 9, 3, grid=5) == [10, 50, 80]
    assert spread_on_grid(100, 9, 99, grid=5) == list(range(0, 91, 10))
    assert spread_on_grid(5, 9, 3, grid=5) == [0]


def test_a_click_is_followed_by_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(80, 0.5), 8000)
    (wav,) = spread_windows(tmp_path / "a.wav", 0.01, 10.0, 3, 8000)
    assert len(wav) == 1600 and wav[:80].min() > 0.4 and not wav[80:].any()
