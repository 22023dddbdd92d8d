"""Retrieval scores by hand, ties over all orders, chance, and intervals over groups."""

import itertools

import numpy as np
import pytest

from muq_plugins.evaluation.intervals import plain
from muq_plugins.evaluation.retrieval import pooled, query_scores, retrieval_scores


def plain_scores(hits):
    """The scores of one order of items, from their definitions."""
    positions = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(positions) + 1) / positions
    return [
        *(float((positions <= k).any()) for k in (1, 5, 10, 100)),
        precision[positions <= 10].sum() / min(len(positions), 10),
        precision.mean(),
        positions[0],
    ]


def test_scores_without_ties_follow_the_definitions():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = rng.choice([30, 300])
        near = rng.normal(size=size)
        relevant = rng.random(size) < rng.choice([0.2, 0.01])
        relevant[rng.integers(size)] = True
        expected = plain_scores(relevant[np.argsort(-near)])
        assert query_scores(near, relevant) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(6,), (2, 4), (1, 3, 2), (4, 1, 1)])
@pytest.mark.parametrize("relevant", [(0,), (1, 4), (0, 2, 5), (3, 4, 5)])
def test_tied_scores_are_the_mean_over_every_order_of_the_ties(sizes, relevant):
    near = -np.repeat(np.arange(len(sizes)), sizes).astype(float)
    answers = np.isin(np.arange(6), relevant)
    orders = [
        order
        for order in itertools.permutations(range(6))
        if (np.diff(near[list(order)]) <= 0).all()
    ]
    expected = np.mean([plain_scores(answers[list(o)]) for o in orders], axis=0)
    assert query_scores(near, answers) == pytest.approx(expected)


def test_a_table_by_hand():
    near = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    scores = retrieval_scores(near, np.eye(3, dtype=bool))
    assert scores.recall_at_1.value == pytest.approx(1 / 3)
    assert scores.recall_at_5.value == 1
    assert scores.median_rank.value == 2
    assert scores.map_at_10.value == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert (scores.queries, scores.items) == (3, 3)


def test_equal_similarities_score_chance_whatever_the_order_of_the_items():
    relevant = np.eye(40, dtype=bool)
    scores = retrieval_scores(np.ones((40, 40)), relevant)
    assert scores.recall_at_5.value == scores.chance["recall_at_5"] == 5 / 40
    assert scores.median_rank.value == scores.chance["median_rank"] == 20.5
    assert scores.map_at_10.value == pytest.approx(scores.chance["map_at_10"])
    near = np.random.default_rng(0).normal(size=(40, 40))
    found = [
        retrieval_scores(near[np.random.default_rng(i).permutation(40)], relevant)
        for i in range(60)
    ]
    mean = np.mean([f.mean_average_precision.value for f in found])
    assert mean == pytest.approx(scores.chance["mean_average_precision"], abs=0.01)


def test_queries_without_an_answer_are_not_scored():
    relevant = np.array([[1, 0], [0, 0], [1, 1]], dtype=bool)
    scores = retrieval_scores(np.array([[1.0, 0.5]] * 3), relevant)
    assert scores.mean_average_precision.value == 1
    assert scores.chance["mean_average_precision"] == 0.875  # 1, and 1 or 1/2
    assert (scores.without_answer, scores.queries) == ([1], 2)


def test_the_interval_is_over_groups():
    rng = np.random.default_rng(0)
    good = np.repeat(rng.random(20) < 0.5, 10)
    near = np.where(good[:, None], np.eye(200), 1 - np.eye(200))
    relevant = np.eye(200, dtype=bool)
    alone = retrieval_scores(near, relevant).recall_at_1
    grouped = retrieval_scores(near, relevant, np.repeat(np.arange(20), 10)).recall_at_1
    assert grouped.value == alone.value == good.mean()
    # Ten clips a piece that all succeed or fail: sqrt(10) times as wide.
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert 2.4 < ratio < 4
    again = retrieval_scores(near, relevant, np.repeat(np.arange(20), 10)).recall_at_1
    assert again == grouped


def test_the_median_of_the_draws_is_a_median():
    near = np.array([[0.9, 0.1], [0.9, 0.1]])
    scores = retrieval_scores(near, np.eye(2, dtype=bool))
    assert scores.median_rank == (1.5, 1.0, 2.0)


def test_the_json_has_every_number():
    scores = plain(retrieval_scores(np.eye(3), np.eye(3, dtype=bool)))
    assert scores["recall_at_1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert set(scores["chance"]) < set(scores)
    assert scores["without_answer"] == []


@pytest.mark.parametrize(
    ("near", "relevant", "message"),
    [
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), "query 1 are not finite"),
        (np.zeros((2, 3)), np.zeros((2, 3)), "No query has a relevant item"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(near, relevant, message):
    with pytest.raises(ValueError, match=message):
        retrieval_scores(near, relevant.astype(bool))


def test_several_kinds_of_queries_are_drawn_together():
    rng, relevant = np.random.default_rng(2), np.eye(60, dtype=bool)
    near = rng.normal(size=(2, 60, 60)) + [2 * relevant, relevant]
    one, other = (retrieval_scores(table, relevant) for table in near)
    assert pooled([one]) is one
    both = pooled([one, other])
    assert (both.queries, both.items) == (120, 60)
    for name in ("recall_at_1", "recall_at_100", "mean_average_precision"):
        mean = (getattr(one, name).value + getattr(other, name).value) / 2
        assert getattr(both, name).value == pytest.approx(mean, abs=1e-5)
        assert both.chance[name] == pytest.approx(one.chance[name])
    ranks = one.per_query["rank"] + other.per_query["rank"]
    assert both.median_rank.value == np.median(ranks)
    # The same queries twice tell no more than once.
    twice, once = pooled([one, one]).recall_at_10, one.recall_at_10
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-5)
