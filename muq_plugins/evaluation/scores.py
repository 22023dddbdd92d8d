"""How good predictions are, class by class and tag by tag, and how sure one can be.

Classes and tags count the same, however many clips they have. Average precision (the
field's PR-AUC) treats clips with the same score as found together: otherwise it would
depend on the order of the files.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from muq_plugins.evaluation.intervals import Estimate, draws, interval, recall_draws

# Resamplings: the ends of an interval are then good to about 0.002.
DRAWS = 2000
# Ranking the clips of every class takes a hundred times as long as counting hits. So
# few resamplings leave the ends of an interval good to about 0.004.
RANKED_DRAWS = 500
# Draws that are ranked at once: a bound on memory, not on the result.
CHUNK = 50
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


def label_scores(targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
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


def label_draws(
    targets: np.ndarray, scores: np.ndarray, groups: Sequence[str]
) -> np.ndarray:
    """The primary metric in many resamplings of the pieces, always the same ones."""
    if targets.ndim == 1:
        return recall_draws(targets == scores, targets, groups, DRAWS)
    weights = draws(groups, RANKED_DRAWS)
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
    return result - result.mean() + label_scores(targets, scores)["average_precision"]


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


@dataclass(frozen=True)
class TagScore:
    """Scores of one tag."""

    tag: str  # the tag
    positives: int  # clips that have it
    negatives: int  # clips that do not
    # None if the tag has no positive or no negative clip
    roc_auc: float | None  # area under the ROC curve
    average_precision: float | None


@dataclass(frozen=True)
class TaggingScores:
    """Scores of all tags."""

    roc_auc: Estimate  # mean over the scored tags; chance is 0.5
    average_precision: Estimate  # mean over the scored tags: the field's PR-AUC
    # average precision of scores that know nothing: mean share of clips with a tag
    chance: float
    clips: int  # number of clips
    tags: list[TagScore]  # every tag, in the order of the columns
    # tags that no clip has, and that every clip has: they are in no mean
    without_positive: list[str]
    without_negative: list[str]
    # both means when groups are drawn, which two models on the same clips pair by
    draws: dict[str, list[float]]

    def to_dict(self) -> dict:
        """As JSON keeps it, without the draws."""
        plain = {key: value for key, value in asdict(self).items() if key != "draws"}
        return {
            **plain,
            "roc_auc": self.roc_auc._asdict(),
            "average_precision": self.average_precision._asdict(),
        }


def tagging_scores(
    scores: np.ndarray,
    truth: np.ndarray,
    tags: Sequence[str],
    groups: Sequence | None = None,
    samples: int = 500,
    seed: int = 0,
) -> TaggingScores:
    """Macro ROC-AUC and average precision, per tag and with intervals."""
    scores, truth = _checked(scores, truth, tags, groups)
    counts = truth.sum(axis=0)
    scored = np.flatnonzero((counts > 0) & (counts < len(truth)))
    if not scored.size:
        raise ValueError(
            f"None of {len(tags)} tags has both a clip with it and one without: "
            "nothing can be scored. Check that tags and clips are of one data set."
        )
    each = [
        TagScore(t, int(n), len(truth) - int(n), None, None)
        for t, n in zip(tags, counts, strict=True)
    ]
    for i in scored:
        area = float(roc_auc_score(truth[:, i], scores[:, i]))
        precision = float(average_precision_score(truth[:, i], scores[:, i]))
        each[i] = TagScore(
            tags[i], each[i].positives, each[i].negatives, area, precision
        )
    area = float(np.mean([each[i].roc_auc for i in scored]))
    precision = float(np.mean([each[i].average_precision for i in scored]))
    weights = draws(np.arange(len(truth)) if groups is None else groups, samples, seed)
    areas, precisions = _resampled(scores[:, scored], truth[:, scored], weights)
    # Copies of a drawn clip share a rank, which raises the average precision.
    precisions = precisions - np.nanmean(precisions) + precision
    return TaggingScores(
        roc_auc=interval(area, areas),
        average_precision=interval(precision, precisions),
        chance=float(counts[scored].mean() / len(truth)),
        clips=len(truth),
        tags=each,
        without_positive=[tag for tag, n in zip(tags, counts, strict=True) if n == 0],
        without_negative=[
            tag for tag, n in zip(tags, counts, strict=True) if n == len(truth)
        ],
        draws={
            # A draw without any clip of a tag says nothing: it gets the mean.
            name: np.where(np.isnan(x), np.nanmean(x), x).round(6).tolist()
            for name, x in (("roc_auc", areas), ("average_precision", precisions))
        },
    )


def weighted_roc_auc(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Area under the ROC curve of one tag under many weightings of the clips at
    once.
    """
    order = np.argsort(scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    positive = (weights * truth[order]).cumsum(axis=1)[:, last]
    negative = weights.cumsum(axis=1)[:, last] - positive
    below = np.concatenate([np.zeros((len(weights), 1)), negative[:, :-1]], axis=1)
    right = np.diff(positive, axis=1, prepend=0.0) * (below + negative) / 2
    pairs = positive[:, -1] * negative[:, -1]
    return np.divide(
        right.sum(axis=1), pairs, out=np.full_like(pairs, np.nan), where=pairs > 0
    )


def _resampled(scores, truth, weights):
    """Macro ROC-AUC and average precision (samples,), over the tags a draw has."""
    both = []
    for start in range(0, len(weights), CHUNK):
        some = weights[start : start + CHUNK]
        columns = list(zip(truth.T, scores.T, strict=True))
        areas = [weighted_roc_auc(y, score, some) for y, score in columns]
        precisions = [weighted_average_precision(y, s, some) for y, s in columns]
        with warnings.catch_warnings():
            # A draw that has no clip of any tag is no number; `interval` skips it.
            warnings.simplefilter("ignore", RuntimeWarning)
            both.append((np.nanmean(areas, axis=0), np.nanmean(precisions, axis=0)))
    return tuple(np.concatenate(part) for part in zip(*both, strict=True))


def _checked(scores, truth, tags, groups):
    scores, truth = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    if scores.ndim != 2 or scores.shape != truth.shape or scores.shape[1] != len(tags):
        raise ValueError(
            f"Scores {scores.shape} and truth {truth.shape} must both be (clips, "
            f"{len(tags)} tags)."
        )
    if groups is not None and len(groups) != len(truth):
        raise ValueError(f"{len(groups)} groups for {len(truth)} clips.")
    twice = [tag for tag, times in Counter(tags).items() if times > 1]
    if twice:
        raise ValueError(
            f"The tag {twice[0]!r} comes {Counter(tags)[twice[0]]} times: it would "
            "count more than the others. Merge its columns first."
        )
    bad = ~np.isfinite(scores).all(axis=0)
    if bad.any():
        raise ValueError(
            f"Scores of the tag {tags[int(bad.argmax())]!r} are not numbers: check the "
            "model that made them."
        )
    return scores, truth
