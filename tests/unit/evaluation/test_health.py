"""Each verdict appears when it should, and only then."""

import math
from pathlib import Path

import numpy as np
import pytest

from muq_plugins.evaluation.intervals import FEWEST_GROUPS
from muq_plugins.evaluation.page import Verdict
from muq_plugins.evaluation.pages import PAGES
from muq_plugins.evaluation.pages.run import Run
from muq_plugins.evaluation.probing.page import gains
from muq_plugins.evaluation.probing.results import (
    LINEAR,
    TRAINED,
    UNTRAINED,
    Comparison,
    Row,
    TaskResult,
)
from muq_plugins.lobes import ContrastiveViews, LatentRegression

CHANCE = math.log(256)


def verdicts_of(stage, rows, counts=None):
    """What the page of a stage says about rows and counts that never were on a disk."""
    page, measures = PAGES[stage]
    run = Run(Path("nowhere"), stage, measures)
    if counts is not None:  # as at the end of a run
        last = [row for row in rows if row["kind"] == "valid"][-1]
        rows = [*rows, {**last, "kind": "test"}]
    run.__dict__["rows"] = rows
    run.__dict__["arrays"] = {} if counts is None else {"code_counts": counts}
    return page.verdicts_of(run)


def levels(verdicts):
    return [verdict.level for verdict in verdicts]


def valid_row(cross_entropy, **values):
    row = {"kind": "valid", "stage": "pretrain", "step": 100, "code_entropy": 4.8}
    return {**row, "cross_entropy": cross_entropy, "chance": CHANCE, **values}


def train_row(cross_entropy, **values):
    row = {"kind": "train", "stage": "pretrain", "step": 99}
    return {**row, "cross_entropy": cross_entropy, **values}


def warming(*rates):
    rows = [train_row(CHANCE, step=step, lr=lr) for step, lr in enumerate(rates, 1)]
    return [*rows, valid_row(CHANCE)]


@pytest.fixture
def tokenizer_rows(synthetic):
    return synthetic["tokenizer_rows"]()


def test_healthy_runs_are_only_good(synthetic, tokenizer_rows):
    counts = synthetic["code_counts"]()
    first = next(row for row in tokenizer_rows if row["kind"] == "valid")
    first["usage"] = [0.01] * 8  # only the last validation counts
    assert set(levels(verdicts_of("tokenizer", tokenizer_rows, counts))) == {"good"}
    rows = synthetic["pretrain_rows"]()
    assert set(levels(verdicts_of("pretrain", rows, counts))) == {"good"}


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"usage": 0.09}, "problem", "codebook 1 collapsed: 9.0% of its codes are"),
        ({"perplexity": 12.0}, "problem", "codebook 1 collapsed"),  # 5% is 12.8
        ({"perplexity": 13.0}, "good", "the reconstruction error falls with every"),
        ({"usage": 0.55}, "warning", "codebook 1 uses 55.0% of its codes, less than"),
        ({"errors": 0.5}, "warning", "codebook 2 does not lower the reconstruction"),
        ({"errors": 0.4999}, "warning", "codebook 2 does not lower the reconstruct"),
        ({"errors": 0.6}, "warning", "codebook 2 does not lower the reconstruction"),
    ],
)
def test_codes_of_a_tokenizer(tokenizer_rows, changes, level, words):
    ((key, value),) = changes.items()
    if key == "errors":
        errors = [0.8, 0.5, value, 0.3]
        tokenizer_rows[-1]["reconstruction_error_per_level"] = errors
    else:
        tokenizer_rows[-1][key][0] = value
    found = verdicts_of("tokenizer", tokenizer_rows)
    assert [v for v in found if v.level == level][-1].message.startswith(words)
    assert {"good", level} >= set(levels(found))


