"""What a study runs, and in which folders."""

import pytest

from muq_plugins.errors import UserError
from muq_plugins.experiment.plan import plan_runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of experiments, in which the study is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "muq.yaml").write_text(
        "output_folder: here\nseed: 0\nsteps: 9\nlr: 0.1\nnested: {a: null}\n"
        "tokenizer: {experiment: rvq.yaml}\n"
    )
    (tmp_path / "rvq.yaml").write_text("depth: 1\n")
    (tmp_path / "towers.yaml").write_text(
        "seed: 0\noutput_folder: x\npretraining: {experiment: muq.yaml}\n"
    )
    (tmp_path / "other.yaml").write_text("extends: muq.yaml\ntokenizer: null\n")
    (tmp_path / "probe.yaml").write_text("encoder: x\noutput_folder: y\ntasks: [a]\n")
    return tmp_path


BASE = {"experiment": "muq.yaml", "label": "Base"}
OTHER = {"experiment": "other.yaml", "label": "Other"}


def plan(folder, experiments=None, seeds=(1,), budget=None, probes=None):
    """A plan with little said."""
    experiments = experiments or {"base": BASE, "other": OTHER}
    places = folder / "runs", folder / "records"
    return plan_runs(experiments, seeds, budget or {}, probes, *places)


def test_every_experiment_runs_with_every_seed(folder):
    runs = plan(folder, seeds=[4, 5])
    pairs = [(run.experiment, run.seed) for run in runs]
    assert pairs == [("base", 4), ("other", 4), ("base", 5), ("other", 5)]
    assert len({run.folder for run in runs}) == 4


def test_the_command_says_it_all(folder):
    wanted = {**BASE, "overrides": {"nested.a": None}}
    [run] = plan(folder, {"x": wanted}, budget={"steps": 3, "lr": 0.5})
    [command] = run.commands
    assert command.script == "train.py"
    assert command.arguments == [
        "muq.yaml",
        *("--steps", "3"),
        *("--lr", "0.5"),
        *("--nested.a", "null"),
        *("--seed", "1"),
        *("--output_folder", str(run.folder)),
    ]


def test_a_run_of_the_study_can_be_the_input_of_another_with_the_same_seed(folder):
    student = {**OTHER, "inputs": {"nested.a": "teacher"}}
    experiments = {"student": student, "teacher": BASE}
    runs = plan(folder, experiments, seeds=[4, 5])
    assert [(run.experiment, run.seed) for run in runs] == [
        *(("teacher", 4), ("student", 4), ("teacher", 5), ("student", 5)),
    ]
    for teacher, learner in (runs[:2], runs[2:]):
        arguments = learner.commands[0].arguments
        assert arguments[arguments.index("--nested.a") + 1] == str(teacher.folder)
        assert learner.inputs == (teacher,) and teacher.inputs == ()
    # What the teacher's run depends on, the student's depends on too.
    changed = {**experiments, "teacher": {**BASE, "overrides": {"steps": 3}}}
    assert plan(folder, changed, seeds=[4])[1].folder != runs[1].folder


def test_probes_follow_the_training(folder):
    probes = {"p": {"experiment": "probe.yaml", "overrides": {"tasks": ["b"]}}}
    run = plan(folder, probes=probes)[0]
    train, probe = run.commands
    assert (probe.name, probe.script) == ("p", "probe.py")
    assert probe.arguments[1:] == [
        *("--tasks", '["b"]'),
        *("--encoder", str(run.folder)),
        *("--output_folder", str(run.folder / "probes" / "p")),
    ]
    assert train.key != probe.key


def test_a_run_has_the_same_name_and_record_on_any_machine(folder):
    student = {**OTHER, "inputs": {"nested.a": "teacher"}}
    experiments = {"teacher": BASE, "student": student}
    probes = {"p": {"experiment": "probe.yaml"}}
    here, there = (
        plan(folder / place, experiments, budget={"steps": 3}, probes=probes)
        for place in ("here", "there")
    )
    for run, same in zip(here, there, strict=True):
        assert run.folder != same.folder and run.folder.name == same.folder.name
        assert [c.key for c in run.commands] == [c.key for c in same.commands]
        assert run.record == folder / "here" / "records" / f"{run.folder.name}.json"
    named = {"steps": 3, "nested.a": here[0].folder.name, "seed": 1}
    assert here[1].settings == named


def test_studies_share_equal_runs(folder):
    alone = plan(folder, {"another name": BASE}, seeds=[7])
    together = plan(folder, seeds=[7, 8])
    assert alone[0].folder == together[0].folder


@pytest.mark.parametrize(
    ("name", "old", "new", "differs"),
    [
        ("muq.yaml", "lr: 0.1", "lr: 0.2", True),
        ("rvq.yaml", "depth: 1", "depth: 2", True),  # of a stage, and of its stage
        ("muq.yaml", "lr: 0.1", "lr: 1.0e-1  # peak", False),
        ("muq.yaml", "seed: 0\nsteps: 9\n", "steps: 9\nseed: 0\n", False),
        ("rvq.yaml", "depth: 1", "# Of the tokenizer\ndepth: 1", False),
    ],
)
@pytest.mark.parametrize("experiment", ["muq.yaml", "towers.yaml"])
def test_another_experiment_has_another_folder(
    folder, experiment, name, old, new, differs
):
    study = {"x": {"experiment": experiment, "label": "X"}}
    before = plan(folder, study)[0].folder
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (plan(folder, study)[0].folder != before) == differs


def test_a_changed_budget_gets_a_new_folder(folder):
    before, after = (plan(folder, budget={"steps": n})[0].folder for n in (3, 4))
    assert before != after


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "at least one experiment and one seed"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"experiments": {"x": {"label": "X"}}}, "x must be a mapping with the key"),
        (
            {"experiments": {"x": {**BASE, "overides": {}}}},
            "nearest known key is 'overrides'",
        ),
        (
            {"experiments": {"x": {"experiment": "muk.yaml"}}},
            "there is no experiment .*muk.yaml",
        ),
        (
            {"experiments": {"x": {**BASE, "overrides": {"stepz": 3}}}},
            "--stepz is neither",
        ),
        (
            {
                "experiments": {"x": {**BASE, "overrides": {"steps": 4}}},
                "budget": {"steps": 3},
            },
            "x overrides steps, which must be the same for all",
        ),
        ({"probes": {"p": {"experiment": "prob.yaml"}}}, "p: there is no "),
        (
            {"probes": {"p": {"experiment": "probe.yaml", "inputs": {}}}},
            "p: unknown key 'inputs'",
        ),
        (
            {"experiments": {"x": {**BASE, "inputs": {"nested.a": "y"}}}},
            "x: its input 'y' is no experiment of this study",
        ),
        (
            {"experiments": {"x": {**BASE, "inputs": {"nested.a": "x"}}}},
            "x: these need each other's runs in a circle",
        ),
    ],
)
def test_bad_studies_are_named(folder, changes, message):
    with pytest.raises(UserError, match=message):
        plan(folder, **changes)
