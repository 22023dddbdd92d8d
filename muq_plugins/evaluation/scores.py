"""How good predictions are, class by class and tag by tag, and how sure one can be.

Classes and tags count the same, however many clips they have. Average precision (the
field's PR-AUC) treats clips with the same score as found together: otherwise it would
depend on the order of the files.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.integrate import trapezoid
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    r2_score,
    roc_auc_score,
)

from muq_plugins.data.datasets.inst_sim_abx import SOUNDS
from muq_plugins.data.datasets.keys import KEYS
from muq_plugins.evaluation.intervals import (
    Estimate,
    draws,
    interval,
    mean_draws,
    recall_draws,
)

# Resamplings: the ends of an interval are then good to about 0.002.
DRAWS = 2000
# Ranking the clips of every class takes a hundred times as long as counting hits. So
# few resamplings leave the ends of an interval good to about 0.004.
RANKED_DRAWS = 500
# Draws that are ranked at once: a bound on memory, not on the result.
CHUNK = 50
# What results are compared by, for each kind of task.
PRIMARY = {
    "single": "balanced_accuracy",
    "multi": "average_precision",
    "frames": "clip_precision",
}
# Names of all metrics for a person.
METRIC_NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_f1": "F1 (macro)",
    "average_precision": "Average precision (macro)",
    "clip_precision": "Average precision (within clips)",
    "roc_auc": "ROC-AUC (macro)",
    "mirex2005": "Weighted key score (MIREX 2005)",
    "mirex2017": "Weighted key score (MIREX 2017)",
    "r2": "R² (mean)",
    "r2_arousal": "R² of arousal",
    "r2_valence": "R² of valence",
    # accuracy on triplets of one sound
    **{sound: sound.capitalize() for sound in SOUNDS},
    "beat_f": "F of beats",
    "downbeat_f": "F of downbeats",
    "beat_cmlt": "CMLt of beats",
    "beat_amlt": "AMLt of beats",
    "tempo_acc1": "Acc1 of the tempo",
    "tempo_acc2": "Acc2 of the tempo",
    "frame_accuracy": "Accuracy of frames",
    "chord_majmin": "Major and minor chords",
    "chord_majmin_total": "Major and minor chords, all songs together",
    "chord_root": "Roots of chords",
    "chord_thirds": "Thirds of chords",
    "chord_triads": "Triads",
    "chord_sevenths": "Sevenths",
    "chord_mirex": "Chords, MIREX",
    "section_accuracy": "Accuracy of sections",
    "section_pairwise": "F of pairs in sections",
    "section_v": "V of sections",
    "hit_rate_05": "Boundaries within 0.5 s",
    "hit_rate_05_untrimmed": "Boundaries within 0.5 s, untrimmed",
    "hit_rate_3": "Boundaries within 3 s",
    "hit_rate_3_untrimmed": "Boundaries within 3 s, untrimmed",
}
# What a key is worth that is not the true one: MIREX has counted fifths above alone at
# first, and fifths in both directions since 2017. Libraries have changed their default.
KEY_SCORES = {"mirex2005": (7,), "mirex2017": (7, 5)}


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


def metric_score(metric: str, targets: np.ndarray, scores: np.ndarray) -> float:
    """One metric: what a training looks at after every epoch.

    Any of those in `METRIC_NAMES` that hold of recordings. Classes of key scores are
    `KEYS`; of "r2", targets and scores are (recordings, dimensions).
    """
    if metric == "accuracy":
        return float(accuracy_score(targets, scores))
    if metric in KEY_SCORES:
        return float(key_credit(metric)[targets, scores].mean())
    if metric == "r2":
        return float(r2_score(targets, scores))
    varies = (targets.min(axis=0) == 0) & (targets.max(axis=0) == 1)
    ranked = {"average_precision": average_precision_score, "roc_auc": roc_auc_score}
    if not varies.any():
        return float("nan")
    return float(ranked[metric](targets[:, varies], scores[:, varies], average="macro"))


def metric_scores(
    metric: str, targets: np.ndarray, scores: np.ndarray, classes: Sequence[str] = ()
) -> dict[str, float]:
    """All metrics of a test part that belong to a primary one, as `metric_score`."""
    if metric == "r2":
        each = r2_score(targets, scores, multioutput="raw_values")
        known = {
            f"r2_{name}": float(r2)
            for name, r2 in zip(classes, each, strict=True)
            if len(each) > 1
        }
        return {"r2": metric_score(metric, targets, scores), **known}
    found = label_scores(targets, scores)
    if metric in KEY_SCORES:
        found |= {name: metric_score(name, targets, scores) for name in KEY_SCORES}
    return found


def metric_draws(
    metric: str,
    targets: np.ndarray,
    scores: np.ndarray,
    groups: Sequence[str],
) -> np.ndarray:
    """A primary metric in many resamplings of the groups, always the same ones."""
    if metric == "accuracy":
        return mean_draws(targets == scores, groups, DRAWS)
    if metric in KEY_SCORES:
        return mean_draws(key_credit(metric)[targets, scores], groups, DRAWS)
    if metric == "r2":
        weights = draws(groups, RANKED_DRAWS)
        return np.array([r2_score(targets, scores, sample_weight=w) for w in weights])
    return label_draws(targets, scores, groups)


@lru_cache
def key_credit(name: str) -> np.ndarray:
    """What each answer is worth (true key, answer), in the order of `KEYS`."""
    credit = np.zeros((len(KEYS), len(KEYS)))
    for true in range(len(KEYS)):
        for answer in range(len(KEYS)):
            steps, minor = (answer - true) % 12, true >= 12
            if (answer >= 12) == minor:
                worth = 1.0 if steps == 0 else 0.5 * (steps in KEY_SCORES[name])
            else:
                relative = 3 if minor else 9
                worth = {relative: 0.3, 0: 0.2}.get(steps, 0.0)
            credit[true, answer] = worth
    return credit


def clip_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Average precision over all pairs of time and class (times, classes) of a clip.

    Probes of frames compare its mean over clips. So every clip counts the same, whether
    it is dense or sparse, loud or soft; only the order within it matters; and an
    interval over pieces is that of a mean.
    """
    one = np.ones((1, truth.size))
    return float(weighted_average_precision(truth.ravel(), scores.ravel(), one)[0])


