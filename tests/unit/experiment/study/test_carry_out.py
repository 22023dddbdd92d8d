"""Carrying out a study, with scripts that only note that they ran."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from muq_plugins.errors import UserError
from muq_plugins.experiment import runner
from muq_plugins.experiment.plan import Command, PlannedRun
from muq_plugins.experiment.run_folder import LOCK
from muq_plugins.experiment.runner import (
    FINISHED_FILE,
    carry_out,
    is_finished,
    is_recorded,
    record_of,
    study_command,
)

NOTE = """
import os, sys, time
if lock := os.environ.get("LOCK"):  # as a training does
    from muq_plugins.files import locked
    held = locked(*lock.split(":"), wait=False)
    assert held.__enter__()
with open(sys.argv[1], "a") as file:
    file.write(f"{sys.argv[2]} {sys.argv[4]}\\n")
time.sleep(float(os.environ.get("SLEEP", 0)))
if sys.argv[2] == "bad":
    sys.exit("this is wrong")
"""


@pytest.fixture
def recipes(tmp_path):
    """A folder with one script."""
    (tmp_path / "note.py").write_text(NOTE)
    return tmp_path


def make_run(folder, name, commands=("train", "probe"), seed=1):
    """A run whose commands note their names in one file."""
    return PlannedRun(
        name,
        seed,
        folder / f"{name}-{seed}",
        folder / "records" / f"{name}-{seed}.json",
        {"seed": seed},
        [
            Command(c, "note.py", [str(folder / "notes"), f"{name}-{c}"], "1ec3")
            for c in commands
        ],
    )


def found(run):
    """What there is to record of a run."""
    return {"numbers": {"loss": 0.5}, "where": run.folder.name}


def notes(folder):
    """What the scripts have noted: name and device."""
    path = folder / "notes"
    return path.read_text().splitlines() if path.is_file() else []


def test_everything_runs_once_and_in_order(recipes):
    runs = [make_run(recipes, "a"), make_run(recipes, "b")]
    said = []
    assert carry_out(runs, recipes, ["cpu"], found, said.append) == []
    expected = ["a-train cpu", "a-probe cpu", "b-train cpu", "b-probe cpu"]
    assert notes(recipes) == expected
    assert carry_out(runs, recipes, ["cpu"], found, said.append) == []
    assert notes(recipes) == expected
    assert len(said) == 8 and said[0] == "a, seed 1: train on cpu ..."


def test_devices_work_side_by_side(recipes, monkeypatch):
    monkeypatch.setenv("SLEEP", "0.5")
    runs = [make_run(recipes, name, ["train"]) for name in "abcd"]
    carry_out(runs, recipes, ["cuda:0", "cuda:1"], found, lambda line: None)
    assert sorted(note.split()[1] for note in notes(recipes)[:2]) == [
        "cuda:0",
        "cuda:1",
    ]
    assert len(notes(recipes)) == 4


def test_a_failure_leaves_its_later_commands_out_and_no_others(recipes):
    bad = make_run(recipes, "a")
    bad.commands[0].arguments[1] = "bad"
    good = make_run(recipes, "b")
    [failure] = carry_out([bad, good], recipes, ["cpu"], found, lambda line: None)
    assert failure.command.name == "train"
    assert "this is wrong" in failure.log.read_text()
    assert notes(recipes) == ["bad cpu", "b-train cpu", "b-probe cpu"]
    assert not is_finished(bad, bad.commands[0])


def test_what_cannot_be_recorded_is_a_failure_and_others_go_on(recipes):
    def damaged(run):
        if run.experiment == "a":
            raise KeyError("cross_entropy")
        return found(run)

    runs, said = [make_run(recipes, name) for name in "ab"], []
    [failure] = carry_out(runs, recipes, ["cpu"], damaged, said.append)
    assert failure.run.experiment == "a" and is_recorded(runs[1])
    assert "a, seed 1 FAILED: KeyError: 'cross_entropy'" in said


def with_inputs(run, *inputs):
    """The run, to be carried out after others."""
    return dataclasses.replace(run, inputs=inputs)


def test_a_run_waits_until_its_inputs_are_trained(recipes, monkeypatch):
    monkeypatch.setenv("SLEEP", "0.3")
    teacher, other = make_run(recipes, "a", ["train"]), make_run(recipes, "c")
    student = with_inputs(make_run(recipes, "b", ["train"]), teacher)
    devices = ["cuda:0", "cuda:1"]
    assert carry_out([teacher, student, other], recipes, devices, found, str) == []
    order = [note.split()[0] for note in notes(recipes)]
    # The second device did not wait for the teacher, but took what was ready.
    assert order.index("a-train") < order.index("b-train")
    assert order.index("c-train") < order.index("b-train")


def test_what_a_failed_run_is_the_input_of_is_left_out_and_named(recipes):
    teacher = make_run(recipes, "a")
    teacher.commands[0].arguments[1] = "bad"
    student = with_inputs(make_run(recipes, "b"), teacher)
    said = []
    [failure] = carry_out([teacher, student], recipes, ["cpu"], found, said.append)
    assert failure.run is teacher and notes(recipes) == ["bad cpu"]
    assert said[-1] == (
        f"b, seed 1 left out: it needs the run of a in {teacher.folder}"
    )


def test_a_run_that_cannot_be_started_stops_no_other(recipes):
    (recipes / "a-1").write_text("a file where the run's folder should be")
    runs, said = [make_run(recipes, "a"), make_run(recipes, "b", ["train"])], []
    [failure] = carry_out(runs, recipes, ["cpu"], found, said.append)
    assert failure.run is runs[0] and notes(recipes) == ["b-train cpu"]
    assert said[0].startswith("a, seed 1 FAILED: ") and "a-1" in said[0]


def test_only_a_changed_command_runs_again(recipes):
    run = make_run(recipes, "a")
    carry_out([run], recipes, ["cpu"], found, lambda line: None)
    path = run.folder / FINISHED_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "probe": "old"}))
    run.record.unlink()
    carry_out([run], recipes, ["cpu"], found, lambda line: None)
    assert notes(recipes) == ["a-train cpu", "a-probe cpu", "a-probe cpu"]


def test_the_answer_to_another_question_makes_room(recipes):
    run = make_run(recipes, "a")
    assert carry_out([run], recipes, ["cpu"], found, say=str) == []
    old = run.folder / "probes" / "probe" / "scores.json"
    old.parent.mkdir(parents=True)
    old.touch()
    run.commands[1] = dataclasses.replace(run.commands[1], key="2f00")
    assert carry_out([run], recipes, ["cpu"], found, say=str) == []
    assert not old.exists() and (run.folder / "finished.json").exists()


def test_a_recorded_run_needs_no_folder(recipes):
    run, other = make_run(recipes, "a"), make_run(recipes, "b")
    assert not is_recorded(run)
    carry_out([run], recipes, ["cpu"], found, say=str)
    assert is_recorded(run) and not is_recorded(other)
    shutil.rmtree(run.folder)
    carry_out([run, other], recipes, ["cpu"], found, say=str)
    once = ["a-train cpu", "a-probe cpu", "b-train cpu", "b-probe cpu"]
    assert notes(recipes) == once
    assert json.loads(run.record.read_text()) == {
        **{"format": 1, "experiment": "notes", "settings": {"seed": 1}},
        "commands": {"train": "1ec3", "probe": "1ec3"},
        **{"numbers": {"loss": 0.5}, "where": "a-1"},
    }
    # Another probe is another question.
    asked = dataclasses.replace(run.commands[1], key="2f00")
    assert not is_recorded(dataclasses.replace(run, commands=[run.commands[0], asked]))


def asked(run, **keys):
    """The run of a study whose probes are these, by name, and their settings."""
    train, probe = run.commands
    probes = [dataclasses.replace(probe, name=n, key=key) for n, key in keys.items()]
    return dataclasses.replace(run, commands=[train, *probes])


@pytest.mark.parametrize("other", [{"probe": "2f00"}, {"notes": "1ec3"}])
def test_studies_with_other_probes_leave_each_other_their_records(recipes, other):
    """Scores of others would be lost, and what they have finished be trained again."""
    first = make_run(recipes, "a")
    second = asked(first, **other)
    for run in (first, second):
        carry_out([run], recipes, ["cpu"], found, say=str)
    assert is_recorded(first) and is_recorded(second)
    assert record_of(first) == first.record != record_of(second)
    shutil.rmtree(first.folder)
    (recipes / "notes").unlink()
    for run in (first, second):
        carry_out([run], recipes, ["cpu"], found, say=str)
    assert notes(recipes) == []
    # Also without the other's, whose place none takes that is there already.
    first.record.unlink()
    assert is_recorded(second) and not is_recorded(first)


def test_a_study_that_asks_more_adds_to_the_record(recipes):
    more = make_run(recipes, "a")
    less, none = asked(more, probe="1ec3"), asked(more)
    more = asked(more, probe="1ec3", notes="1ec3")
    for run in (none, less, more):
        carry_out([run], recipes, ["cpu"], found, say=str)
    assert all(record_of(run) == more.record for run in (none, less, more))
    assert all(map(is_recorded, (none, less, more)))
    assert notes(recipes) == ["a-train cpu", "a-probe cpu", "a-probe cpu"]


def test_a_run_that_ended_before_its_record_was_written_is_recorded(recipes):
    run = make_run(recipes, "a")
    carry_out([run], recipes, ["cpu"], found, say=str)
    run.record.unlink()
    carry_out([run], recipes, ["cpu"], found, say=str)
    assert is_recorded(run) and notes(recipes) == ["a-train cpu", "a-probe cpu"]


def test_a_recorded_run_whose_model_is_needed_is_trained_again(recipes):
    first, teacher = make_run(recipes, "a"), make_run(recipes, "b")
    teacher = with_inputs(teacher, first)
    carry_out([first, teacher], recipes, ["cpu"], found, say=str)
    record = teacher.record.read_bytes()
    for run in (first, teacher):
        shutil.rmtree(run.folder)
    (recipes / "notes").unlink()
    student, said = with_inputs(make_run(recipes, "c"), teacher), []
    carry_out([first, teacher, student], recipes, ["cpu"], found, said.append)
    # Without its probe, and so is what the teacher itself needs.
    trained = ["a-train cpu", "b-train cpu"]
    assert notes(recipes) == [*trained, "c-train cpu", "c-probe cpu"]
    assert said[0] == (
        f"b, seed 1 is recorded, but c needs its model, which is not in "
        f"{teacher.folder}: it is trained again."
    )
    assert teacher.record.read_bytes() == record


def test_a_trained_run_is_probed_without_its_inputs(recipes):
    teacher = make_run(recipes, "a")
    student = with_inputs(make_run(recipes, "b"), teacher)
    carry_out([teacher, student], recipes, ["cpu"], found, say=str)
    shutil.rmtree(teacher.folder)
    asked = dataclasses.replace(student.commands[1], key="2f00")
    student = dataclasses.replace(student, commands=[student.commands[0], asked])
    (recipes / "notes").unlink()
    carry_out([teacher, student], recipes, ["cpu"], found, say=str)
    assert notes(recipes) == ["b-probe cpu"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "a-1.json is damaged .*delete it"), ("[]", "no record of format 1, which")],
)
def test_what_is_no_record_is_refused(recipes, text, message):
    run = make_run(recipes, "a")
    run.record.parent.mkdir()
    run.record.write_text(text)
    with pytest.raises(UserError, match=message):
        carry_out([run], recipes, ["cpu"], found)


def test_without_a_device_nothing_can_run(recipes):
    with pytest.raises(ValueError, match="devices must name at least one"):
        carry_out([make_run(recipes, "a")], recipes, [], found)


DRIVER = """
import sys
from pathlib import Path
from muq_plugins.experiment.plan import Command, PlannedRun
from muq_plugins.experiment.runner import carry_out

