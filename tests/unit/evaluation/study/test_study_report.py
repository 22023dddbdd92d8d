"""The report of a study is complete and made from its JSON alone."""

import json
import re
import shutil

import pytest

from muq_plugins.evaluation.figures import style
from muq_plugins.evaluation.study import study_headline, study_report
from muq_plugins.evaluation.study.page import (
    budget_table,
    budget_verdict,
    codes_table,
    groups_of,
    limits,
    probe_table,
)
from tests.unit.evaluation.simulated_study import Simulated, simulate_study

QUESTIONS = [
    {
        "question": "Is Mel-RVQ better than BEST-RQ?",
        "measure": "probe",
        "better": "mel_rvq",
        "than": "bestrq",
    },
    {
        "question": "Do more codebooks help?",
        "measure": "probe",
        "rises": {"n2": 2, "mel_rvq": 8, "n16": 16},
    },
    {
        "question": "Do seeds matter less?",
        "measure": "loss_area",
        "less_spread": "mel_rvq",
        "than": "bestrq",
    },
]


def without(content, experiment, seeds):
    """Take runs out, as if they had not finished."""
    pairs = [(experiment, seed) for seed in seeds]
    content["runs"] = [
        run for run in content["runs"] if (run["experiment"], run["seed"]) not in pairs
    ]
    content["missing"] += map(list, pairs)


def test_report_is_complete_and_is_rebuilt_from_the_json_alone(
    content, written, tmp_path, monkeypatch, pixels
):
    """All parts are there, all figures exist, and a second report is the same."""
    monkeypatch.setattr(style, "DPI", 30)
    content["groups"] = [
        {"title": "Targets", "experiments": ["mel_rvq", "bestrq"]},
        {
            "title": "Codebooks",
            "x": "codebooks",
            "experiments": {"mel_rvq": 8, "n2": 2},
        },
    ]
    content["questions"] = QUESTIONS
    folder = written(content)
    page = study_report(folder)
    text = (folder / "report.md").read_text("utf-8")
    for part in (
        "# A simulated study",
        "- **good**: all 18 runs had the same budget: 800 updates and 25,600 seconds",
        "- **supported**: Is Mel-RVQ better than BEST-RQ? Supported at this budget: +",
        "## Questions and answers",
        "## Targets: what can be read off the encoders",
        "## Codebooks: layer by layer",
        "## Codebooks: codes and how they are learned",
        "## Was the budget the same?",
        "| corpus/family | acoustic | 4 | 160 | 40 | 25.0 |",
        "As 3 questions are asked, it must also withstand a correction",
        'command: "python recipes/MuQ/ablate.py hparams/studies/study_targets.yaml"',
    ):
        assert part in text
    figures = re.findall(r"!\[[^]]+\]\((.+?)\)", text)
    assert len(figures) == 8 and len(set(figures)) == 8
    assert all((folder / figure).is_file() for figure in figures)
    assert str(tmp_path) not in text
    assert page.read_text("utf-8").count("data:image/png;base64,") == 8

    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(folder / "study.json", other)
    study_report(other)
    for name in ("report.md", "report.html", *figures):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_headline_tells_what_came_out(content, written):
    """The answers are in the terminal too."""
    content["questions"] = QUESTIONS[:1]
    lines = study_headline(written(content))
    assert lines[0] == "runs 18 of 18 (experiments: 6, seeds: 3)"
    assert lines[2].startswith("probe score, base: Mel-RVQ ")
    assert lines[3].startswith("probe score, highest: VQ ")
    assert lines[-1].startswith("supported: Is Mel-RVQ better than BEST-RQ? ")


def test_unequal_budgets_are_a_problem(content, parsed):
    """The verdict comes first and names the run."""
    content["runs"][4]["updates"] = 900
    (first,) = budget_verdict(parsed(content))
    assert first.level == "problem"
    assert "not BEST-RQ with seed 2 (900 updates, 25,600 s)" in first.message
    assert budget_table(parsed(content)).rows[1][2] == "800 or 900"


@pytest.mark.parametrize("lost", [["vq"], ["mel_rvq"], ["n2", "mel_rvq", "n16"]])
def test_unfinished_studies_have_a_report(content, written, lost):
    """Also without the base, or without any run of a group."""
    content["questions"] = QUESTIONS
    for name in lost:
        without(content, name, [1, 2, 3])
    folder = written(content)
    study_report(folder)
    text = (folder / "report.md").read_text("utf-8")
    assert f"- **warning**: not finished, {3 * len(lost)} of 18 runs" in text
    if "n2" in lost:
        assert "## Codebooks\n\nNo run of this group has finished." in text
    if "mel_rvq" in lost:
        assert text.count("- **unfinished**") == 3


def test_a_study_that_has_not_begun_has_a_report(content, written):
    """Which shows that its questions can be read."""
    content["questions"] = QUESTIONS
    for name in content["experiments"]:
        without(content, name, [1, 2, 3])
    content["tasks"] = {}
    lines = study_headline(written(content))
    study_report(written(content))
    assert lines[0] == "runs 0 of 18 (experiments: 6, seeds: 3)"
    assert sum(line.startswith("unfinished: ") for line in lines) == 3


