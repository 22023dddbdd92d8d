"""Estimates and answers are right where the truth is known."""

import copy

import numpy as np
import pytest
from scipy import stats

from muq_plugins.evaluation.intervals import seeds_for
from muq_plugins.evaluation.study.numbers import contrast, parse_study, slope_weights
from muq_plugins.evaluation.study.page import answer, answers_table
from tests.unit.evaluation.simulated_study import Simulated, simulate_study

RISING = ["n2", "mel_rvq", "n16"]


def ask(study, measure, kind, experiments, x=()):
    asked = {"question": "?", "measure": measure}
    if kind == "rises":
        return answer(study, {**asked, kind: dict(zip(experiments, x, strict=True))})
    return answer(study, {**asked, kind: experiments[0], "than": experiments[1]})


@pytest.fixture(scope="module")
def study(simulated, parsed):
    return parsed(copy.deepcopy(simulated))


@pytest.mark.parametrize(
    ("measure", "kind", "experiments", "expected"),
    [
        ("probe", "better", ["mel_rvq", "bestrq"], "supported"),
        ("probe", "better", ["bestrq", "mel_rvq"], "refuted"),
        ("probe", "better", ["mel_rvq", "vq"], "refuted"),
        ("probe", "better", ["mel_rvq", "same"], "undecided"),
        ("probe:notes/mode", "better", ["vq", "bestrq"], "supported"),
        ("probe", "rises", RISING, "supported"),
        ("probe", "rises", RISING[::-1], "refuted"),
    ],
)
def test_known_effects_are_found(study, measure, kind, experiments, expected):
    """A true difference is supported, the reverse refuted, no difference undecided."""
    x = [2, 8, 16] if kind == "rises" else ()
    found = ask(study, measure, kind, experiments, x)
    assert found.answer == expected
    assert f"{expected.capitalize()} at this budget: " in found.sentence
    assert "over 3 seeds" in found.numbers


def test_lower_is_better_where_it_is(content, parsed):
    """The loss that is lower is the better one."""
    for run in content["runs"]:
        shift = {"mel_rvq": -0.5, "same": 0.0}.get(run["experiment"], 0.0)
        losses = run["learning"]["cross_entropy"]
        run["learning"]["cross_entropy"] = [loss + shift for loss in losses]
    study = parsed(content)
    pair = ["mel_rvq", "same"]
    assert ask(study, "loss_area", "better", pair).answer == "supported"
    assert ask(study, "loss_area", "better", pair[::-1]).answer == "refuted"
    found = ask(study, "loss_area", "rises", pair, [1, 2])
    assert found.answer == "refuted" and found.found.value > 0
    assert "lower is better" in found.compared


def test_loss_is_not_compared_across_codebook_sizes(study):
    """64 and 512 entries have different losses by nature."""
    found = ask(study, "loss_area", "better", ["mel_rvq", "vq"])
    assert found.answer == "undecided"
    assert found.numbers == "not comparable, as codebooks have 64 and 512 entries"
    assert ask(study, "gain_area", "better", ["mel_rvq", "vq"]).found is not None


def test_curves_of_different_updates_are_not_compared(content, parsed):
    """A curve that starts later has a lower mean."""
    learning = content["runs"][0]["learning"]
    content["runs"][0]["learning"] = {key: v[1:] for key, v in learning.items()}
    found = ask(parsed(content), "gain_area", "better", ["mel_rvq", "same"])
    assert "validated after different updates" in found.numbers


def test_a_missing_run_leaves_its_questions_unfinished(content, parsed):
    """And the others are answered."""
    content["runs"] = [
        run for run in content["runs"] if (run["experiment"], run["seed"]) != ("vq", 2)
    ]
    content["missing"] = [["vq", 2]]
    study = parsed(content)
    found = ask(study, "probe", "better", ["mel_rvq", "vq"])
    assert found.answer == "unfinished"
    assert found.sentence.endswith("Not finished, missing: VQ (seed 2).")
    assert ask(study, "probe", "better", ["mel_rvq", "bestrq"]).answer == "supported"


def test_an_answer_must_withstand_a_correction_for_all_questions(parsed):
    """Holm's: what decides alone may not decide as one of many."""
    truth = {"a": Simulated("A", 0.7), "b": Simulated("B", 0.62)}
    asked = {"question": "Better?", "measure": "probe", "better": "a", "than": "b"}
    content = simulate_study(truth, questions=[asked], seeds=range(5), number=2)
    alone = answer(parsed(content), asked)
    assert alone.answer == "supported" and 0.01 < alone.p < 0.05
    shown = answers_table(parsed(content))
    assert shown.rows[0][1] == "supported"
    # Nothing is known of the others, which leaves them unsure.
    others = [{**asked, "better": "b", "than": "c", "question": str(i)} for i in "1234"]
    content["experiments"]["c"] = {**content["experiments"]["b"], "label": "C"}
    content["missing"] = [["c", 1]]
    content["questions"] = [asked, *others]
    first, *unfinished = answers_table(parsed(content)).rows
    assert first[1] == "undecided"
    assert {row[1] for row in unfinished} == {"unfinished"}
    single, corrected = (float(p[2:]) for p in first[4].split(", "))
    assert corrected == pytest.approx(5 * single, rel=0.1)


