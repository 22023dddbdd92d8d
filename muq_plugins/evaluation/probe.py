"""Linear probe: how much of a label can be read off fixed features.

A logistic regression on standardised features, the weakest reader there is, so that
the score belongs to the features and not to the reader. Clips of one piece are alike,
so cross-validation never splits a piece. It chooses the strength of the penalty, and
the layer where there are several: which one tells most about a label is not known
before, and choosing by the test part would flatter whoever has more layers.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from muq_plugins.evaluation.intervals import interval
from muq_plugins.evaluation.probe_result import ProbeResult, bootstrap
from muq_plugins.evaluation.probing.clips import ProbeError

# Inverse strengths of the L2 penalty, from which cross-validation chooses.
PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5


def fit_probe(
    train_x: np.ndarray,
    train_y: Sequence[str],
    test_x: np.ndarray,
    test_y: Sequence[str],
    train_groups: Sequence[str] | None = None,
    test_groups: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "features",
) -> ProbeResult:
    """Train a logistic regression on one part and test it on the other.

    Classes weigh the same however many clips they have. The strength of the penalty and
    the layer are chosen by cross-validation on the training part, which never splits a
    piece.
    """
    results = fit_layers(
        train_x, train_y, test_x, test_y, train_groups, test_groups, seed, name
    )
    # The first of the best, as the simplest that does it.
    return max(results, key=lambda result: result.validation)


def fit_layers(
    train_x: np.ndarray,
    train_y: Sequence[str],
    test_x: np.ndarray,
    test_y: Sequence[str],
    train_groups: Sequence[str] | None = None,
    test_groups: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "features",
    folds: int = FOLDS,
) -> list[ProbeResult]:
    """Probe every layer by itself, for a curve over the layers.

    As `fit_probe`, which gives the layer with the best `validation` of these.
    """
    train_x, train_y, train_groups = _checked("train", train_x, train_y, train_groups)
    test_x, test_y, test_groups = _checked("test", test_x, test_y, test_groups)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise ValueError(
            f"train features are (layers, size) {train_x.shape[1:]}, test features "
            f"{test_x.shape[1:]}"
        )
    classes = np.unique(train_y).tolist()
    if len(classes) < 2:
        raise ProbeError(f"the train part has one class only: {classes[0]!r}")
    if unseen := sorted(set(test_y.tolist()) - set(classes)):
        raise ProbeError(f"labels in the test part that no train clip has: {unseen}")

    results = []
    # The matrices are small: more threads cost forty times what they give.
    with threadpool_limits(1):
        penalties = _choose(train_x, train_y, train_groups, seed, folds)
        for layer, (penalty, validation) in enumerate(penalties):
            classifier = _classifier(penalty).fit(train_x[:, layer], train_y)
            predictions = classifier.predict(test_x[:, layer])
            clips = (test_y.tolist(), predictions.tolist(), test_groups.tolist())
            _, low, high = interval(0.0, bootstrap(*clips))
            results.append(
                ProbeResult(
                    name=name,
                    balanced_accuracy=_balanced_accuracy(test_y, predictions),
                    interval=(low, high),
                    accuracy=float(np.mean(predictions == test_y)),
                    macro_f1=float(f1_score(test_y, predictions, average="macro")),
                    chance=1 / len(np.unique(test_y)),
                    classes=classes,
                    penalty=penalty,
                    layer=layer + 1 if train_x.shape[1] > 1 else None,
                    feature_size=train_x.shape[2],
                    train_clips=len(train_y),
                    labels=clips[0],
                    predictions=clips[1],
                    groups=clips[2],
                    validation=validation,
                )
            )
    return results


def _checked(part, x, y, groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups as arrays, after checking them."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y)
    groups = np.arange(len(y)).astype(str) if groups is None else np.asarray(groups)
    if x.ndim not in (2, 3) or y.ndim != 1 or not len(x) == len(y) == len(groups):
        raise ValueError(
            f"the {part} part needs features (clips, size) or (clips, layers, size), "
            f"and a label and a group for each clip, got shapes {x.shape}, {y.shape} "
            f"and {groups.shape}"
        )
    if x.ndim == 2:
        x = x[:, None]
    if len(x) == 0:
        raise ProbeError(f"the {part} part is empty")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))
    if bad.size:
        raise ValueError(
            f"{bad.size} of {len(x)} {part} clips have features that are not finite, "
            f"the first is clip {bad[0]}"
        )
    return x, y, groups


def _classifier(penalty: float) -> Pipeline:
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000),
    )


def _choose(x, y, groups, seed: int, folds: int) -> list[tuple[float, float]]:
    """Of each layer, the best penalty and its mean balanced accuracy over the folds."""
    scores = []  # (folds, layers, penalties)
    for train, held_out in _folds(y, groups, seed, folds):
        scores.append(
            [
                [
                    _fold_score(_classifier(penalty), x[:, layer], y, train, held_out)
                    for penalty in PENALTIES
                ]
                for layer in range(x.shape[1])
            ]
        )
    means = np.mean(scores, axis=0)
    best = means.argmax(axis=1).tolist()
    return [
        (PENALTIES[index], float(row[index]))
        for index, row in zip(best, means, strict=True)
    ]


def _fold_score(classifier: Pipeline, x, y, train, held_out) -> float:
    predictions = classifier.fit(x[train], y[train]).predict(x[held_out])
    return _balanced_accuracy(y[held_out], predictions)


def _folds(y, groups, seed: int, wanted: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Splits into training and held-out clips that do not split a piece."""
    pieces = len(np.unique(groups))
    largest_class = np.unique(y, return_counts=True)[1].max()
    folds = min(wanted, pieces, largest_class)
    if folds >= 2:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It warns of classes with fewer clips than folds. They take part in the
            # folds that they reach.
            warnings.simplefilter("ignore", UserWarning)
            splits = list(splitter.split(y, y, groups))
        splits = [split for split in splits if len(np.unique(y[split[0]])) >= 2]
        if splits:
            return splits
    raise ProbeError(
        f"the train part has {len(y)} clips of {pieces} pieces: too few to choose the "
        "penalty on folds that do not split a piece and train on two classes"
    )


def _balanced_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean recall over the classes that occur in the labels."""
    hits = labels == predictions
    return float(np.mean([hits[labels == name].mean() for name in np.unique(labels)]))