def test_partly_finished_experiments_say_so(content, parsed):
    """And are compared over the seeds that both have."""
    without(content, "vq", [3])
    study = parsed(content)
    row = probe_table(groups_of(study)[0]).rows[2]
    assert row[0] == "VQ (2 of 3 seeds)" and "[" in row[2]
    without(content, "mel_rvq", [1, 2])
    study = parsed(content)
    assert probe_table(groups_of(study)[0]).rows[2][2] == "-"


def test_tables_have_the_numbers_of_the_file(content, parsed):
    """Mean and standard deviation, references, and what has no value."""
    for seed, value in enumerate((0.5, 0.6, 0.7)):
        content["runs"][3 + seed]["cross_entropy"] = 3.0 - value
        content["runs"][3 + seed]["code_entropy"] = 3.0
    study = parsed(content)
    table = codes_table(groups_of(study)[0])
    assert table.rows[1][:3] == ["BEST-RQ", "8 x 64", "0.600\xa0±\xa00.100"]
    assert table.rows[1][-1] == "-", "random projections reconstruct nothing"
    table = probe_table(groups_of(study)[0])
    names = [row[0] for row in table.rows[-3:]]
    assert names == ["untrained encoder", "log-mel statistics", "chance"]
    assert table.rows[-1][1:] == ["0.0", "-", "25.0", "50.0"]
    assert all(len(row) == len(table.header) for row in table.rows)


def test_references_without_hits_have_no_interval(content, parsed):
    """Their scores are shown, their differences are not."""
    for run in content["runs"]:
        for task in run["probe"].values():
            del task["untrained encoder"]["hits"]
    study = parsed(content)
    row = probe_table(groups_of(study)[0]).rows[-3]
    assert row[0] == "untrained encoder" and row[1] != "-" and row[2] == "-"


def test_measures_that_are_asked_for_are_in_the_table(content, parsed):
    """Not between codebooks of different size."""
    content["questions"] = QUESTIONS[2:]
    study = parsed(content)
    table = codes_table(groups_of(study)[0])
    column = table.header.index("Mean cross-entropy (nat)") + 1
    cells = [row[column] for row in table.rows]
    assert cells[0] == "base" and "[" in cells[1] and cells[2] == "-"
    measured = codes_table(groups_of(parsed({**content, "questions": []}))[0])
    assert "Mean cross-entropy (nat)" not in measured.header


def test_studies_without_probes_are_judged_by_the_gain(written, tmp_path):
    """The first questions of a study need no probe."""
    content = simulate_study(
        {"a": Simulated("A"), "b": Simulated("B", gain=0.9)},
        [{"title": "Both", "experiments": ["a", "b"]}],
        [{"question": "Is B better?", "measure": "gain", "better": "b", "than": "a"}],
        probed=False,
    )
    folder = written(content)
    study_report(folder)
    text = (folder / "report.md").read_text("utf-8")
    assert "- **supported**: Is B better? " in text
    assert "| Gain over counting, base: A | **0." in text
    assert "probe" not in text.lower().replace("for probes", "")


def test_one_seed_has_no_intervals(content, written, parsed):
    """And a warning says that nothing is decided."""
    content["seeds"] = [1]
    content["runs"] = [run for run in content["runs"] if run["seed"] == 1]
    content["questions"] = QUESTIONS
    folder = written(content)
    study_report(folder)
    text = (folder / "report.md").read_text("utf-8")
    assert "- **warning**: there is one seed, so nothing can be decided" in text
    assert text.count("Undecided at this budget: one seed") == 3
    assert "p alone, corrected" in text and " p 0" not in text
    assert "±" not in "".join(x for x in text.splitlines() if x.startswith("| VQ |"))


def test_an_interval_wider_than_the_scale_is_no_result(written):
    """Two seeds that are far apart say nothing, wherever they are shown."""
    content = simulate_study(
        {"a": Simulated("A"), "b": Simulated("B", recall=0.75)},
        [{"title": "Both", "experiments": ["a", "b"]}],
        [{"question": "Is B better?", "measure": "probe", "better": "b", "than": "a"}],
        seeds=[1, 2],
        seed_effect=0.3,
        number=1,
    )
    folder = written(content)
    study_report(folder)
    text = (folder / "report.md").read_text("utf-8").replace("\xa0", " ")
    words = "points over 2 seeds, which say nothing: their 95% interval exceeds the"
    assert words in text.partition("## Questions and answers")[0]
    (row,) = [line for line in text.splitlines() if line.startswith("| Is B better? |")]
    assert "| (the seeds say nothing) | - | - | ±" in row and "[" not in row
    parts = text.split("## ")
    (fact,) = [x for x in parts[0].splitlines() if "highest" in x]
    (row,) = [x for x in parts[2].splitlines() if x.startswith("| B |")]
    for shown in (fact, row):
        assert "(the seeds say nothing)" in shown and "[" not in shown


def test_few_pieces_are_warned_of(content, parsed):
    """Four pieces say nothing about other pieces."""
    task = content["tasks"]["notes/mode"]
    task["pieces"] = [piece % 4 for piece in task["pieces"]]
    words = "too few test pieces for intervals that mean something: notes/mode (4)."
    assert [v.message for v in limits(parsed(content))] == [words]


def test_base_is_its_own_base(content, parsed):
    """Its line has no difference."""
    study = parsed(json.loads(json.dumps(content)))
    table = probe_table(groups_of(study)[1])
    assert [row[2] for row in table.rows].count("base") == 1
    assert table.rows[1][2] == "base"
