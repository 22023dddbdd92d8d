"""How good predictions are, class by class, and how sure one can be of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from muq_plugins.evaluation import intervals
from muq_plugins.evaluation.probe_result import bootstrap

# Ranking the clips of every class takes a hundred times as long as counting hits. So
# few resamplings leave the ends of an interval good to about 0.004.
RANKED_DRAWS = 500
# What results are compared by, for each kind of task.
PRIMARY = {"single": "balanced_accuracy", "multi": "average_precision"}
# Names of all metrics for a person.
METRIC_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_f1": "F1 (macro)",
    "average_precision": "Average precision (macro)",
    "roc_auc": "ROC-AUC (macro)",
}


def metrics(targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """All metrics of a test part, each class counting the same."""
    if targets.ndim == 1:
        with warnings.catch_warnings():
            # Of predicted classes that no test clip has: that is what they should cost.
            warnings.simplefilter("ignore", UserWarning)
            balanced = balanced_accuracy_score(targets, scores)
        return {
            "balanced_accuracy": float(balanced),
            "accuracy": float(accuracy_score(targets, scores)),
            "macro_f1": float(f1_score(targets, scores, average="macro")),
        }
    varies = (targets.min(axis=0) == 0) & (targets.max(axis=0) == 1)
    targets, scores = targets[:, varies], scores[:, varies]
    if not varies.any():
        return {"average_precision": float("nan"), "roc_auc": float("nan")}
    average_precision = average_precision_score(targets, scores, average="macro")
    return {
        "average_precision": float(average_precision),
        "roc_auc": float(roc_auc_score(targets, scores, average="macro")),
    }


def chance(targets: np.ndarray) -> float:
    """What the best answer that is always the same reaches in the primary metric."""
    if targets.ndim == 1:
        return 1 / len(np.unique(targets))
    shares = targets.mean(axis=0)
    return float(shares[(shares > 0) & (shares < 1)].mean())


def draws(targets: np.ndarray, scores: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """The primary metric in many resamplings of the pieces, always the same ones."""
    if targets.ndim == 1:
        return bootstrap(targets.tolist(), scores.tolist(), list(groups))
    weights = intervals.draws(groups, RANKED_DRAWS)
    values = [
        weighted_average_precision(y, score, weights)
        for y, score in zip(targets.T, scores.T, strict=True)
    ]
    with warnings.catch_warnings():
        # A draw without any clip of any class has no value; then it is left out.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = np.nanmean(values, axis=0)
    result = np.where(np.isnan(result), np.nanmean(result), result)
    # Copies of a drawn clip share a rank, which raises the average precision.
    return result - result.mean() + metrics(targets, scores)["average_precision"]


def weighted_average_precision(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision of one class under many weightings of the clips at once.

    Clips with the same score are found together, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    hits = (weights * targets[order]).cumsum(axis=1)[:, last]
    found = weights.cumsum(axis=1)[:, last]
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    gains = np.diff(hits, axis=1, prepend=0.0)
    total = hits[:, -1]
    return np.divide(
        (gains * precision).sum(axis=1),
        total,
        out=np.full_like(total, np.nan),
        where=total > 0,
    )
