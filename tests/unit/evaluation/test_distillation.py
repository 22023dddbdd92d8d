"""What the page of a student says of it beside its teacher."""

import pytest

from muq_plugins.evaluation.distillation import PAGE
from muq_plugins.evaluation.page import write_page


def found(task, *lost, pieces=5):
    """What `compare` finds, of a teacher and a student."""
    row = {"weights": 1e6, "bytes": 4e6, "frames": 0.8, "clips": 0.9, "speed": 50.0}
    row |= {"probe": [0.5, 0.4, 0.6], "lost": lost} if task else {}
    models = [{"name": name, "constant": 0.1, **row} for name in ("teacher", "student")]
    counts = {"clips": 9, "pieces": 8, "task_clips": 7, "task_pieces": pieces}
    about = {"teacher": "mine", "music": "the folder x", "task": task, **counts}
    return {**about, "notes": [], "models": models}


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ((-0.02, -0.03, -0.01), "good: {}2.0 points better{}+1.0 to +3.0"),
        ((0.02, 0.01, 0.03), "warning: {}2.0 points worse{}+1.0 to +3.0"),
        ((-0.02, -0.05, 0.01), "undecided: {}2.0 points better{}-1.0 to +5.0"),
    ],
)
def test_an_interval_is_that_of_what_is_said(lost, said):
    (verdict,) = PAGE.verdicts_of(found("notes", *lost))
    between = "student: notes is read ", " than off the teacher (95% interval "
    assert str(verdict) == said.format(*between) + ")"


def test_few_pieces_say_nothing():
    (verdict,) = PAGE.verdicts_of(found("notes", 0.02, 0.01, 0.03, pieces=4))
    words = "better or worse than off the teacher: the test part has only 4 "
    assert verdict.level == "undecided" and words in verdict.message


@pytest.mark.parametrize("task", ["notes", None])
def test_a_probe_is_told_of_where_there_is_one(tmp_path, task):
    page = write_page(tmp_path, PAGE, found(task, 0.02, 0.01, 0.03), settings="")
    text = page.with_suffix(".md").read_text("utf-8")
    assert "Speed is seconds of audio" in text and "9 clips of 8 pieces" in text
    assert ("robe" in text) == (task is not None)
