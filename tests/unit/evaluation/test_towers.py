"""The comparison of encoders as audio towers: numbers, intervals, bad input."""

import json

import pytest

from muq_plugins.evaluation.towers import MEASURES, compare_towers
from muq_plugins.evaluation.zero_shot.scores import save_scores

OTHERS = [("MuQ", "BEST-RQ"), ("MuQ", "Untrained")]


def save_run(folder, value):
    """A run whose every score is the same number."""
    names = [path[-1] for _, path, _ in MEASURES.values()]
    one = dict.fromkeys(names, {"value": value, "low": 0, "high": 1})
    ways = dict.fromkeys(("text to music", "music to text"), one)
    for way in ways:
        ways[way] = {**one, "chance": dict.fromkeys(names, 0.1)}
    tagging = {"en": {**one, "chance": 0.2}}
    folder.mkdir(parents=True)
    save_scores(
        folder,
        {
            **{"clips": 40, "pieces": 20},
            "retrieval": {"en": ways, "zh": ways},
            "tagging": {"instrument": tagging},
        },
    )
    return folder


@pytest.fixture
def runs(tmp_path):
    """A tower that is better, one that is hardly different, and one that is worse."""
    values = {
        "MuQ": (0.50, 0.52, 0.54),
        "BEST-RQ": (0.49, 0.54, 0.53),
        "Untrained": (0.20, 0.21, 0.25),
    }
    return {
        tower: {
            seed: save_run(tmp_path / f"{tower}-{seed}", value)
            for seed, value in enumerate(of_tower, start=1)
        }
        for tower, of_tower in values.items()
    }


def test_what_differs_clearly_is_told_from_what_does_not(runs, tmp_path):
    compare_towers(tmp_path / "out", runs, OTHERS, {"command": "this"})
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| MuQ | 0.52 (0.50 to 0.54) | 52.0% (50.0% to 54.0%)" in text
    assert "| chance | 0.10 | 10.0%" in text
    verdicts = [line for line in text.splitlines() if " against " in line]
    assert len(verdicts) == 4
    for line in verdicts:
        decided = "good" in line.lower() and "undecided" not in line.lower()
        assert decided == ("Untrained" in line), line


def test_the_numbers_of_every_run_are_kept(runs, tmp_path):
    compare_towers(tmp_path / "out", runs, OTHERS, {"command": "this"})
    content = json.loads((tmp_path / "out" / "towers.json").read_text())
    assert content["command"] == "this" and content["pieces"] == 20
    assert len(content["runs"]) == 9
    last = content["runs"][-1]
    assert (last["tower"], last["seed"], last["map_at_10"]) == ("Untrained", 3, 0.25)
    assert content["chance"]["roc_auc"] == 0.5
    assert content["chance"]["average_precision"] == 0.2


def test_one_seed_or_no_spread_decides_nothing(runs, tmp_path):
    one = {tower: {1: of_tower[1]} for tower, of_tower in runs.items()}
    same = {"MuQ": runs["MuQ"], "again": runs["MuQ"]}
    again = [("MuQ", "again")]
    for name, chosen, pairs in (("one", one, OTHERS), ("same", same, again)):
        compare_towers(tmp_path / name, chosen, pairs, {})
        text = (tmp_path / name / "report.md").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if " against " in line]
        assert lines and all("undecided" in line.lower() for line in lines)


def test_what_cannot_be_compared_is_named(runs, tmp_path):
    with pytest.raises(ValueError, match=r"same seeds, got .*'MuQ': \[1, 2, 3\]"):
        compare_towers(tmp_path, {**runs, "x": {1: runs["MuQ"][1]}}, [], {})
    with pytest.raises(ValueError, match="nowhere has no scores: run recipes"):
        compare_towers(tmp_path, {"x": {1: tmp_path / "nowhere"}}, [], {})
    with pytest.raises(ValueError, match="no tower 'MuK' to compare: there are MuQ, "):
        compare_towers(tmp_path, runs, [("MuK", "MuQ")], {})
