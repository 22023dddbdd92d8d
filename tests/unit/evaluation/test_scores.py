"""Scores: by hand, as scikit-learn, and as the published ones of MediaEval."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    roc_auc_score,
)

from muq_plugins.data.datasets.keys import KEYS
from muq_plugins.evaluation.intervals import drawn_groups, interval
from muq_plugins.evaluation.retrieval import NAMES, query_scores
from muq_plugins.evaluation.scores import (
    RANKED_DRAWS,
    chance,
    label_draws,
    label_scores,
    metric_draws,
    metric_scores,
    tagging_scores,
    weighted_average_precision,
    weighted_roc_auc,
)

# Folder results/mediaeval of the repository MTG/mtg-jamendo-dataset. Its licence (CC
# BY-NC-SA) does not let us keep a copy.
GOLDEN = os.environ.get("MUQ_MEDIAEVAL_RESULTS")


def naive_average_precision(truth, scores):
    """As if the order of the files decided between equal scores."""
    hits = truth[np.argsort(-scores, kind="stable")]
    return (hits.cumsum() / np.arange(1, len(hits) + 1))[hits].mean()


@pytest.mark.skipif(not GOLDEN, reason="MUQ_MEDIAEVAL_RESULTS is not set")
def test_the_published_scores_of_a_real_system():
    folder = Path(GOLDEN)
    truth = np.load(folder / "groundtruth.npy", allow_pickle=False)
    predictions = folder / "baseline_vggish_predictions.npy"
    scores = np.load(predictions, allow_pickle=False)
    with open(folder / "baseline_vggish_results.tsv", encoding="utf-8") as file:
        published = {
            name: float(value) for name, value in csv.reader(file, "excel-tab")
        }
    assert truth.shape == scores.shape == (4231, 56)
    found = tagging_scores(scores, truth, [str(i) for i in range(56)], samples=20)
    assert round(found.roc_auc.value, 6) == published["ROC-AUC-macro"] == 0.725821
    precision = found.average_precision
    assert round(precision.value, 6) == published["PR-AUC-macro"] == 0.107734
    # Without care for ties it is another number.
    naive = [
        naive_average_precision(*pair) for pair in zip(truth.T, scores.T, strict=True)
    ]
    assert round(np.mean(naive), 6) == 0.107730


def test_ties_by_hand():
    # Found in three steps: one positive; then two of which one is positive; then one
    # more positive. Precision 1, 2/3, 3/4 for a third of the positives each.
    truth = np.array([[True], [False], [True], [True], [False]])
    scores = np.array([[0.9], [0.5], [0.5], [0.2], [0.1]])
    found = tagging_scores(scores, truth, ["piano"]).average_precision.value
    assert found == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    other = np.array([0, 2, 1, 3, 4])
    assert tagging_scores(scores[other], truth[other], ["piano"]).average_precision[
        0
    ] == pytest.approx(found)
    naive = [
        naive_average_precision(truth[order, 0], scores[order, 0])
        for order in (np.arange(5), other)
    ]
    assert naive[0] != pytest.approx(naive[1])
    assert naive[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert naive[1] == pytest.approx((1 + 2 / 2 + 3 / 4) / 3)
    # A tie of a positive and a negative is half a right pair: 2 + 1.5 + 1 of 6.
    assert tagging_scores(scores, truth, ["piano"]).roc_auc.value == 4.5 / 6


def test_every_tag_is_as_scikit_learn_scores_it():
    rng = np.random.default_rng(0)
    truth = rng.random((80, 4)) < 0.3
    scores = (truth + rng.normal(size=(80, 4))).round(1)  # with ties
    found = tagging_scores(scores, truth, list("abcd"))
    for i, tag in enumerate(found.tags):
        assert tag.tag == "abcd"[i]
        assert tag.positives == truth[:, i].sum()
        assert tag.negatives == 80 - tag.positives
        area = roc_auc_score(truth[:, i], scores[:, i])
        assert tag.roc_auc == area
        precision = average_precision_score(truth[:, i], scores[:, i])
        assert tag.average_precision == precision
        weights = rng.integers(0, 3, (5, 80)).astype(float)
        for drawn, score in (
            (weighted_roc_auc, roc_auc_score),
            (weighted_average_precision, average_precision_score),
        ):
            pair = truth[:, i], scores[:, i]
            expected = [score(*pair, sample_weight=w) for w in weights]
            assert drawn(*pair, weights) == pytest.approx(expected)
    assert found.roc_auc.value == np.mean([tag.roc_auc for tag in found.tags])
    assert found.chance == chance(truth) > truth.mean()
    assert found.roc_auc.low < found.roc_auc.value < found.roc_auc.high
    low, high = found.average_precision[1:]
    assert low < found.average_precision.value < high


def test_clips_of_the_highest_score_are_found_together():
    pair = np.array([1, 0, 1, 0]), np.array([1.0, 1.0, 0.5, 0.2])
    assert weighted_roc_auc(*pair, np.ones((1, 4))) == [0.625]


def test_draws_without_any_positive_say_nothing():
    truth = np.eye(40)[:, :1]  # in the draws of a third of them there is none
    scores, clips = np.linspace(1, 0, 40)[:, None], list(range(40))
    assert (metric_draws("average_precision", truth, scores, clips) == 1).all()


def test_tags_that_cannot_be_scored_are_named():
    truth = np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)
    found = tagging_scores(truth * 1.0, truth, ["calm", "never", "always"])
    assert found.without_positive == ["never"]
    assert found.without_negative == ["always"]
    assert [tag.roc_auc for tag in found.tags] == [1.0, None, None]
    assert found.roc_auc.value == 1


def test_the_interval_is_over_groups():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.random((30, 1)) < 0.5, 10, axis=0)
    scores = np.repeat(truth[::10] + rng.normal(size=(30, 1)), 10, axis=0)
    alone = tagging_scores(scores, truth, ["calm"]).roc_auc
    groups = np.repeat(np.arange(30), 10)
    grouped = tagging_scores(scores, truth, ["calm"], groups).roc_auc
    assert grouped.value == alone.value
    assert 2 < (grouped.high - grouped.low) / (alone.high - alone.low) < 5


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        (np.array([[0, 1], [0, np.inf]]), np.eye(2), "'b' are not numbers"),
        (np.zeros((2, 1)), np.ones((2, 1)), "None of 1 tags"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(scores, truth, message):
    with pytest.raises(ValueError, match=message):
        tagging_scores(scores, truth, list("ab")[: truth.shape[1]])


def test_copies_of_a_drawn_clip_do_not_raise_the_interval():
    # A clip drawn twice shares its rank with its copy, which looks like a better model.
    rng = np.random.default_rng(0)
    truth = rng.random((60, 40)) < 0.08
    truth[0], truth[1] = True, False
    tags = [str(i) for i in range(40)]
    found = tagging_scores(rng.normal(size=(60, 40)), truth, tags)
    value, low, high = found.average_precision
    assert abs((low + high) / 2 - value) < 0.15 * (high - low)


def test_chance_is_always_the_same_class_or_a_random_order():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 5, 60)
    always = np.full(60, np.bincount(classes).argmax())
    assert chance(classes) == label_scores(classes, always)["balanced_accuracy"] == 0.2
    tags = np.zeros((12, 4))
    for tag, positives in enumerate((0, 1, 5, 12)):
        tags[:positives, tag] = 1
    orders = rng.random((2000, 12))
    drawn = [label_scores(tags, np.tile(x[:, None], 4)) for x in orders]
    expected = np.mean([x["average_precision"] for x in drawn])
    assert chance(tags) == pytest.approx(expected, abs=0.01)
    tied = [query_scores(np.zeros(12), tag == 1) for tag in tags.T[1:3]]
    at = NAMES.index("mean_average_precision")
    assert chance(tags) == pytest.approx(np.mean([x[at] for x in tied]))


def test_classes_that_no_or_every_clip_has_are_left_out():
    rng = np.random.default_rng(0)
    targets = (rng.random((20, 4)) < 0.5).astype(float)
    targets[:, 1], targets[:, 2] = 0, 1
    scores = rng.normal(size=(20, 4))
    assert label_scores(targets, scores) == label_scores(
        targets[:, [0, 3]], scores[:, [0, 3]]
    )
    assert np.isnan(label_scores(targets[:, [1]], scores[:, [1]])["roc_auc"])


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


@pytest.mark.parametrize(
    ("truth", "answer", "old", "new"),
    [
        ("C major", "C major", 1.0, 1.0),
        ("C major", "G major", 0.5, 0.5),
        ("C major", "F major", 0.0, 0.5),  # a fifth below: since 2017 alone
        ("C major", "A minor", 0.3, 0.3),
        ("A minor", "C major", 0.3, 0.3),
        ("C major", "C minor", 0.2, 0.2),
        ("C minor", "G major", 0.0, 0.0),
        ("B minor", "Gb minor", 0.5, 0.5),
    ],
)
def test_both_key_scores(truth, answer, old, new):
    """T15: each has a name, and neither is the default of a library."""
    pair = np.array([KEYS.index(truth)]), np.array([KEYS.index(answer)])
    found = metric_scores("mirex2005", *pair)
    assert (found["mirex2005"], found["mirex2017"]) == (old, new)


def test_intervals_of_accuracy_and_of_numbers():
    rng = np.random.default_rng(0)
    groups = list(map(str, np.arange(60) // 2))
    truth = np.arange(60) % 3
    guess = np.where(rng.random(60) < 0.7, truth, 0)
    numbers = rng.normal(size=(60, 2))
    said = numbers + 0.5 * rng.normal(size=(60, 2))
    for metric, pair in (("accuracy", (truth, guess)), ("r2", (numbers, said))):
        value = metric_scores(metric, *pair, ["arousal", "valence"])[metric]
        _, low, high = interval(value, metric_draws(metric, *pair, groups))
        assert low < value < high, metric