def test_a_small_sample_is_a_warning(synthetic, tokenizer_rows):
    found = {}
    for frames in (2559, 2560):
        counts = synthetic["code_counts"](frames=frames)
        found[frames] = verdicts_of("tokenizer", tokenizer_rows, counts)
    words = "only 2559 frames were counted for 256 codes"
    assert found[2559][0].message.startswith(words)
    assert levels(found[2559])[0] == "warning" not in levels(found[2560])


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain"])
def test_no_validation_is_a_warning(stage):
    (verdict,) = verdicts_of(stage, [])
    assert verdict.level == "warning" and "no validation yet" in verdict.message


def test_not_finite_is_a_problem(synthetic):
    rows = synthetic["pretrain_rows"]()
    rows[3].update(loss=None, non_finite=["loss", "grad_norm"])
    rows[5].update(loss=None, non_finite=["loss"])
    verdict = verdicts_of("pretrain", rows)[0]
    words = "not finite at step 20: loss, grad_norm, and again in 1 later rows"
    assert verdict.level == "problem" and verdict.message.startswith(words)


COUNTS = [[60, 20, 20], [20, 40, 40]]
PER_CODEBOOK = {
    "cross_entropy_per_codebook": [2.0, 5.0, 5.1],
    "code_entropy_per_codebook": [4.5, 4.9, 5.0],
}
NOT_FINITE = {"non_finite": ["cross_entropy"], "accuracy_per_codebook": [0.1, None]}


@pytest.mark.parametrize(
    ("rows", "counts", "expected", "words"),
    [
        ([valid_row(CHANCE)], None, ["problem"], "the model is stuck"),
        ([valid_row(0.981 * CHANCE)], None, ["problem"], "the model is stuck"),
        ([valid_row(0.979 * CHANCE)], None, ["problem"], "not even learned what"),
        (
            [valid_row(4.8)],
            None,
            ["problem"],
            "what a counting model knows and nothing",
        ),
        ([valid_row(4.6)], None, ["warning"], "0.20 below a counting model (4.80), wh"),
        ([valid_row(4.4)], None, ["good"], "4.40 nat on the validation part, 0.40 bel"),
        (warming(1e-4, 2e-4, 3e-4), None, ["warning"], "too early to judge"),
        (warming(3e-4, 2e-4, 1e-4), None, ["problem"], "the model is stuck"),
        (
            [train_row(0.5 * CHANCE), valid_row(CHANCE)],
            *(None, ["problem", "warning"], "nothing that was learned carries over"),
        ),
        (
            [train_row(3.7), valid_row(4.01)],
            *(
                None,
                ["warning", "good"],
                "masked cross-entropy 3.70 nat in",
            ),
        ),
        ([train_row(3.8), valid_row(4.01)], None, ["good"], "predicts music"),
        (
            [valid_row(3.9, step=50), valid_row(4.3, step=100)],
            *(None, ["warning", "good"], "validation was best at step 50 (3.90 nat)"),
        ),
        (
            [valid_row(4.0, **PER_CODEBOOK)],
            *(None, ["warning", "good"], "codebooks 2 and 3: predicted no better"),
        ),
        (
            [valid_row(4.0, accuracy_per_codebook=[0.5, 0.2])],
            *(COUNTS, ["warning", "good"], "codebooks 1 and 2: no better guessed"),
        ),
        (
            [valid_row(4.0, accuracy_per_codebook=[0.61, 0.41])],
            *(COUNTS, ["good", "good"], "51.0% of the masked codes of the test part a"),
        ),
        (
            [valid_row(1.0, accuracy_per_codebook=[1.0])],
            [[1000] * 6 + [0] * 1018],
            ["warning", "good", "good"],
            "the target: codebook 1 collapsed: 0.6% of its",
        ),
        ([valid_row(None, **NOT_FINITE)], np.ones((2, 4)), ["problem"], "not finite"),
    ],
)
def test_what_a_pretraining_has_learned(rows, counts, expected, words):
    found = verdicts_of("pretrain", rows, None if counts is None else np.array(counts))
    assert levels(found) == expected
    assert any(words in verdict.message for verdict in found)


