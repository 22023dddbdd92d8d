"""Has the pre-trained model learned more than to count codes?"""

import numpy as np
import torch

from muq_plugins.evaluation.health.verdict import (
    NOT_VALIDATED,
    Verdict,
    finite_list,
    name_codebooks,
    non_finite_verdicts,
    worst_first,
)
from muq_plugins.evaluation.run_files import select, series
from muq_plugins.lobes import codes
from muq_plugins.lobes.stages import is_at_chance

# What this project asks of a finished pre-training: this far below a counting model.
LEARNED_MARGIN = 0.30
# A gap between training and validation, or a rise from the best validation, as large
# as the margin that counts as learning has eaten that much of it.
OVERFIT_GAP = 0.30
# Training rows are averaged over this many, because one batch says little.
TRAIN_ROWS = 20


def pretrain_verdicts(
    rows: list[dict], code_counts: torch.Tensor | np.ndarray | None = None
) -> list[Verdict]:
    """Judge a pre-training."""
    rows = select(rows, stage="pretrain")
    verdicts = non_finite_verdicts(rows)
    valid = select(rows, kind="valid")
    if not valid:
        return [*verdicts, Verdict("warning", NOT_VALIDATED)]
    if valid[-1].get("cross_entropy") is not None:
        verdicts += _learning_verdicts(valid[-1])
        verdicts += _overfit_verdicts(rows)
    verdicts += _codebook_verdicts(valid[-1])
    if code_counts is not None:
        verdicts += _accuracy_verdicts(valid[-1], code_counts)
    return worst_first(verdicts)


def probe_verdicts(results: list) -> list[Verdict]:
    """Judge whether pre-training has improved the encoder."""
    by_name = {result.name: result for result in results}
    trained = by_name.get("trained encoder")
    untrained = by_name.get("untrained encoder")
    if trained is None or untrained is None:
        return []
    difference, low, high = trained.difference(untrained)
    numbers = (
        f"balanced accuracy {trained.balanced_accuracy:.1%}, the same encoder "
        f"untrained {untrained.balanced_accuracy:.1%} (difference "
        f"{100 * difference:+.1f} points, 95% interval {100 * low:+.1f} to "
        f"{100 * high:+.1f})"
    )
    if low > 0:
        return [Verdict("good", f"pre-training has improved the encoder: {numbers}")]
    if high >= 0:
        return [
            Verdict(
                "warning",
                "the probe cannot tell the trained encoder from the untrained one: "
                f"{numbers}. More training and more test clips may.",
            )
        ]
    return [
        Verdict(
            "problem",
            f"pre-training has made the encoder worse in the probe: {numbers}. Check "
            "the learning rate, and that the probe was given the trained weights.",
        )
    ]


def _learning_verdicts(row: dict) -> list[Verdict]:
    """The loss beside chance, and beside a model that only counts."""
    loss = row["cross_entropy"]
    chance, counting = row.get("chance"), row.get("code_entropy")
    if chance is not None and is_at_chance(loss, chance):
        return [
            Verdict(
                "problem",
                f"the model is stuck at chance: masked cross-entropy {loss:.2f} nat, "
                f"chance is ln V = {chance:.2f}. Check the learning rate and its "
                "warm-up, that the gradient norm is not zero, that the tokenizer is a "
                "trained one, and that the clips are not silent.",
            )
        ]
    if counting is None:
        return []
    margin = counting - loss
    numbers = (
        f"masked cross-entropy {loss:.2f} nat, {abs(margin):.2f} "
        f"{'below' if margin > 0 else 'above'} a counting model ({counting:.2f})"
    )
    if margin <= 0:
        return [
            Verdict(
                "problem",
                "the model has learned the codes' frequencies and nothing else: "
                f"{numbers}. Train longer, or raise the learning rate.",
            )
        ]
    if margin < LEARNED_MARGIN:
        return [
            Verdict(
                "warning",
                f"the model has begun to learn: {numbers}, where {LEARNED_MARGIN:.2f} "
                "below is asked. Train longer.",
            )
        ]
    return [
        Verdict(
            "good",
            f"the model predicts music that it does not hear: {numbers}",
        )
    ]


def _overfit_verdicts(rows: list[dict]) -> list[Verdict]:
    verdicts = []
    steps, valid = series(select(rows, kind="valid"), "cross_entropy")
    _, train = series(select(rows, kind="train"), "cross_entropy")
    train = train[np.isfinite(train)][-TRAIN_ROWS:]
    if train.size and valid[-1] - train.mean() >= OVERFIT_GAP:
        verdicts.append(
            Verdict(
                "warning",
                f"overfitting: cross-entropy {train.mean():.2f} nat in training and "
                f"{valid[-1]:.2f} in validation. Use more music, or fewer steps.",
            )
        )
    best = int(np.nanargmin(valid))
    if valid[-1] - valid[best] >= OVERFIT_GAP:
        verdicts.append(
            Verdict(
                "warning",
                f"validation was best at step {steps[best]} ({valid[best]:.2f} nat) "
                f"and has risen to {valid[-1]:.2f} since. Train for fewer steps.",
            )
        )
    return verdicts


def _codebook_verdicts(row: dict) -> list[Verdict]:
    """Codebooks that are not learned, which the mean over all of them may hide."""
    losses = finite_list(row, "cross_entropy_per_codebook")
    counting = finite_list(row, "code_entropy_per_codebook")
    if not losses or not counting:
        return []
    behind = np.flatnonzero(np.array(losses) >= np.array(counting)).tolist()
    if not behind or len(behind) == len(losses):
        return []
    return [
        Verdict(
            "warning",
            f"{name_codebooks(behind)}: predicted no better than by a counting model, "
            "while others are. Late codebooks are learned last: train longer.",
        )
    ]


def _accuracy_verdicts(row: dict, code_counts) -> list[Verdict]:
    """The accuracy beside that of always guessing the most frequent code."""
    accuracy = np.array(finite_list(row, "accuracy_per_codebook"))
    if not accuracy.size:
        return []
    guessing = codes.most_frequent_share(code_counts).numpy()
    if guessing.size != accuracy.size:
        raise ValueError(
            f"the metrics have {accuracy.size} codebooks, code_counts have "
            f"{guessing.size}: they are not of the same run"
        )
    numbers = (
        f"{accuracy.mean():.1%} of the masked codes are guessed right, "
        f"{guessing.mean():.1%} by always guessing the most frequent code"
    )
    behind = np.flatnonzero(accuracy <= guessing).tolist()
    if behind:
        return [
            Verdict(
                "warning",
                f"{name_codebooks(behind)}: no better guessed than by the most "
                f"frequent code alone. Over all codebooks {numbers}.",
            )
        ]
    return [Verdict("good", f"every codebook is predicted: {numbers}")]
