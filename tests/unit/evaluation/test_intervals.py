"""Intervals draw whole groups, always the same ones, and cover known truths."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from muq_plugins.evaluation.intervals import (
    drawn_groups,
    draws,
    ends,
    half_width,
    holm,
    interval,
    p_value,
    paired,
    recall_draws,
    seeds_for,
    spread_p_value,
    spread_ratio,
)


def test_rows_of_a_group_are_drawn_together():
    groups = ["b", "a", "b", "c"]
    weights = draws(groups, samples=200)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.unique(weights[:, 1]).tolist() == [0, 1, 2, 3]
    assert (draws(groups, samples=200) == weights).all()


def test_published_intervals_keep_their_draws():
    drawn = drawn_groups(5, 2000)
    assert drawn[:2].tolist() == [[1, 0, 0, 0, 4], [2, 2, 0, 1, 0]]
    assert drawn[-1].tolist() == [0, 1, 2, 2, 0]
    weights = draws(list("aabcc"))
    assert (weights == drawn_groups(3, 1000)[:, [0, 0, 1, 2, 2]]).all()
    assert (drawn_groups(5, 1000) == drawn[:1000]).all()


def test_draws_without_a_value_are_left_out():
    sample = np.array([math.nan, *np.linspace(0, 1, 1001)])
    assert interval(0.4, sample) == (0.4, 0.025, 0.975)
    assert math.isnan(interval(0.4, np.array([math.nan])).low)


def test_an_interval_wider_than_the_scale_is_no_statement():
    assert ends(-0.1, 0.9) == "95% interval -10.0 to +90.0"
    assert "says nothing" in ends(-1.451, 1.726) and "145" not in ends(-1.451, 1.726)


def test_recall_draws_are_those_of_the_drawn_clips():
    """Drawing pieces by weights equals copying their clips, also without a class."""
    rng = np.random.default_rng(1)
    pieces = np.repeat(np.arange(6), 5) * 3  # numbers need not be without gaps
    classes, hits = rng.integers(0, 3, 30), rng.integers(0, 2, 30)
    classes[3] = 3  # one clip, which about a third of the draws do not have
    drawn = drawn_groups(6, 1000)
    has_class = drawn[:, 0] > 0
    assert 0.5 < has_class.mean() < 0.8
    found = recall_draws(hits, classes, pieces)
    for draw in (0, 7, 999, has_class.argmax(), has_class.argmin()):
        clips = np.repeat(np.arange(30), drawn[draw].astype(int)[pieces // 3])
        truth = classes[clips]
        expected = balanced_accuracy_score(truth, np.where(hits[clips], truth, -1))
        # A predicted class that no clip has is no class of the mean.
        assert found[draw] == pytest.approx(expected, abs=1e-12)


def test_pairs_over_seeds_have_the_interval_of_a_paired_t_test():
    ours, theirs = np.array([0.5, 0.7, 0.6]), np.array([0.2, 0.5, 0.5])
    found = paired(ours - theirs)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found[1:3] == pytest.approx((expected.low, expected.high))
    assert math.isnan(found.from_groups)


def test_seeds_and_groups_are_at_right_angles():
    sample = np.random.default_rng(0).normal(0.1, 0.05, (2, 1000))
    found = paired(np.array([0.1, 0.2]), sample)
    assert found.from_groups == pytest.approx(1.96 * sample.mean(0).std(ddof=1), 1e-4)
    half = np.hypot(found.from_seeds, found.from_groups)
    assert (found.high - found.low) / 2 == pytest.approx(half)
    one = paired(np.array([0.1]), sample[:1])
    assert math.isnan(one.from_seeds) and math.isnan(one.low) and one.from_groups > 0


def test_p_values_are_those_of_a_paired_t_test_and_of_the_interval():
    ours, theirs = np.array([0.5, 0.7, 0.65]), np.array([0.2, 0.5, 0.5])
    found = paired(ours - theirs)
    assert p_value(found) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    sample = np.random.default_rng(0).normal(0.1, 0.05, (3, 1000))
    half = paired(np.array([0.1, 0.2, 0.15]), sample).half
    # Where the interval ends at 0.
    at_its_end = np.array([half - 0.05, half + 0.05, half])
    assert p_value(paired(at_its_end, sample)) == pytest.approx(0.05)
    assert p_value(paired(np.array([-0.1, 0.1]))) == 1
    assert math.isnan(p_value(paired(np.array([0.1]), sample[:1])))


def test_as_many_seeds_as_make_the_interval_narrow():
    rng = np.random.default_rng(0)
    sample = rng.normal(0, 0.005, (1, 1000)).repeat(5, axis=0)
    five = rng.normal(0, 0.02, 5)
    found = paired(five, sample)
    seeds = seeds_for(found, 0.015)
    assert seeds_for(found, found.half) == 5 < seeds
    spread = five.std(ddof=1)

    def half(count):
        from_seeds = stats.t.ppf(0.975, count - 1) * spread / math.sqrt(count)
        return math.hypot(from_seeds, found.from_groups)

    assert half(seeds) <= 0.015 < half(seeds - 1)
    assert seeds_for(found, 0.9 * found.from_groups) is None


def test_holm_corrects_for_the_number_of_questions():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02]) == [0.02]
    assert holm([0.02, math.nan]) == [0.04, 1.0]
    # Without any difference, one of twenty studies decides something.
    rng = np.random.default_rng(0)
    lowest = [min(holm(rng.uniform(size=4))) for _ in range(2000)]
    assert np.mean(np.array(lowest) < 0.05) == pytest.approx(0.05, abs=0.01)


def test_spreads_have_the_p_value_of_their_interval():
    ours, theirs = np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.2, 1.1, 0.9])
    found = spread_ratio(ours, theirs)
    assert spread_p_value(found.value / found.low, 3, 4) == pytest.approx(0.05)
    assert spread_p_value(found.value, 3, 4) < 0.05 < spread_p_value(1.1, 3, 4)


def test_student_and_f_cover_the_truth():
    assert half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.484, abs=1e-3)
    rng = np.random.default_rng(0)
    ratios = [
        spread_ratio(rng.normal(0, 2, 3), rng.normal(0, 3, 5)) for _ in range(1000)
    ]
    inside = np.mean([ratio.low <= 2 / 3 <= ratio.high for ratio in ratios])
    assert 0.93 <= inside <= 0.97
    assert spread_ratio(np.ones(3), np.arange(3)) is None
