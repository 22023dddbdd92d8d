"""Probes find what is there: regressions, mixtures of layers, hidden layers."""

import numpy as np
import pytest
import torch

from muq_plugins.evaluation.probing.clips import ProbeError
from muq_plugins.evaluation.probing.readers import (
    ReaderSettings,
    fit_layers,
    fit_reader,
)

SETTINGS = ReaderSettings(hidden_size=32, lr=0.03, mixture_lr=0.2, patience=10)


def synthetic(layer, clips=200, layers=4, size=6, scale=1.0, seed=0):
    """Noise in all layers but one, which carries the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(clips) % 2
    x = rng.normal(size=(clips, layers, size))
    x[:, layer, 0] += 4 * y
    x[:, layer] *= scale
    return x, y


def fit(x, y, hidden=False, settings=SETTINGS, seed=0, classes=2):
    half = len(x) // 2
    return fit_reader(
        x[:half], y[:half], x[half:], y[half:], classes, hidden, settings, seed
    )


def test_a_regression_finds_the_layer_that_carries_the_label():
    x, y = synthetic(1, clips=80, layers=2)
    (other, known) = fit_layers(x[:40], y[:40], range(40), x[40:])
    assert (
        np.mean(known.predictions == y[40:])
        > 0.9
        > np.mean(other.predictions == y[40:])
    )
    assert known.validation > 0.9 > other.validation
    again = fit_layers(x[:40], y[:40], range(40), x[40:])
    assert [fit.penalty for fit in again] == [other.penalty, known.penalty]


def test_classes_of_a_regression_weigh_the_same():
    """With 15 times as many clips of one class, the rare one is still found."""
    rng = np.random.default_rng(0)
    y = np.repeat(["common", "rare"], [300, 20])
    x = rng.normal(size=(320, 1, 1)) + 1.5 * (y == "rare")[:, None, None]
    (fit,) = fit_layers(x, y, range(320), x)
    assert np.mean(fit.predictions[-20:] == "rare") > 0.6


@pytest.mark.parametrize("groups", [["one"] * 8, ["a", "b"] * 4])
def test_too_few_pieces_to_choose_a_penalty(groups):
    x, y = synthetic(0, clips=8, layers=1)
    words = f"8 clips of {len(set(groups))} pieces: too few"
    with pytest.raises(ProbeError, match=words):
        fit_layers(x, y, groups, x)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("hidden", [False, True])
def test_the_mixture_finds_the_layer_that_carries_the_label(layer, hidden):
    x, y = synthetic(layer)
    weights = fit(x, y, hidden).reader.weights
    assert int(weights.argmax()) == layer and float(weights.max()) > 0.5
    assert float(weights.sum()) == pytest.approx(1)


def test_how_loud_a_layer_is_does_not_matter():
    x, y = synthetic(1)
    loud, _ = synthetic(1, scale=100.0)
    np.testing.assert_allclose(
        fit(x, y).reader.weights, fit(loud, y).reader.weights, atol=0.02
    )


def test_a_hidden_layer_reads_what_a_line_cannot():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(200, 1, 2)) + 0.1 * rng.normal(size=(200, 1, 2))
    y = (x[:, 0, 0] * x[:, 0, 1] > 0).astype(int)
    accuracy = {
        hidden: np.mean(fit(x, y, hidden).scores(x).argmax(axis=1) == y)
        for hidden in (False, True)
    }
    assert accuracy[True] > 0.95 > 0.75 > accuracy[False]


def test_rare_classes_count_as_much():
    x, y = synthetic(0, clips=400, layers=1)
    keep = (y == 0) | (np.arange(400) % 40 == 1)
    x, y = x[keep] * 0.4, y[keep]  # classes overlap
    predictions = fit(x, y).scores(x).argmax(axis=1)
    assert predictions[y == 1].mean() > 0.6


def test_several_labels_a_clip():
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 3)) < 0.4).astype(float)
    x = (targets @ rng.normal(size=(3, 8)))[:, None] + 0.1 * rng.normal(
        size=(200, 1, 8)
    )
    scores = fit(x, targets, classes=3).scores(x)
    assert scores.shape == (200, 3)
    assert ((scores > 0) == (targets > 0)).mean() > 0.95


def test_seeds_decide_everything_and_leave_the_global_state_alone():
    x, y = synthetic(0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (fit(x, y, True, seed=seed).scores(x) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_it_stops_when_unseen_clips_stop_to_profit():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1, 30)), rng.integers(0, 2, 60)
    settings = ReaderSettings(hidden_size=32, lr=0.01, patience=3, max_epochs=500)
    found = fit(x, y, True, settings)
    assert found.epochs < 100
    scores = torch.as_tensor(found.scores(x[30:]))
    weights = 30 / (2 * torch.bincount(torch.as_tensor(y[:30])).float())
    loss = torch.nn.CrossEntropyLoss(weights)(scores, torch.as_tensor(y[30:]))
    assert loss.item() == pytest.approx(found.loss, rel=1e-4)  # the best, not the last


def test_features_that_never_change_do_no_harm():
    x, y = synthetic(0, layers=1)
    x[:, :, 3] = 7.0
    assert np.isfinite(fit(x, y).scores(x)).all()


def test_wrong_settings():
    with pytest.raises(ProbeError, match="reader.lr must be more than 0, got 0"):
        ReaderSettings(lr=0)
    with pytest.raises(ProbeError, match="reader.dropout must be in 0..1, got 1"):
        ReaderSettings(dropout=1)


def test_a_loss_that_is_never_finite_is_an_error():
    x, y = synthetic(0)
    x[:, 0, 0] = np.nan
    with pytest.raises(ProbeError, match="never finite"):
        fit(x, y)
