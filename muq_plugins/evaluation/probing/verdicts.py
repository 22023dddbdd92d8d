"""What the scores of a probe mean, in plain words that are computed."""

from __future__ import annotations

import numpy as np

from muq_plugins.evaluation.health import Verdict
from muq_plugins.evaluation.probing.metrics import METRIC_NAMES
from muq_plugins.evaluation.probing.result import LINEAR, TRAINED, UNTRAINED, TaskResult

DRAWS = 2000
# Resampling fewer pieces says nothing about other pieces.
FEWEST_GROUPS = 5


def probing_verdicts(results: list[TaskResult]) -> list[Verdict]:
    """Judge the trained encoder, task by task, and which layers know what."""
    verdicts = []
    for result in results:
        verdicts += _task_verdicts(result)
    return verdicts + depth_verdict(results)


def depth_verdict(results: list[TaskResult]) -> list[Verdict]:
    """Acoustic labels in low layers, semantic ones in high layers?

    In every resampling of the test part, each label has a best layer of the trained
    encoder under the linear probe. The question is whether the mean best layer of
    semantic labels lies above that of acoustic ones. Labels that the encoder does not
    know better than chance have no best layer and are left out, and so are those whose
    test part has too few pieces to resample.
    """
    rng = np.random.default_rng(0)
    layers: dict[str, list] = {"acoustic": [], "semantic": []}
    names: dict[str, list] = {"acoustic": [], "semantic": []}
    for result in results:
        row = result.row(TRAINED, LINEAR)
        if result.level is None or not result.best_layers or row is None:
            continue
        if row.low <= result.chance or result.test_groups < FEWEST_GROUPS:
            continue
        shares = np.array(result.best_layers)
        places = rng.choice(len(shares), size=DRAWS, p=shares / shares.sum())
        layers[result.level].append(places)
        names[result.level].append(result.label)
    if not all(layers.values()):
        return []
    means = {level: np.mean(places, axis=0) for level, places in layers.items()}
    difference = means["semantic"] - means["acoustic"]
    low, high = np.percentile(difference, [2.5, 97.5])
    answer = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
    return [
        Verdict(
            "good" if answer == "supported" else "warning",
            f"acoustic labels low, semantic labels high: {answer} at this budget. The "
            f"best layer is {means['acoustic'].mean():.1f} for "
            f"{', '.join(names['acoustic'])} and {means['semantic'].mean():.1f} for "
            f"{', '.join(names['semantic'])} (difference {difference.mean():+.1f} "
            f"layers, 95% interval {low:+.1f} to {high:+.1f}).",
        )
    ]


def _task_verdicts(result: TaskResult) -> list[Verdict]:
    """The trained encoder against its untrained self and against the log-mel."""
    verdicts = []
    ours = result.row(TRAINED, LINEAR)
    metric = METRIC_NAMES[result.metric].lower()
    for comparison in result.comparisons:
        if comparison.reader != LINEAR:
            continue
        numbers = (
            f"{metric} {ours.value:.1%}, {comparison.reference} "
            f"{ours.value - comparison.difference:.1%} (difference "
            f"{100 * comparison.difference:+.1f} points, 95% interval "
            f"{100 * comparison.low:+.1f} to {100 * comparison.high:+.1f})"
        )
        if comparison.reference == UNTRAINED:
            if result.test_groups < FEWEST_GROUPS:
                level = "warning"
                words = (
                    f"undecided, as the test part has only {result.test_groups} "
                    f"different {result.group!r} and intervals mean little"
                )
            elif comparison.low > 0:
                level, words = "good", "training has improved the encoder"
            elif comparison.high < 0:
                level, words = "problem", "training has made the encoder worse"
            else:
                level, words = "warning", "whether training has helped is undecided"
            verdicts.append(Verdict(level, f"{result.label}: {words}: {numbers}."))
        elif comparison.high < 0 and result.test_groups >= FEWEST_GROUPS:
            words = "plain log-mel statistics know more than the encoder"
            verdicts.append(Verdict("warning", f"{result.label}: {words}: {numbers}."))
    return verdicts
