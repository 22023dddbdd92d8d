"""`study.json` is read as it is, or refused with the file and the key."""

import copy

import numpy as np
import pytest

from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing.tasks import ProbeTask
from muq_plugins.evaluation.study.numbers import (
    along,
    check_study,
    read_study,
)


def change(content, place, value):
    """Put a value into nested lists and mappings; None takes it out."""
    *parents, last = place
    for key in parents:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


PROBE = ("runs", 2, "probe", "corpus/family", "trained encoder")
QUESTION = {"question": "Is it?", "measure": "probe", "better": "vq", "than": "bestrq"}


def test_everything_in_the_file_is_in_the_study(content, written):
    """Names, order and numbers survive."""
    content["questions"] = [QUESTION, {**QUESTION, "measure": "probe:notes/mode"}]
    study = read_study(written(content))
    assert study.names == list(content["experiments"])
    assert along(study.about["groups"][1]["experiments"]) == ["n2", "mel_rvq", "n16"]
    raw, row = content["runs"][3], study.rows(["bestrq"])[0]
    assert study.runs["bestrq", 1] == raw
    for name in ("updates", "accuracy", "training_seconds"):
        assert study.values[name][row, 0] == raw[name]
    assert np.isnan(study.values["tokenizer_seconds"][row, 0])
    score = raw["probe"]["notes/mode"]["trained encoder"]
    assert study.values["notes/mode"][row, 0] == score["value"]
    assert study.about["missing"] == []


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), 3, r"format must be one of \(1, 2\), .* got 3"),
        (("title",), None, "the file has no key 'title'"),
        (("base",), "muq", "base must be one of the experiments mel_rvq, .*'muq'"),
        (("runs", 2, "accuracy"), None, "runs.2. has no key 'accuracy'"),
        ((*PROBE, "hits"), None, "trained encoder has no key 'hits'"),
        (("runs",), {}, "runs must be a list, got {}: run the study again"),
        (PROBE, None, "family has no key 'trained encoder'"),
        (("groups", 0, "x"), "codebooks", "experiments must be an object, got"),
        (("groups", 0, "titel"), "x", "groups.0..titel is not known; .* title"),
        (("groups", 1, "experiments"), {"n3": 3}, "must be one of the experiments"),
        (
            ("groups", 1, "experiments"),
            {},
            "must be experiments, or the number of each",
        ),
        (("groups", 0, "experiments"), [], "must be experiments, or"),
        (("experiments", "vq", "label"), "Mel-RVQ", "with different labels"),
    ],
)
def test_what_does_not_fit_is_refused(content, written, place, value, message):
    """The error names the file, the key and the value."""
    change(content, place, value)
    with pytest.raises(UserError, match=f"study.json: .*{message}"):
        read_study(written(content))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"better": None}, "with one of 'better', 'rises' and 'less_spread'"),
        ({"rises": {"n2": 2, "n16": 16}}, "with one of 'better', 'rises'"),
        ({"than": "vq"}, "than must be another experiment than 'better'"),
        ({"then": "vq"}, "then is not known"),
        ({"measure": "porbe"}, "measure must be one of probe, notes, gain,"),
        ({"better": None, "than": None, "rises": {"n2": 2}}, "two different numbers"),
        (
            {"better": None, "than": None, "rises": {"n2": 0, "vq": 1}},
            "n2 must be a number above 0",
        ),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(
    content, written, question, message
):
    """A question has one form, known experiments and a known measure."""
    asked = {**QUESTION, **question}
    content["questions"] = [{k: v for k, v in asked.items() if v is not None}]
    with pytest.raises(UserError, match=f"study.json: questions.0..*{message}"):
        read_study(written(content))


def test_a_file_that_was_cut_off_is_refused(content, written):
    """The error says how to get a new one."""
    folder = written(content)
    path = folder / "study.json"
    path.write_text(path.read_text("utf-8")[:-100], "utf-8")
    with pytest.raises(UserError, match="study.json is damaged .*run the study again"):
        read_study(folder)
    path.unlink()
    with pytest.raises(UserError, match="has not been collected"):
        read_study(folder)


HPARAMS = {
    **{"title": "X", "base": "bestrq", "budget": {}, "probes": {"notes": {}}},
    "experiments": {
        name: {"label": name, "experiment": "muq.yaml"} for name in ("vq", "bestrq")
    },
    "groups": [{"title": "All", "experiments": ["vq", "bestrq"]}],
    "questions": [QUESTION, {**QUESTION, "measure": "probe:notes/key"}],
}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("title",), None, "the file has no key 'title'"),
        (("base",), "muq", "base must be one of the experiments vq, bestrq, got 'muq'"),
        (("experiments", "vq", "label"), None, "experiments.vq has no key 'label'"),
        (("groups", 0, "experiments"), ["v"], "experiments must be one of .* got 'v'"),
        (("questions", 0, "than"), "muq", "than must be one of the experiments"),
        (
            ("questions", 0, "measure"),
            "porbe",
            "must be one of gain, .*'porbe'",
        ),
        (("questions", 0, "measure"), "map_at_10", "which this study can measure, got"),
        (("questions", 0, "measure"), "probe:corpus/key", "probe:notes/, which this"),
        (("probes",), {}, "measure must be one of gain, .* got 'probe'"),
    ],
)
def test_what_could_not_be_answered_is_refused_before_it_runs(place, value, message):
    """With the file that was written, and where in it."""
    hparams = copy.deepcopy(HPARAMS)
    check_study(hparams, "study_x.yaml")
    change(hparams, place, value)
    with pytest.raises(UserError, match=f"study_x.yaml: .*{message}"):
        check_study(hparams, "study_x.yaml")


def test_labels_with_several_classes_are_refused():
    """Hits are kept of one class a clip."""
    hparams = {**HPARAMS, "probes": {"notes": {"experiment": "probe.yaml"}}}
    tasks = [ProbeTask("key"), ProbeTask("tags", "multi")]
    with pytest.raises(UserError, match="notes: .* tags has several: take it out"):
        check_study(hparams, "study_x.yaml", lambda about: tasks)


def test_notes_can_be_asked_for_where_they_are_probed():
    """By that name, whatever the name of the probe."""
    hparams = copy.deepcopy(HPARAMS)
    hparams["questions"] = [{**QUESTION, "measure": "notes"}]
    known, lacking = [ProbeTask("notes", "frames")], [ProbeTask("key")]
    hparams["probes"] = {"corpus": {"experiment": "probe.yaml"}}
    check_study(hparams, "study_x.yaml", lambda about: known)
    with pytest.raises(UserError, match="must be one of gain, .* got 'notes'"):
        check_study(hparams, "study_x.yaml", lambda about: lacking)


def test_towers_have_measures_of_their_own():
    """What is found by text, and nothing of codes."""
    hparams = copy.deepcopy(HPARAMS)
    hparams["probes"] = None
    for wanted in hparams["experiments"].values():
        wanted["script"] = "train_mulan.py"
    for question in hparams["questions"]:
        question["measure"] = "roc_auc"
    check_study(hparams, "study_x.yaml")
    hparams["questions"][1]["measure"] = "gain"
    with pytest.raises(UserError, match="questions.1..measure must be one of map_at"):
        check_study(hparams, "study_x.yaml")
