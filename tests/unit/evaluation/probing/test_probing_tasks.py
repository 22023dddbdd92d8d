"""Tasks: classes that can be learned and tested, parts that share no group."""

import numpy as np
import pytest

from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.tasks import (
    ProbeTask,
    make_tasks,
    stopping_clips,
    task_data,
)


def make_clips(labels, groups=None, parts=None):
    """Clips with the label x and the group g."""
    groups = groups or [str(index) for index in range(len(labels))]
    parts = parts or [None] * len(labels)
    return [
        Clip(str(index), "", 1.0, part, {"x": label, "g": group})
        for index, (label, group, part) in enumerate(
            zip(labels, groups, parts, strict=True)
        )
    ]


PARTS = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3


def test_parts_that_are_given_are_kept():
    clips = make_clips(list("ababababbbba"), parts=PARTS)
    data = task_data(ProbeTask("x"), clips)
    assert data.classes == ["a", "b"] and not data.notes
    assert data.parts["valid"].tolist() == [6, 7, 8]
    assert data.targets["test"].tolist() == [1, 1, 0]


def test_classes_that_training_lacks_are_left_out_and_noted():
    clips = make_clips(list("ababacabdbda"), parts=PARTS)
    data = task_data(ProbeTask("x"), clips)
    assert data.classes == ["a", "b"]
    assert data.parts["train"].tolist() == [0, 1, 2, 3, 4]
    assert data.parts["test"].tolist() == [9, 11]
    assert "c, d" in data.notes[0]


def test_ignored_and_missing_labels_are_no_classes():
    labels = ["a", "b", "mixed", "a", "b", "mixed", None, "a", "b", "", "b", "a"]
    clips = make_clips(labels, parts=PARTS)
    data = task_data(ProbeTask("x", ignore=["mixed"]), clips)
    assert data.classes == ["a", "b"]
    found = {part: places.tolist() for part, places in data.parts.items()}
    assert found == {"train": [0, 1, 3, 4], "valid": [7, 8], "test": [10, 11]}


def test_clips_without_features_are_left_out():
    clips = make_clips(list("ab") * 20)
    usable = np.ones(40, dtype=bool)
    usable[7] = False
    data = task_data(ProbeTask("x"), clips, usable)
    assert 7 not in np.concatenate(list(data.parts.values()))
    assert data.notes == ["Left out: 1 of 40 clips could not be read; see the log."]


def test_several_labels_become_zeros_and_ones():
    labels = [[1, 2], [1], [2], [1, 2], [3], [], [1], [2], [1], [1, 2], [2], [3]]
    data = task_data(ProbeTask("x", "multi"), make_clips(labels, parts=PARTS))
    assert data.classes == ["1", "2"]
    assert data.targets["test"].tolist() == [[1, 1], [0, 1], [0, 0]]
    assert len(data.parts["train"]) == 6  # one without any label is an example too


def test_cells_with_several_labels_are_split():
    labels = ["a; b", "a", "b", "a;b", "b", "a", "a", "b", "a;b", "a", "b", "a"]
    data = task_data(ProbeTask("x", "multi"), make_clips(labels, parts=PARTS))
    assert data.targets["train"][:2].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("groups", [2, 4, 7])
