"""Metrics that go elsewhere too."""

import sys
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from muq_plugins.brains.loggers import Tracker, check_loggers
from muq_plugins.errors import NotInstalled, UserError
from muq_plugins.evaluation.run_files import read_metrics


def test_tensorboard_has_the_rows_also_of_a_run_that_goes_on(make_brain, loaders):
    for limit in (2, 5):
        brain = make_brain(optimizer_step_limit=limit, loggers=["tensorboard"])
        brain.fit(*loaders(brain))
    folder = brain.logbook.folder
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    rows = read_metrics(folder / "metrics.jsonl")
    for kind in ("train", "valid"):
        expected = [(r["step"], r["loss"]) for r in rows if r["kind"] == kind]
        found = [(e.step, e.value) for e in events.Scalars(f"{kind}/loss")]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [x for _, x in found] == pytest.approx([x for _, x in expected])


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_trackers_follow_a_run_by_its_folder(package, make_brain, loaders, monkeypatch):
    told = []
    module = ModuleType(package)
    module.__spec__ = pytest.__spec__  # it is there
    module.init = lambda *_, **given: told.append(("init", given["name"]))
    module.log = lambda values, step: told.append((step, values))
    module.finish = lambda: told.append(("finish",))
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr(Tracker, "running", None)
    for limit in (1, 2):
        brain = make_brain(optimizer_step_limit=limit, loggers=[package])
        brain.fit(*loaders(brain))
    names = [name for kind, name in (x for x in told if x[0] == "init")]
    assert len(names) == 2 and len(set(names)) == 1
    assert told.count(("finish",)) == 1
    steps = [step for step, values in (x for x in told if "train/loss" in x[-1])]
    assert steps == [1, 2]


def test_what_is_no_logger_or_not_there_is_refused(monkeypatch):
    with pytest.raises(UserError, match="none of tensorboard.*nearest is 'tensorboard"):
        check_loggers(["tensorbord"])
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(NotInstalled, match="pip install trackio"):
        check_loggers(["trackio"])
    assert check_loggers(None) == check_loggers({}) == []
