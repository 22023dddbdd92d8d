"""Metrics equal scikit-learn's, and intervals come from resampled pieces."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from muq_plugins.evaluation.intervals import drawn_groups, interval
from muq_plugins.evaluation.scores import (
    RANKED_DRAWS,
    chance,
    label_draws,
    label_scores,
    weighted_average_precision,
)


def test_single_metrics_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 5, 60), rng.integers(0, 5, 60)
    found = label_scores(targets, predictions)
    assert found["balanced_accuracy"] == balanced_accuracy_score(targets, predictions)
    assert found["accuracy"] == np.mean(targets == predictions)
    assert found["macro_f1"] == f1_score(targets, predictions, average="macro")
    assert chance(targets) == 0.2


def test_multi_metrics_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 6)) < 0.3).astype(float)
    scores = rng.normal(size=(60, 6)).round(1)  # with ties
    found = label_scores(targets, scores)
    expected = average_precision_score(targets, scores, average="macro")
    assert found["average_precision"] == expected
    assert found["roc_auc"] == roc_auc_score(targets, scores, average="macro")
    assert chance(targets) == pytest.approx(targets.mean())


def test_classes_that_no_or_every_clip_has_are_left_out():
    rng = np.random.default_rng(0)
    targets = (rng.random((20, 4)) < 0.5).astype(float)
    targets[:, 1], targets[:, 2] = 0, 1
    scores = rng.normal(size=(20, 4))
    assert label_scores(targets, scores) == label_scores(
        targets[:, [0, 3]], scores[:, [0, 3]]
    )
    assert np.isnan(label_scores(targets[:, [1]], scores[:, [1]])["roc_auc"])


def test_weighted_average_precision_equals_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    targets, scores = (rng.random(40) < 0.3) * 1.0, rng.normal(size=40).round(1)
    weights = rng.integers(0, 4, (5, 40)).astype(float)
    expected = [
        average_precision_score(targets, scores, sample_weight=w) for w in weights
    ]
    found = weighted_average_precision(targets, scores, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_draws_resample_pieces_and_are_paired():
    rng = np.random.default_rng(2)
    targets = (rng.random((40, 3)) < 0.4).astype(float)
    scores = targets + rng.normal(size=(40, 3))
    groups = [str(index // 4) for index in range(40)]
    found = label_draws(targets, scores, groups)
    assert found.shape == (RANKED_DRAWS,)
    each = [
        [
            average_precision_score(y, s, sample_weight=pieces.repeat(4))
            for y, s in zip(targets.T, scores.T, strict=True)
        ]
        for pieces in drawn_groups(10, RANKED_DRAWS)[7:9]
    ]
    expected = np.mean(each, axis=1)  # without the shift that all draws share
    assert found[8] - found[7] == pytest.approx(expected[1] - expected[0])
    value = label_scores(targets, scores)["average_precision"]
    assert found.mean() == pytest.approx(value)
    _, low, high = interval(0.0, found)
    assert low < label_scores(targets, scores)["average_precision"] < high
    # Copies of clips say nothing new if they belong to one piece.
    copies = targets.repeat(9, axis=0), scores.repeat(9, axis=0)
    groups = [str(index // 9) for index in range(360)]
    _, *wide = interval(0.0, label_draws(*copies, groups))
    _, *narrow = interval(0.0, label_draws(*copies, list(map(str, range(360)))))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
