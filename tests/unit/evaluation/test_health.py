"""Each verdict appears when it should, and only then."""

import math
from pathlib import Path

import numpy as np
import pytest

from muq_plugins.evaluation.page import Verdict
from muq_plugins.evaluation.pages import PAGES
from muq_plugins.evaluation.pages.pretraining import gain_verdict
from muq_plugins.evaluation.pages.run import Run
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    TRAINED,
    UNTRAINED,
    Comparison,
    Row,
    TaskResult,
)

CHANCE = math.log(256)


def verdicts_of(stage, rows, counts=None):
    """What the page of a stage says about rows and counts that never were on a disk."""
    page, module = PAGES[stage]
    run = Run(Path("nowhere"), stage, module.measures)
    run.__dict__["rows"] = rows
    if counts is not None:  # as at the end of a run
        rows = [
            *rows,
            {**[r for r in rows if r["kind"] == "valid"][-1], "kind": "test"},
        ]
        run.__dict__["rows"] = rows
    run.__dict__["arrays"] = {} if counts is None else {"code_counts": counts}
    return page.verdicts_of(run)


def tokenizer_verdicts(rows, counts=None):
    return verdicts_of("tokenizer", rows, counts)


def pretrain_verdicts(rows, counts=None):
    return verdicts_of("pretrain", rows, counts)


def levels(verdicts):
    return [verdict.level for verdict in verdicts]


def only(verdicts, level):
    (found,) = [verdict for verdict in verdicts if verdict.level == level]
    return found.message


def valid_row(cross_entropy, **values):
    return {
        "kind": "valid",
        "stage": "pretrain",
        "step": 100,
        "cross_entropy": cross_entropy,
        "code_entropy": 4.8,
        "chance": CHANCE,
        **values,
    }


def train_row(cross_entropy):
    return {
        "kind": "train",
        "stage": "pretrain",
        "step": 99,
        "cross_entropy": cross_entropy,
    }


@pytest.fixture
def tokenizer_rows(synthetic):
    return synthetic["tokenizer_rows"]()


def test_healthy_runs_are_only_good(synthetic, tokenizer_rows):
    counts = synthetic["code_counts"]()
    assert set(levels(tokenizer_verdicts(tokenizer_rows, counts))) == {"good"}
    rows = synthetic["pretrain_rows"]()
    assert set(levels(pretrain_verdicts(rows, counts))) == {"good"}


def test_low_usage_is_a_collapse(tokenizer_rows):
    tokenizer_rows[-1]["usage"][2] = 0.09
    message = only(tokenizer_verdicts(tokenizer_rows), "problem")
    assert message.startswith("codebook 3 collapsed: 9.0% of its codes are used")


def test_low_perplexity_is_a_collapse(tokenizer_rows):
    tokenizer_rows[-1]["perplexity"][0] = 12.0  # 5% of 256 is 12.8
    message = only(tokenizer_verdicts(tokenizer_rows), "problem")
    assert message.startswith("codebook 1 collapsed") and "perplexity 12.0" in message
    tokenizer_rows[-1]["perplexity"][0] = 13.0
    assert "problem" not in levels(tokenizer_verdicts(tokenizer_rows))


def test_medium_usage_is_a_warning(tokenizer_rows):
    tokenizer_rows[-1]["usage"][7] = 0.55
    message = only(tokenizer_verdicts(tokenizer_rows), "warning")
    assert message.startswith("codebook 8 uses 55.0% of its codes, less than 60%")


def test_only_the_last_validation_counts(tokenizer_rows):
    first = next(row for row in tokenizer_rows if row["kind"] == "valid")
    first["usage"] = [0.01] * 8
    assert set(levels(tokenizer_verdicts(tokenizer_rows))) == {"good"}


@pytest.mark.parametrize("after", [0.5, 0.4999, 0.6])
def test_a_codebook_without_gain_is_a_warning(tokenizer_rows, after):
    tokenizer_rows[-1]["reconstruction_error_per_level"] = [0.8, 0.5, after, 0.3]
    message = only(tokenizer_verdicts(tokenizer_rows), "warning")
    assert message.startswith("codebook 2 does not lower the reconstruction error")


def test_a_small_sample_is_a_warning(synthetic, tokenizer_rows):
    counts = synthetic["code_counts"](frames=2559)
    message = only(tokenizer_verdicts(tokenizer_rows, counts), "warning")
    assert message.startswith("only 2559 frames were counted for 256 codes")
    counts = synthetic["code_counts"](frames=2560)
    assert "warning" not in levels(tokenizer_verdicts(tokenizer_rows, counts))


@pytest.mark.parametrize("judge", [tokenizer_verdicts, pretrain_verdicts])
def test_no_validation_is_a_warning(judge):
    assert "no validation yet" in only(judge([]), "warning")


def test_not_finite_is_a_problem(synthetic):
    rows = synthetic["pretrain_rows"]()
    rows[3].update(loss=None, non_finite=["loss", "grad_norm"])
    rows[5].update(loss=None, non_finite=["loss"])
    message = only(pretrain_verdicts(rows), "problem")
    assert message.startswith(
        "not finite at step 20: loss, grad_norm, and again in 1 later rows"
    )


