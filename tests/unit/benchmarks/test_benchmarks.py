"""The benchmark's own pieces, without the official environment."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
# Its files are scripts that import each other as neighbours.
sys.path.insert(0, str(BENCHMARKS))

import compare  # noqa: E402
import environment  # noqa: E402
import measure  # noqa: E402
from matrix import count_flops  # noqa: E402
from protocol import Worker, WorkerError  # noqa: E402
from table import markdown  # noqa: E402
from worker_others import Others  # noqa: E402
from worker_ours import Ours  # noqa: E402
from workload import SIZES  # noqa: E402

TALKATIVE = """
import os, sys
sys.path.insert(0, {benchmarks!r})
from protocol import serve

class Talkative:
    def double(self, number):
        print("words that nobody asked for")
        os.system("echo more of them")
        return 2 * number
    def die(self):
        os._exit(3)

serve(Talkative())
"""


def task(kind, precision="fp32", seconds=1.0):
    return {"kind": kind, "precision": precision, "seconds": seconds, "batch": 1}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    side = Ours()
    side.load("quick", "cpu", 1, str(tmp_path_factory.mktemp("shared")))
    return side


def test_a_worker_answers_and_says_why_it_cannot(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(TALKATIVE.format(benchmarks=str(BENCHMARKS)))
    worker = Worker(sys.executable, script, tmp_path / "worker.log", threads=1)
    try:
        assert worker.ask("double", number=4) == 8
        with pytest.raises(WorkerError, match="TypeError: unsupported operand"):
            worker.ask("double", number=None)
        assert worker.ask("double", number="ab") == "abab"
        assert worker.alive
        with pytest.raises(WorkerError, match=r"status 3, see worker\.log"):
            worker.ask("die")
        assert not worker.alive
    finally:
        worker.stop()
    assert "more of them" in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inference_is_measured(ours, precision, tmp_path):
    ours.prepare(task("inference", precision), str(tmp_path / "result.pt"))
    assert torch.load(tmp_path / "result.pt")["hidden"].shape == (1, 25, 64)
    assert 0 < ours.time(calls=2) < 10
    assert 0 <= ours.memory() < 2**30
    ours.release()
    assert ours.job is None


def test_training_leaves_the_model_as_it_was(ours, tmp_path):
    before = {k: v.clone() for k, v in ours.model.mods.encoder.state_dict().items()}
    ours.prepare(task("training"), str(tmp_path / "result.pt"))
    result = torch.load(tmp_path / "result.pt")
    assert result["loss"] > 0
    assert result["gradient"].abs().sum() > 0
    ours.job.run()
    norm = ours.model.mods.encoder.conv.conv[0].bn1
    assert not torch.equal(norm.running_mean, before["conv.conv.0.bn1.running_mean"])
    ours.release()
    after = ours.model.mods.encoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_tokenizers_agree_with_those_of_other_libraries(ours, tmp_path):
    others = Others()
    others.load("quick", "cpu", 1, str(ours.folder))
    paths = [str(tmp_path / "others.pt"), str(tmp_path / "ours.pt")]
    for side, path in zip((others, ours), paths, strict=True):
        side.prepare(task("random_projection"), path)
    expected, found = (torch.load(path)["codes"] for path in paths)
    assert measure.relative_difference(found, expected) == 0
    assert found.shape == (1, 25, 1)
    others.prepare(task("encodec_from_wavs"), paths[0])
    assert torch.load(paths[0])["codes"].shape == (1, 75, 8)
    ours.prepare(task("mel_rvq_from_wavs"), paths[1])
    assert torch.load(paths[1])["codes"].shape == (1, 25, 8)


def test_operations_are_counted():
    """Training is three times inference and the head on the masked frames."""
    size = SIZES["quick"]
    forward, training, longer = (
        count_flops(size, task(kind, seconds=seconds))
        for kind, seconds in (("inference", 1), ("training", 1), ("inference", 2))
    )
    head = 2 * 15 * size["width"] * 8 * 1024
    assert training == 3 * (forward + head)
    assert 2 < longer / forward < 2.1


class FakeWorkers:
    """Two sides with known times; the second one may fail at an order."""

    def __init__(self, folder, fails_at=None):
        self.folder = folder
        self.fails_at = fails_at
        self.turns = []

    def ask(self, name, order, **arguments):
        if name == "ours" and order == self.fails_at:
            raise WorkerError("RuntimeError: no | memory")
        if order == "prepare":
            hidden = torch.full((2,), 2.0 if name == "ours" else 1.0)
            torch.save({"hidden": hidden}, arguments["result"])
        if order == "time":
            self.turns.append(name)
            return 1.0 if name == "ours" else 2.0
        return None


def test_sides_take_turns_and_are_compared(tmp_path):
    workers = FakeWorkers(tmp_path)
    row = measure.measure_time(workers, task("inference"), ["official", "ours"], 3)
    assert workers.turns == ["official", "ours"] * 4  # the first turn is a warm-up
    assert row["sides"]["official"]["seconds"] == 2.0
    assert row["sides"]["ours"]["times"] == [1.0] * 3
    assert row["differences"] == {"ours": {"hidden": 1.0}}
    other = measure.measure_time(
        workers, task("inference", "bf16"), ["official", "ours"], 1
    )
    assert other["differences"]["official"] == {"hidden": 0.0}


@pytest.mark.parametrize("order", ["prepare", "time"])
def test_a_failing_side_stands_in_the_table(tmp_path, order):
    workers = FakeWorkers(tmp_path, fails_at=order)
    row = measure.measure_time(workers, task("inference"), ["official", "ours"], 1)
    row["flops"] = 10**12
    settings = compare.parse(["--quick"])
    rates = {"fp32": 1e12}
    report = {"machine": compare.describe_machine(settings), "rates": rates}
    text = markdown({**report, "rows": [row]})
    assert "| inference | fp32 | 1 x 1 s | 2 s | fails: RuntimeError: no / mem" in text
    assert "reached 1 in fp32 TFLOP/s" in text


def test_ratios_of_the_tables():
    sides = {
        "official": {"seconds": 2.0, "bytes": 2**30, "tokens": 100},
        "ours": {"seconds": 0.5, "bytes": 2**28, "tokens": 50},
    }
    rows = [
        {"task": task(kind), "sides": sides, "flops": 10**12, "differences": {}}
        for kind in ("inference", "mel_rvq_from_mel")
    ]
    machine = compare.describe_machine(compare.parse(["--quick"]))
    text = markdown({"machine": machine, "rates": {"fp32": 4e12}, "rows": rows})
    assert "| 2 s | 500 ms | 4.00 | 4.00 | 50% | 1,024 MiB | 256 MiB | 0.25 |" in text
    assert "| 50 | 100 | 2.0 | 4.00 | - |" in text


def test_tasks_of_a_run():
    settings = compare.parse(["--device", "cuda"])
    assert settings.compile and settings.size == "released"
    found = compare.tasks(settings)
    assert [t["precision"] for t in found[:2]] == ["fp32", "bf16"]
    batches = {t["seconds"]: t["batch"] for t in found if t["kind"] == "inference"}
    assert batches == {10.0: 8, 30.0: 8, 300.0: 1}
    assert max(t["seconds"] for t in found if t["kind"] != "inference") == 30.0


def test_the_environment_is_built_once(tmp_path, monkeypatch):
    commands = []

    def run(*command):
        commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "lib/python3/site-packages").mkdir(parents=True)

    monkeypatch.setattr(environment, "_run", run)
    first = environment.official_python(tmp_path)
    assert len(commands) == 4 and commands[-1] == (first, "-c", "import muq")
    assert environment.official_python(tmp_path) == first
    assert len(commands) == 4
    (marker,) = tmp_path.glob("*/complete.json")
    marker.write_text(json.dumps(["muq==0.0.1"]))
    environment.official_python(tmp_path)
    assert len(commands) == 8


def test_the_environment_shares_the_running_torch(tmp_path, monkeypatch):
    complete, alone = environment.requirements("2.14.1+cpu")
    assert not any(name.startswith("torch") for name in complete)
    assert alone[:3] == [
        "--extra-index-url",
        "https://download.pytorch.org/whl/cpu",
        "torchvision==0.29.*",
    ]
    assert environment.requirements("2.11.0")[1][0] == "torchvision==0.26.*"


def test_a_failing_installation_is_explained():
    with pytest.raises(RuntimeError, match="(?s)failed:.*No module.*--official-python"):
        environment._run(sys.executable, "-m", "no_such_module")


@pytest.mark.slow
def test_a_run_without_the_official_package(tmp_path, capsys):
    options = ["--official-python", "none", "--parts", "inference", "--clips", "1"]
    compare.main(["--quick", *options, "--out", str(tmp_path)])
    assert "| inference | bf16 | 1 x 1 s | - |" in capsys.readouterr().out
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["rows"][0]["sides"]["ours"]["bytes"] >= 0
    assert (tmp_path / "table.md").is_file()