folder = Path(sys.argv[1])
arguments = [str(folder / "notes"), "a-train"]
run = PlannedRun("a", 1, folder / "a-1", folder / "records/a-1.json", {}, [
    Command("train", "note.py", arguments, "1ec3")])
carry_out([run], folder, ["cpu"], lambda run: {})
"""


def test_a_killed_study_leaves_its_command_alone_and_waits_for_it(recipes):
    (recipes / "driver.py").write_text(textwrap.dedent(DRIVER))
    process = subprocess.Popen(
        [sys.executable, recipes / "driver.py", recipes],
        env={**os.environ, "SLEEP": "3", "LOCK": f"{recipes / 'a-1'}:{LOCK}"},
    )
    while not notes(recipes):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The script still sleeps: the next study must wait for it before it runs its own.
    said = []
    start = time.monotonic()
    run = make_run(recipes, "a", ["train"])
    assert carry_out([run], recipes, ["cpu"], found, said.append) == []
    assert "Waiting for another process" in said[0]
    assert time.monotonic() - start > 0.5
    assert notes(recipes) == ["a-train cpu"] * 2


def test_ctrl_c_stops_the_commands(recipes, monkeypatch):
    monkeypatch.setenv("SLEEP", "60")
    run = make_run(recipes, "a")
    # Processes in the background may have been told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        while not notes(recipes):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        carry_out([run], recipes, ["cpu"], found, lambda line: None)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 30
    assert notes(recipes) == ["a-train cpu"]
    assert not is_finished(run, run.commands[0])


def test_the_command_of_a_study_is_one_that_is_there(monkeypatch):
    given = ["study.yaml", "--only_report", "True", "--seeds", "[1, 2]"]
    words = "study.yaml --seeds '[1, 2]'"
    assert study_command("ablate.py", given) == f"python recipes/MuQ/ablate.py {words}"
    monkeypatch.setattr(runner, "ROOT", runner.PACKAGE)  # as in a wheel
    assert study_command("ablate.py", given) == f"muq-plugins ablate {words}"
