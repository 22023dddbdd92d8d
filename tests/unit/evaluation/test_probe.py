"""The linear probe finds what is there, and is unsure where it should be."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from muq_plugins.evaluation.probe import fit_probe
from muq_plugins.evaluation.probe_result import load_probe, save_probe

CLASSES = ["Brass", "Organ", "Piano"]


def make_part(pieces, clips=2, signal=1.0, seed=0):
    """Features, labels and pieces; the label is in the first three features."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(pieces) % 3, clips)
    x = rng.normal(size=(pieces * clips, 6))
    x[:, :3] += signal * np.eye(3)[index]
    groups = np.repeat([f"piece {seed} {number}" for number in range(pieces)], clips)
    return x, np.array(CLASSES)[index], groups


def probe(signal=3.0, test_pieces=30, **options):
    train_x, train_y, train_groups = make_part(30, signal=signal)
    test_x, test_y, test_groups = make_part(test_pieces, signal=signal, seed=1)
    return fit_probe(
        train_x, train_y, test_x, test_y, train_groups, test_groups, **options
    )


def test_finds_the_label():
    result = probe()
    assert result.balanced_accuracy > 0.85
    assert result.chance == pytest.approx(1 / 3)
    assert result.classes == CLASSES
    assert (result.feature_size, result.train_clips) == (6, 60)
    expected = balanced_accuracy_score(result.labels, result.predictions)
    assert result.balanced_accuracy == pytest.approx(expected)
    assert np.mean(list(result.recalls.values())) == pytest.approx(expected)


def test_noise_is_at_chance():
    low, high = probe(signal=0.0).interval
    assert low < 1 / 3 < high


def test_interval_narrows_with_the_number_of_pieces():
    few, many = (probe(signal=1.0, test_pieces=n).interval for n in (15, 150))
    assert few[1] - few[0] > 1.8 * (many[1] - many[0])


def test_interval_is_over_pieces_and_not_over_clips():
    train_x, train_y, _ = make_part(60, clips=1, signal=1.0)
    x, y, groups = make_part(30, clips=1, signal=1.0, seed=1)
    # Every clip eight times over: no new knowledge, so the interval must not narrow.
    x, y, groups = (np.repeat(values, 8, axis=0) for values in (x, y, groups))
    pieces = fit_probe(train_x, train_y, x, y, test_groups=groups)
    clips = fit_probe(train_x, train_y, x, y)
    assert pieces.balanced_accuracy == clips.balanced_accuracy
    assert np.ptp(pieces.interval) > 2 * np.ptp(clips.interval)


def test_classes_weigh_the_same():
    """With 15 times as many clips of one class, the rare one is still found."""
    rng = np.random.default_rng(0)
    y = np.repeat(["common", "rare"], [300, 20])
    x = rng.normal(size=(320, 1)) + 1.5 * (y == "rare")[:, None]
    assert fit_probe(x, y, x, y).recalls["rare"] > 0.6


def test_same_seed_same_result():
    assert probe(seed=3) == probe(seed=3)


def test_difference_is_paired():
    good, bad = probe(signal=3.0, name="good"), probe(signal=0.5, name="bad")
    difference, low, high = good.difference(bad)
    assert difference == pytest.approx(good.balanced_accuracy - bad.balanced_accuracy)
    assert 0 < low < difference < high
    assert good.difference(good) == (0.0, 0.0, 0.0)


def test_the_layer_is_chosen_on_the_training_part():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 30)
    noise = rng.normal(size=(60, 2, 3))
    train, test = noise.copy(), noise.copy()
    train[:, 1, 0] += 4 * (labels == "a")
    test[:, 0, 0] += 4 * (labels == "a")  # a look at the test part would choose this
    result = fit_probe(train, labels, test, labels)
    assert result.layer == 2 and result.balanced_accuracy < 0.7
    assert fit_probe(train[:, 1], labels, train[:, 1], labels).layer is None


def test_difference_needs_the_same_clips():
    with pytest.raises(ValueError, match="not tested on the same clips"):
        probe(name="a").difference(probe(name="b", test_pieces=31))


def test_save_and_load(tmp_path):
    results = [probe(name="a"), probe(name="b", signal=0.5)]
    save_probe(tmp_path, results)
    assert load_probe(tmp_path) == results


X = np.random.default_rng(0).normal(size=(8, 2))
Y = ["a", "b"] * 4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((X, ["a"] * 8, X, ["a"] * 8), "one class only: 'a'"),
        ((X, Y, X, ["c"] * 8), r"that no train clip has: \['c'\]"),
        ((X[:0], [], X, Y), "the train part is empty"),
        ((X, Y, X[:0], []), "the test part is empty"),
        ((X, Y[:7], X, Y), r"train part needs features .* got shapes \(8, 2\), \(7,\)"),
        ((X[:, 0], Y, X, Y), r"train part needs features \(clips, size\)"),
        ((X, Y, X[:, :1], Y), r"\(1, 2\), test features \(1, 1\)"),
        ((X, Y, np.where(X > 1, np.nan, X), Y), "test clips have features that are no"),
        ((X, Y, X, Y, ["one"] * 8), "8 clips of 1 pieces: too few"),
        ((X, Y, X, Y, Y), "8 clips of 2 pieces: too few"),
    ],
)
def test_bad_input(parts, message):
    with pytest.raises(ValueError, match=message):
        fit_probe(*parts)
