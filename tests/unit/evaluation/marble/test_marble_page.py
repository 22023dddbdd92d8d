"""The page of MARBLE: what its verdicts, tables and radar say."""

from math import isnan

from muq_plugins.evaluation.marble.page import MARBLE, _cell, _way, marble_report
from muq_plugins.evaluation.probing.results import (
    HIDDEN,
    Comparison,
    Row,
    TaskResult,
    save_results,
)


def result(title, value, difference, groups=20):
    """A task on two encoders."""
    rows = [
        Row("ours", HIDDEN, 3, value, value - 0.1, value + 0.1, {}, chosen=True),
        Row("log_mel", HIDDEN, None, 0.1, 0.05, 0.15, {}, chosen=True),
    ]
    about = {
        "title": title,
        "protocol": "corrected",
        "protocol_words": "",
        "encoders": {"ours": [], "log_mel": []},
        "heard": {"ours": [24000, 25.0, 13], "log_mel": [24000, 25.0, 1]},
        "published": [],
        "data": "made up",
        "licence": "none",
        "split": "x",
        "cutting": {"seconds": 30.0},
        "seeds": [0],
        "learning_rates": [1e-3],
    }
    low, high = difference - 0.05, difference + 0.05
    compared = [Comparison(HIDDEN, "log_mel", difference, low, high)]
    sizes = {"train": 2, "valid": 2, "test": 2}
    common = {"kind": "single", "group": None, "level": None, "metric": "accuracy"}
    return TaskResult(
        label=title.lower(),
        chance=0.2,
        classes=["a", "b"],
        clips=sizes,
        test_groups=groups,
        rows=rows,
        comparisons=compared,
        about=about,
        notes=[],
        predictions={},
        **common,
    )


def test_verdicts_are_one_line_for_each_outcome():
    tasks = [result("A", 0.6, 0.1), result("B", 0.6, 0.2), result("C", 0.6, 0.01)]
    tasks += [result("D", 0.6, 0.3, groups=2)]
    below, good, undecided = MARBLE.verdicts_of(tasks)
    assert below.level == "warning" and "D" not in below.message
    assert "answer: A (log_mel 10.0%); B (log_mel 10.0%); C (l" in below.message
    assert good.level == "good" and "better on 2 of 4 tasks" in good.message
    assert "A +10.0 (+5.0 to +15.0); B +20.0" in good.message
    assert "C +1.0 (-4.0 to +6.0); D (too few tested)." in undecided.message


def test_the_way_from_a_constant_answer_to_a_perfect_one(tmp_path, pixels):
    tasks = [result(name, 0.6, 0.1) for name in "ABC"]
    assert _way(tasks[0], "ours") == (0.6 - 0.2) / 0.8
    assert _way(tasks[0], "log_mel") == 0 and isnan(_way(tasks[0], "other"))
    assert _cell(tasks[0], "ours") == "60.0% (50.0% to 70.0%), layer 3"
    assert _cell(tasks[0], "log_mel") == "10.0% (5.0% to 15.0%)"
    few = result("A", 0.6, 0.1, groups=4)
    assert _cell(few, "ours") == "60.0% (too few for an interval), layer 3"
    save_results(tmp_path, tasks)
    marble_report(tmp_path)
    assert (tmp_path / "figures" / "radar.png").stat().st_size > 10_000
    text = (tmp_path / "report.md").read_text()
    assert "| ours | 24000 Hz | 25 Hz | 13 |" in text
    save_results(tmp_path, tasks[:2])
    marble_report(tmp_path)
    assert "radar" not in (tmp_path / "report.md").read_text()