def test_a_wide_interval_says_how_many_seeds_it_would_take(content, parsed):
    """As many as make its part small enough, if the test pieces allow it."""
    study = parsed(content)
    wide = ask(study, "probe", "better", ["mel_rvq", "bestrq"])
    assert wide.found.from_groups > 0.015 and wide.more == "more test pieces"
    assert "; ±1.5 would take more test pieces. Compared: " in wide.sentence
    for run in content["runs"]:
        for task in run["probe"].values():
            for score in task.values():  # all clips alike
                score["hits"] = "1" * len(score["hits"])
    wide = ask(parsed(content), "probe", "better", ["mel_rvq", "same"])
    seeds = seeds_for(wide.found, 0.015)
    assert wide.more == f"{seeds} seeds" and seeds > 3
    gain = ask(study, "gain", "better", ["mel_rvq", "bestrq"])
    assert gain.more == "", "not in points"


def test_the_bias_of_the_entropy_is_taken_off_the_gain(content, parsed):
    """And files of before, which do not know it, are still read."""
    before = parsed(content).of("gain", "mel_rvq")
    for run in content["runs"]:
        run["entropy_bias"] = 0.25
    study = parsed(content)
    assert study.of("gain", "mel_rvq") == pytest.approx(before + 0.25)
    entropy = content["runs"][0]["code_entropy"] + 0.25
    assert study.of("code_entropy", "mel_rvq")[0] == pytest.approx(entropy)


def test_one_seed_decides_nothing(parsed):
    """However large the difference."""
    truth = {"a": Simulated("A", 0.95), "b": Simulated("B", 0.3)}
    study = parsed(simulate_study(truth, seeds=[4]))
    for kind in ("better", "less_spread"):
        found = ask(study, "probe", kind, ["a", "b"])
        assert found.answer == "undecided"
        assert "Undecided at this budget: one seed" in found.sentence


def test_spread_is_compared_by_the_f_distribution(parsed):
    """A fifth of the spread is found with nine seeds, its reverse is refuted."""
    truth = {"a": Simulated("A", spread=0.01), "b": Simulated("B", spread=0.2)}
    study = parsed(simulate_study(truth, seeds=range(9), probed=False))
    assert ask(study, "gain", "less_spread", ["a", "b"]).answer == "supported"
    assert ask(study, "gain", "less_spread", ["b", "a"]).answer == "refuted"
    study = parsed(simulate_study(truth, seeds=[1, 2], probed=False))
    found = ask(study, "gain", "less_spread", ["a", "b"])
    assert found.found.value < 0.5 and found.answer == "undecided"


def test_differences_are_paired_by_seed(study):
    """The seeds' part of the interval is that of a paired t test."""
    ours, theirs = (study.of("gain", name) for name in ("mel_rvq", "bestrq"))
    found = contrast(study, "gain", {"mel_rvq": 1.0, "bestrq": -1.0})
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.per_seed == pytest.approx(ours - theirs)
    assert np.isnan(found.from_groups)


def test_both_parts_are_in_the_interval(study):
    """The width is that of a right angle; a second seed alone has no width."""
    found = contrast(study, "probe", {"mel_rvq": 1.0, "bestrq": -1.0})
    half = (found.high - found.low) / 2
    assert half == pytest.approx(np.hypot(found.from_seeds, found.from_groups))
    assert 0 < found.from_groups < 0.2
    assert contrast(study, "probe", {"mel_rvq": 0.0}).from_groups == 0


def test_slope_is_that_of_least_squares(study):
    """Per doubling, over uneven numbers."""
    x, y = [1, 3, 4, 12], [0.2, 0.5, 0.4, 0.9]
    expected = stats.linregress(np.log2(x), y).slope
    assert np.dot(slope_weights(x), y) == pytest.approx(expected)


def test_probe_score_is_the_mean_distance_from_chance(content, parsed):
    """0 at chance, 1 without error, tasks counting the same."""
    run, study = content["runs"][0], parsed(content)
    scores = [
        (run["probe"][name]["trained encoder"]["value"] - task["chance"])
        / (1 - task["chance"])
        for name, task in content["tasks"].items()
    ]
    assert study.of("probe", "mel_rvq")[0] == pytest.approx(np.mean(scores))


def test_areas_are_means_over_updates(content, parsed):
    """Also if validations are not equally far apart."""
    learning = {"updates": [100, 200, 400], "cross_entropy": [4.0, 3.0, 2.0]}
    content["runs"][0]["learning"] = learning
    study = parsed(content)
    loss = study.of("loss_area", "mel_rvq")[0]
    assert loss == pytest.approx((3.5 * 100 + 2.5 * 200) / 300)
    gain = study.of("gain_area", "mel_rvq")[0]
    assert gain == pytest.approx(content["runs"][0]["code_entropy"] - loss)


def test_a_single_validation_makes_no_curve(content, parsed):
    """The question says so, and the others are answered."""
    for run in content["runs"]:
        run["learning"] = {key: v[:1] for key, v in run["learning"].items()}
    found = ask(parsed(content), "loss_area", "better", ["mel_rvq", "same"])
    assert found.answer == "undecided" and "too seldom for a curve" in found.numbers


@pytest.mark.parametrize(("seed_effect", "too_narrow"), [(0.2, 1), (0.0, 0)])
def test_intervals_cover_the_truth(seed_effect, too_narrow):
    """In studies without a difference; seeds alone or pieces alone are not enough."""
    truth = {"a": Simulated("A"), "b": Simulated("B")}
    studies, covered, by_part = 60, 0, [0, 0]
    for number in range(studies):
        content = simulate_study(
            truth, seeds=range(4), pieces=20, seed_effect=seed_effect, number=number
        )
        found = contrast(parse_study(content), "probe", {"a": 1.0, "b": -1.0})
        covered += found.low <= 0 <= found.high
        by_part[0] += abs(found.value) <= found.from_seeds
        by_part[1] += abs(found.value) <= found.from_groups
    assert covered / studies >= 0.91
    assert by_part[too_narrow] / studies < 0.88
