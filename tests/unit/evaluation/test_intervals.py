"""Intervals draw whole groups, always the same ones for a seed.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import math

import numpy as np

from muq_plugins.evaluation.intervals import draw_groups, estimate, group_weights
from muq_plugins.evaluation.probe_result import draw_pieces


def test_rows_of_a_group_are_drawn_together():
    groups = ["b", "a", "b", "c"]
    weights = group_weights(groups, samples=200)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.unique(weights[:, 1]).tolist() == [0, 1, 2, 3]
    assert (group_weights(groups, samples=200) == weights).all()
    assert (group_weights(groups, samples=200, seed=1) != weights).any()


def test_published_intervals_keep_their_draws():
    assert draw_pieces(5)[:2].tolist() == [[1, 0, 0, 0, 4], [2, 2, 0, 1, 0]]
    assert draw_pieces(5)[-1].tolist() == [0, 1, 2, 2, 0]
    weights = group_weights(list("aabcc"), 1000, seed=3)
    assert weights[[0, -1]].tolist() == [[0, 0, 1, 2, 2], [2, 2, 1, 0, 0]]
    assert (draw_groups(5, 2000) == draw_pieces(5)).all()
    assert (draw_groups(5, 1000) == draw_pieces(5)[:1000]).all()


def test_draws_without_a_value_are_left_out():
    draws = np.array([math.nan, *np.linspace(0, 1, 1001)])
    assert estimate(0.4, draws) == (0.4, 0.025, 0.975)
    assert math.isnan(estimate(0.4, np.array([math.nan])).low)