def test_a_last_validation_that_is_not_finite_does_not_crash():
    row = valid_row(None, non_finite=["cross_entropy"])
    row["accuracy_per_codebook"] = [0.1, None]
    assert levels(pretrain_verdicts([row], np.ones((2, 4)))) == ["problem"]


@pytest.mark.parametrize(
    ("cross_entropy", "level", "words"),
    [
        (CHANCE, "problem", "stuck at chance"),
        (0.981 * CHANCE, "problem", "stuck at chance"),
        (0.979 * CHANCE, "problem", "not even learned how often each code occurs"),
        (4.8, "problem", "the codes' frequencies and nothing else"),
        (
            4.6,
            "warning",
            "on the validation part, 0.20 below a counting model (4.80), where",
        ),
        (
            4.4,
            "good",
            "4.40 nat on the validation part, 0.40 below a counting model (4.80)",
        ),
    ],
)
def test_loss_against_chance_and_counting(cross_entropy, level, words):
    verdicts = pretrain_verdicts([valid_row(cross_entropy)])
    assert levels(verdicts) == [level]
    assert words in verdicts[0].message


def test_overfitting():
    rows = [train_row(3.7), valid_row(4.01)]
    assert only(pretrain_verdicts(rows), "warning").startswith("overfitting")
    rows = [train_row(3.8), valid_row(4.01)]
    assert levels(pretrain_verdicts(rows)) == ["good"]


def test_rising_validation():
    rows = [valid_row(3.9, step=50), valid_row(4.3, step=100)]
    message = only(pretrain_verdicts(rows), "warning")
    assert message.startswith("validation was best at step 50 (3.90 nat)")


def test_codebooks_hidden_by_the_mean():
    row = valid_row(
        4.0,
        cross_entropy_per_codebook=[2.0, 5.0, 5.1],
        code_entropy_per_codebook=[4.5, 4.9, 5.0],
    )
    message = only(pretrain_verdicts([row]), "warning")
    assert message.startswith("codebooks 2 and 3: predicted no better")


def test_accuracy_beside_guessing():
    row = valid_row(4.0, accuracy_per_codebook=[0.5, 0.2])
    counts = np.array([[60, 20, 20], [20, 40, 40]])
    message = only(pretrain_verdicts([row], counts), "warning")
    assert message.startswith("codebooks 1 and 2: no better guessed")
    row["accuracy_per_codebook"] = [0.61, 0.41]
    verdicts = pretrain_verdicts([row], counts)
    assert levels(verdicts) == ["good", "good"]
    assert (
        "51.0% of the masked codes of the test part are guessed right, 50.0%"
        in verdicts[1].message
    )


def test_problems_come_first(tokenizer_rows):
    tokenizer_rows[-1]["usage"][:2] = [0.5, 0.01]
    assert levels(tokenizer_verdicts(tokenizer_rows)) == ["problem", "warning", "good"]


def test_a_run_in_its_warm_up_is_not_judged():
    rising = [train_row(CHANCE) | {"step": i, "lr": i * 1e-4} for i in (1, 2, 3)]
    verdicts = pretrain_verdicts([*rising, valid_row(CHANCE)])
    assert levels(verdicts) == ["warning"]
    assert "too early to judge" in verdicts[0].message
    falling = [row | {"lr": 1e-4 / row["step"]} for row in rising]
    assert levels(pretrain_verdicts([*falling, valid_row(CHANCE)])) == ["problem"]


def test_statements_rest_on_one_part(tokenizer_rows):
    test = dict(tokenizer_rows[-1], kind="test", usage=[0.516] + [0.9] * 7)
    message = only(tokenizer_verdicts([*tokenizer_rows, test]), "warning")
    assert "51.6% of its codes" in message


def test_a_target_that_hardly_varies_is_named():
    counts = np.zeros((1, 1024))
    counts[0, :6] = 1000
    row = valid_row(1.0, accuracy_per_codebook=[0.9])
    found = [v.message for v in pretrain_verdicts([row], counts)]
    assert any("the target: codebook 1 collapsed: 0.6% of its" in m for m in found)


@pytest.mark.parametrize(
    ("difference", "level"),
    [
        ((0.2, 0.1, 0.3), "good"),
        ((0.2, -0.1, 0.5), "warning"),
        ((-0.1, -0.2, 0.1), "warning"),
        ((-0.1, -0.2, -0.05), "problem"),
    ],
)
def test_probe_verdict(difference, level):
    assert gain_verdict(*final_probe(difference)).level == level


def final_probe(gain, pieces=9):
    rows = [Row(TRAINED, LINEAR, 1, 0.5, 0.4, 0.6, {}, chosen=True)]
    about = "family", "single", "piece", None, "balanced_accuracy", 0.1, ["a", "b"]
    return TaskResult(*about, {"test": 9}, pieces, rows), Comparison(
        LINEAR, UNTRAINED, *gain
    )


@pytest.mark.parametrize(("pieces", "gain"), [(4, (0.2, 0.1, 0.3)), (9, (0, 0, 0))])
def test_a_probe_on_too_few_pieces_says_nothing(pieces, gain):
    verdict = gain_verdict(*final_probe(gain, pieces))
    assert verdict.level == "undecided" and "points" not in verdict.message


def test_verdict_prints_level_and_message():
    assert str(Verdict("good", "fine")) == "good: fine"