@pytest.mark.parametrize(
    ("values", "expected", "words"),
    [
        ({}, ["good"], "the model predicts music that it does not hear: masked error"),
        (
            {"rank": 0.05},
            ["problem", "good"],
            "RankMe of the targets 5.0%",
        ),
        (
            {"target_spread": 0.01, "constant_error": 0.01, "error": 0.01},
            ["problem", "problem"],
            "all frames are alike to the teacher. Spread of the targets 0.01 on the "
            "validation part, where at least 0.10 is healthy",
        ),
        ({"prediction_spread": None}, ["good"], "a constant answer (0.60)"),
    ],
)
def test_what_must_not_become_too_bad(values, expected, words):
    row = {"kind": "valid", "stage": "pretrain", "step": 9, "time": 1.0, "error": 0.3}
    row |= {"constant_error": 0.6, "target_spread": 0.7, "prediction_spread": 0.5}
    found = judged(LatentRegression.measures, {**row, "rank": 0.6, **values})
    assert levels(found) == expected
    assert any(words in verdict.message for verdict in found)


def test_what_is_asked_of_a_moving_teacher_makes_no_series():
    row = {"kind": "valid", "stage": "pretrain", "constant_error": 0.9, "rank": 0.6}
    rows = [{**row, "step": step, "error": step / 10} for step in (1, 2, 3, 4)]
    assert levels(judged(LatentRegression.measures, *rows)) == ["good"]
    steady = {
        name: measure._replace(moving=False)
        for name, measure in LatentRegression.measures.items()
    }
    assert levels(judged(steady, *rows)) == ["warning", "good"]


def test_what_is_said_of_clips_that_are_told_apart():
    row = {"kind": "valid", "stage": "pretrain", "step": 9, "time": 1.0}
    (found,) = judged(
        ContrastiveViews.measures,
        {**row, "loss": 1.1, "accuracy": 0.8, "chance": math.log(15)},
    )
    assert found.level == "good"
    assert found.message.startswith(
        "the model tells clips apart: contrastive loss (NT-Xent) 1.10 nat"
    )


def judged(measures, *rows):
    """What is said of the validations of a pre-training with other measures."""
    run = Run(Path("nowhere"), "pretrain", measures)
    run.__dict__.update(rows=list(rows), arrays={})
    return PAGES["pretrain"][0].verdicts_of(run)


def test_problems_come_first(tokenizer_rows):
    tokenizer_rows[-1]["usage"][:2] = [0.5, 0.01]
    expected = ["problem", "warning", "good"]
    assert levels(verdicts_of("tokenizer", tokenizer_rows)) == expected


def test_statements_rest_on_one_part(tokenizer_rows):
    test = dict(tokenizer_rows[-1], kind="test", usage=[0.516] + [0.9] * 7)
    (verdict, *_) = verdicts_of("tokenizer", [*tokenizer_rows, test])
    assert verdict.level == "warning" and "51.6% of its codes" in verdict.message


@pytest.mark.parametrize(
    ("pieces", "difference", "level"),
    [
        (9, (0.2, 0.1, 0.3), "good"),
        (9, (0.2, -0.1, 0.5), "undecided"),
        (9, (-0.1, -0.2, 0.1), "undecided"),
        (9, (-0.1, -0.2, -0.05), "problem"),
        (4, (0.2, 0.1, 0.3), "undecided"),
        (9, (0, 0, 0), "undecided"),
    ],
)
def test_what_a_probe_says_of_a_training(pieces, difference, level):
    rows = [Row(TRAINED, LINEAR, 1, 0.5, 0.4, 0.6, {}, chosen=True)]
    about = "family", "single", "piece", None, "balanced_accuracy", 0.1, ["a", "b"]
    compared = [Comparison(LINEAR, UNTRAINED, *difference)]
    probe = TaskResult(*about, {"test": 9}, pieces, rows, compared)
    (verdict,) = gains([probe])
    assert verdict.level == level
    few = pieces < FEWEST_GROUPS or len({*difference}) == 1
    assert ("points" in verdict.message) == (not few)


def test_verdict_prints_level_and_message():
    assert str(Verdict("good", "fine")) == "good: fine"