def test_no_group_is_in_two_parts(groups):
    labels = [["a", "b"][index // 3 % 2] for index in range(84)]
    names = [f"group {index % groups}" for index in range(84)]
    data = task_data(ProbeTask("x", group="g"), make_clips(labels, names))
    found = {part: set(groups) for part, groups in data.groups.items()}
    assert not found["test"] & (found["train"] | found["valid"])
    if groups >= 5:
        assert not found["train"] & found["valid"]
    else:
        assert "every fifth" in data.notes[-1] and len(data.parts["valid"])


def test_groups_in_several_given_parts_are_told(caplog):
    groups = list("pppqqqpqrsst")
    data = task_data(
        ProbeTask("x", group="g"), make_clips(list("ab") * 6, groups, PARTS)
    )
    assert data.parts["valid"].tolist() == [6, 7, 8]  # which are kept
    (note,) = data.notes
    assert "2 of 5 values of 'g' are in several of the parts that are given" in note
    assert "'p' in train and valid" in note and note in caplog.text
    assert not task_data(
        ProbeTask("x"), make_clips(list("ab") * 6, groups, PARTS)
    ).notes


def test_whole_groups_decide_when_to_stop():
    """As far as there are five of a class."""
    labels, groups = list("aabb") * 12, [str(index // 4) for index in range(48)]
    parts = ["train"] * 40 + ["test"] * 8
    for by_class in (False, True):
        of = [g + x * by_class for g, x in zip(groups, labels, strict=True)]
        data = task_data(ProbeTask("x", group="g"), make_clips(labels, of, parts))
        assert not set(data.groups["train"]) & set(data.groups["valid"])
        assert set(data.targets["valid"]) == {0, 1} and len(data.parts["valid"]) == 8


def test_every_fifth_clip_of_a_class_decides_when_to_stop():
    labels = {i: ["a" if i < 5 else "b"] for i in range(6)}
    groups = {i: str(i) for i in range(6)}
    found = stopping_clips(list(range(6)), labels, groups)
    assert found == ([0, 1, 2, 3, 5], [4])


def test_a_split_by_group_keeps_what_can_be_learned_and_tested():
    # "a" and "b" are in two libraries each, of which one has most classes.
    labels = list("abcdefg") * 5 + list("aaa") + list("bbb")
    groups = ["big"] * 35 + ["small a"] * 3 + ["small b"] * 3
    data = task_data(ProbeTask("x", group="g"), make_clips(labels, groups))
    assert set(data.groups["test"]) == {"small a", "small b"}
    assert [data.classes[n] for n in np.unique(data.targets["test"])] == ["a", "b"]


def test_the_same_seed_gives_the_same_parts():
    clips = make_clips(list("ab") * 30)
    first, again, other = (task_data(ProbeTask("x"), clips, seed=s) for s in (1, 1, 2))
    assert first.parts["test"].tolist() == again.parts["test"].tolist()
    assert first.parts["test"].tolist() != other.parts["test"].tolist()


@pytest.mark.parametrize(
    ("task", "labels", "groups", "message"),
    [
        (
            ProbeTask("y"),
            list("ab") * 5,
            None,
            r"the label 'y'\. There are: g",
        ),
        (ProbeTask("x", group="h"), list("ab") * 5, None, r"the label 'h'\. There"),
        (ProbeTask("x"), list("aaaa"), None, "one class only: 'a' on all 4 clips"),
        (ProbeTask("x"), ["", None], None, "No usable clip has the label 'x'"),
        (ProbeTask("x", group="g"), list("ab") * 5, ["s"] * 10, "the same 'g', 's'"),
        (ProbeTask("x", group="g"), list("aabb"), list("ppqq"), "of another 'g'"),
        (ProbeTask("x", group="g"), list("abab"), ["p", "p", "", "q"], "have no 'g'"),
        (ProbeTask("x"), list("abab"), None, r"tested on others\. Add clips\.$"),
        (ProbeTask("x"), list("1234567"), None, r"Add clips\. Numbers .*own\.yaml"),
    ],
)
def test_mistakes(task, labels, groups, message):
    with pytest.raises(ProbeError, match=message):
        task_data(task, make_clips(labels, groups))


def test_what_is_ignored_is_compared_as_text(caplog):
    task = ProbeTask("x", ignore=[1, "c"])
    data = task_data(task, make_clips(["1", "2", "3"] * 9))
    assert data.classes == ["2", "3"]
    assert data.notes == ["Ignored, but no clip has it: c."]
    assert data.notes[0] in caplog.text


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "at least one label"),
        ([{"label": "a"}, {"label": "a"}], "each once"),
        ([{"lable": "a"}], "mapping with the key label"),
        (["a"], "mapping with the key label"),
        ([{"label": "a", "kind": "many"}], "kind 'many'.* single, multi"),
        ([{"label": "a", "level": "high"}], "level 'high'"),
        ([{"label": "a", "kind": "numbers"}], r"Numbers .*marble/own\.yaml"),
        ([{"label": "a", "ignore": "b"}], r"ignore: 'b': .* such as \[b\]"),
        ([{"label": "a", "ignore": None}], "ignore: None: it must be a list"),
        ([{"label": "a/b"}, {"label": "a b"}], r"kept in a_b\.npz"),
        (None, "must be a list of tasks, got None"),
    ],
)
def test_wrong_lists_of_tasks(tasks, message):
    with pytest.raises(ProbeError, match=message):
        make_tasks(tasks, None)


def test_the_group_of_a_task_comes_first():
    tasks = make_tasks([{"label": "a"}, {"label": "b", "group": None}], "piece")
    assert [task.group for task in tasks] == ["piece", None]


def test_given_parts_that_leave_nothing_to_test():
    clips = make_clips(list("aaabababbaaa"), parts=PARTS)
    with pytest.raises(ProbeError, match=r"too few classes .*: \['a'\]"):
        task_data(ProbeTask("x"), clips)