def macro_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Average precision over all times, the mean over the classes that vary."""
    one = np.ones((1, len(truth)))
    return float(_macro(weighted_average_precision, truth, scores, one)[0])


def chance(targets: np.ndarray) -> float:
    """What knowing nothing reaches: always the same class, or a random order."""
    if targets.ndim == 1:
        return 1 / len(np.unique(targets))
    clips, counts = len(targets), targets.sum(axis=0)
    scored = counts[(counts > 0) & (counts < clips)]
    return float(random_precision(scored, clips).mean())


def random_precision(positives: np.ndarray, clips: int) -> np.ndarray:
    """Average precision of so many positives, the mean over all orders of the clips.

    The share of positives, which a random order comes down to, is too low where they
    are few (Bestgen, "Exact expected average precision of the random baseline for
    system evaluation", 2015).
    """
    harmonic = (1 / np.arange(1, clips + 1)).sum()
    others = (positives - 1) / (clips - 1)  # at any other place, if this has one
    return (harmonic + others * (clips - harmonic)) / clips


def label_draws(
    targets: np.ndarray, scores: np.ndarray, groups: Sequence[str]
) -> np.ndarray:
    """The primary metric in many resamplings of the pieces, always the same ones."""
    if targets.ndim == 1:
        return recall_draws(targets == scores, targets, groups, DRAWS)
    weights = draws(groups, RANKED_DRAWS)
    result = _macro(weighted_average_precision, targets, scores, weights)
    # Copies of a drawn clip share a rank, which raises the average precision.
    result += label_scores(targets, scores)["average_precision"] - result.mean()
    return result.clip(0, 1)


def _macro(score: Callable, truth, scores, weights: np.ndarray) -> np.ndarray:
    """The mean of a score over the classes that a draw has, in each of many draws.

    A draw without any clip of any class says nothing: it gets the mean of the others.
    """
    columns, means = list(zip(truth.T, scores.T, strict=True)), []
    for start in range(0, len(weights), CHUNK):
        some = weights[start : start + CHUNK]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            means.append(np.nanmean([score(y, s, some) for y, s in columns], axis=0))
    means = np.concatenate(means)
    return np.where(np.isnan(means), np.nanmean(means), means)


def _from_the_top(truth, scores, weights) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the positives, and of all clips, down to each score (draws, scores).

    Clips with the same score are found together, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    hits = (weights * truth[order]).cumsum(axis=1)
    return hits[:, last], weights.cumsum(axis=1)[:, last]


def weighted_average_precision(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision of one class under many weightings of the clips at once."""
    hits, found = _from_the_top(truth, scores, weights)
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    gains = np.diff(hits, axis=1, prepend=0.0)
    return _ratio((gains * precision).sum(axis=1), hits[:, -1])


def weighted_roc_auc(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Area under the ROC curve of one class under many weightings at once."""
    hits, found = _from_the_top(truth, scores, weights)
    false = found - hits
    area = trapezoid(hits, false, axis=1) + hits[:, 0] * false[:, 0] / 2
    return _ratio(area, hits[:, -1] * false[:, -1])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


class TagScore(NamedTuple):
    """Scores of one tag."""

    tag: str  # the tag
    positives: int  # clips that have it
    negatives: int  # clips that do not
    # None if the tag has no positive or no negative clip
    roc_auc: float | None  # area under the ROC curve
    average_precision: float | None


class TaggingScores(NamedTuple):
    """Scores of all tags."""

    roc_auc: Estimate  # mean over the scored tags; chance is 0.5
    average_precision: Estimate  # mean over the scored tags: the field's PR-AUC
    chance: float  # average precision of a random order, the mean likewise
    clips: int  # number of clips
    tags: list[TagScore]  # every tag, in the order of the columns
    # tags that no clip has, and that every clip has: they are in no mean
    without_positive: list[str]
    without_negative: list[str]
    # both means when groups are drawn, which two models on the same clips pair by
    draws: dict[str, list[float]]


def tagging_scores(
    scores: np.ndarray,
    truth: np.ndarray,
    tags: Sequence[str],
    groups: Sequence | None = None,
    samples: int = 500,
) -> TaggingScores:
    """Macro ROC-AUC and average precision, per tag and with intervals."""
    scores, truth = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    bad = ~np.isfinite(scores).all(axis=0)
    if bad.any():
        raise ValueError(
            f"Scores of the tag {tags[int(bad.argmax())]!r} are not numbers: check the "
            "model that made them."
        )
    counts = truth.sum(axis=0)
    scored = (counts > 0) & (counts < len(truth))
    if not scored.any():
        raise ValueError(
            f"None of {len(tags)} tags has both a clip with it and one without: "
            "nothing can be scored. Check that tags and clips are of one data set."
        )
    each = []
    for index, (tag, positives) in enumerate(zip(tags, counts.tolist(), strict=True)):
        found = None, None
        if scored[index]:
            pair = truth[:, index], scores[:, index]
            found = float(roc_auc_score(*pair)), float(average_precision_score(*pair))
        each.append(TagScore(tag, positives, len(truth) - positives, *found))
    areas, precisions = np.array([tag[3:] for tag in each], dtype=float)[scored].T
    weights = draws(np.arange(len(truth)) if groups is None else groups, samples)
    drawn = truth[:, scored], scores[:, scored], weights
    roc_auc = _macro(weighted_roc_auc, *drawn)
    precision = _macro(weighted_average_precision, *drawn)
    # Copies of a drawn clip share a rank, which raises the average precision.
    precision = precision - precision.mean() + precisions.mean()
    return TaggingScores(
        interval(areas.mean(), roc_auc),
        interval(precisions.mean(), precision),
        chance(truth),
        len(truth),
        each,
        [tag.tag for tag in each if not tag.positives],
        [tag.tag for tag in each if not tag.negatives],
        {
            "roc_auc": roc_auc.round(6).tolist(),
            "average_precision": precision.round(6).tolist(),
        },
    )
