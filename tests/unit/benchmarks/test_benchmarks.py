"""The benchmarks' own pieces, without the official environment and without a GPU."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
# Its files are scripts that import each other as neighbours.
sys.path.insert(0, str(BENCHMARKS))

import compare  # noqa: E402
import environment  # noqa: E402
import gpu  # noqa: E402
import halves as halves_of  # noqa: E402
import in_the_loop  # noqa: E402
import index  # noqa: E402
import int8  # noqa: E402
import manifests  # noqa: E402
import side  # noqa: E402

from muq_plugins.evaluation.marble.task import open_task  # noqa: E402
from muq_plugins.evaluation.marble.tasks import TASKS  # noqa: E402
from muq_plugins.evaluation.probing.features import HiddenStates  # noqa: E402
from tests.goldens.parts import write_wav  # noqa: E402
from tests.unit.processor import needs_int8  # noqa: E402
from tests.unit.tiny_encoders import tiny_encoder  # noqa: E402


def task(kind, precision="fp32", seconds=1.0):
    shared = {"device": "cpu", "threads": 1, "size": "quick", "batch": 1}
    return {"kind": kind, "precision": precision, "seconds": seconds, **shared}


def test_inference_is_measured(tmp_path):
    run, result = side.Ours(task("inference", "bf16"), tmp_path).inference()
    assert result()["hidden"].shape == (1, 25, 64)
    seconds, memory = side.first_run(run, "cpu")
    assert 0 < seconds < 10 and 0 <= memory < 2**30
    assert 0 < side.timed(run, "cpu", calls=2) < 10


def test_a_training_step_is_compared_as_it_was_before_it(tmp_path):
    wavs = torch.randn(1, 24000)
    torch.save((wavs, torch.arange(25)[None] < 12), tmp_path / "masking.pt")
    run, result = side.Ours(task("training"), tmp_path).training()
    before = result()
    run()  # which draws its own masking, and moves the statistics of normalisations
    after = result()
    assert before["loss"] > 0 and before["gradient"].abs().sum() > 0
    for name in before:
        assert torch.equal(before[name], after[name])


def test_tokenizers_agree_with_those_of_other_libraries(tmp_path):
    kinds = {"random_projection": (1, 25, 1), "encodec_from_wavs": (1, 75, 8)}
    found = {}
    for kind, shape in kinds.items():
        for each in (side.Others, side.Ours):
            _, result = getattr(each(task(kind), tmp_path), kind)()
            found[each] = result()["codes"]
        assert found[side.Others].shape == shape
    assert found[side.Ours].shape == (1, 25, 8)  # Mel-RVQ beside EnCodec


def test_differences():
    codes = torch.tensor([1, 2, 3, 4])
    assert compare.difference(codes, codes.flip(0)) == 1
    assert compare.difference(codes, torch.tensor([1, 2, 3, 5])) == 0.25
    assert compare.difference(torch.full((4,), 2.0), torch.ones(4)) == 1


class Known:
    """A process with known times; some fail at their start or at their turn."""

    fails_at, turns = None, []

    def __init__(self, python, name, task, folder, log):
        self.name, self.folder = name, folder

    def answer(self):
        self.may_fail("start")
        hidden = torch.full((2,), 2.0 if self.name == "ours" else 1.0)
        torch.save({"hidden": hidden}, self.folder / f"{self.name}.pt")
        return {"first": 1.0, "bytes": 2**28 if self.name == "ours" else 2**30}

    def time(self, calls):
        assert calls == 1
        self.may_fail("turn")
        self.turns.append(self.name)
        return 0.5 if self.name == "ours" else 2.0

    def may_fail(self, when):
        if self.name == "ours" and self.fails_at == when:
            raise compare.Failure("RuntimeError: no | memory")

    def close(self):
        self.closed = True


PYTHONS = {"official": "python", "ours": "python"}


def report(*rows):
    rows = [{"task": task, "sides": sides} for task, sides in rows]
    return compare.markdown({"machine": {"processor": "Z80"}, "rows": rows})


def test_sides_take_turns_and_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "Process", Known)
    monkeypatch.setattr(Known, "turns", [])
    first, second = task("inference"), task("inference", "bf16")
    sides = compare.measure(first, PYTHONS, tmp_path, tmp_path, 3)
    assert Known.turns == ["official", "ours"] * 3
    assert sides["ours"]["times"] == [0.5] * 3 and sides["ours"]["difference"] == 1
    assert "difference" not in sides["official"]
    other = compare.measure(second, PYTHONS, tmp_path, tmp_path, 1)
    assert other["official"]["difference"] == 0
    text = report((first, sides))
    assert "| 1 x 1 s | official | 2 | 0 | 1.00 | 1,024 | - |" in text
    assert "| 1 x 1 s | ours | 0.5 | 2 | 4.00 | 256 | 1 |" in text


@pytest.mark.parametrize("when", ["start", "turn"])
def test_a_failing_side_stands_in_the_table(tmp_path, monkeypatch, when):
    monkeypatch.setattr(compare, "Process", Known)
    monkeypatch.setattr(Known, "fails_at", when)
    sides = compare.measure(task("inference"), PYTHONS, tmp_path, tmp_path, 1)
    text = report((task("inference"), sides))
    assert "| ours | fails: RuntimeError: no / memory | - |" in text
    assert "| official | 2 | 0 | 1.00 |" in text


def test_a_process_says_why_it_ended(tmp_path):
    some = task("encodec_from_wavs") | {"size": "huge"}
    process = compare.Process(sys.executable, "others", some, tmp_path, tmp_path)
    with pytest.raises(compare.Failure, match="KeyError: 'huge'"):
        process.answer()
    with pytest.raises(compare.Failure, match=r"status 0, see .*others\.log"):
        process.time(1)
    process.close()


def test_tasks_of_a_run():
    settings = compare.parse(["--device", "cuda"])
    found = compare.tasks(settings)
    assert settings.compile and found[0]["size"] == "released"
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
    # Also for another place with the same packages.
    monkeypatch.setattr(sys, "path", [*sys.path, "/elsewhere/site-packages"])
    assert environment.official_python(tmp_path) == first
    assert len(commands) == 4
    (shared,) = tmp_path.rglob("shared.pth")
    assert "/elsewhere/site-packages" in shared.read_text()
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
    assert "| inference | bf16 | 1 x 1 s | ours |" in capsys.readouterr().out
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["rows"][0]["sides"]["ours"]["per_second"] > 0
    assert (tmp_path / "table.md").is_file()


# One GPU, tried on the processor


def test_a_tiny_run_fills_every_row(tmp_path, monkeypatch):
    for seed in range(3):
        write_wav(tmp_path / "music" / f"{seed}.wav", 1.2, seed)
    asked = []

    def measure(task, pythons, *others):
        asked.append((task["kind"], task["precision"], pythons["official"]))
        found = {"seconds": 0.5, "per_second": 2.0, "bytes": 7}
        return {"official": {"fails": "no memory"} if len(asked) == 4 else found}

    monkeypatch.setattr(compare, "measure", measure)
    arguments = ["--tiny", "--official_python", "python", "--data_folder"]
    out = tmp_path / "new" / "out.json"
    gpu.main([str(out), *arguments, str(tmp_path / "music")])
    rows = json.loads(out.read_text())
    assert [row["what"] for row in rows] == [
        *("machine", "difference", *["inference"] * 3, *["training"] * 3, "target"),
        *(["official"] * 4),
        "pretraining",
    ]
    assert rows.pop(-2)["failed"] == "no memory"
    assert not any("failed" in row or "left_out" in row for row in rows)
    kinds = [(kind, x) for kind in ("inference", "training") for x in ("fp32", "bf16")]
    assert asked == [(*kind, "python") for kind in kinds]
    assert 0 <= rows[-1]["share_waiting_for_audio"] < 1
    lines = out.with_suffix(".md").read_text().splitlines()
    assert lines[0].startswith("cpu, torch 2.") and len(lines) == 4 + len(rows)
    assert "| official | inference fp32 | 1 x 1 s | 0.5 | 2 |" in lines[12]
    assert "failed: no memory" in lines[15]
    assert rows[1]["float32"] == 0 < rows[1]["bfloat16"] < 0.1
    assert all(row["audio_per_second"] > 0 for row in rows[2:])


def test_rows_that_fail_or_come_too_late_say_so(tmp_path):
    def refuse(clips):
        raise RuntimeError("no\nmemory")

    bench = gpu.Bench(tmp_path / "out.json", tiny=True, seconds=60)
    bench.measure(refuse, clips=3)
    bench.end = 0
    bench.measure(refuse, clips=4)
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"what": "refuse", "clips": 3, "failed": "RuntimeError: no memory"},
        {"what": "refuse", "clips": 4, "left_out": "no time left"},
    ]


def test_an_index_is_measured():
    found = index.measure(100)
    assert list(found) == ["open", "query", "after", "follow"]
    assert all(0 < value < 10_000 for value in found.values())


def test_a_recording_is_found_by_its_own_half_only(tmp_path):
    random = np.random.default_rng(0)
    pairs = random.normal(size=(5, 1, 16)) + 0.1 * random.normal(size=(5, 2, 16))
    assert halves_of.found(pairs) == 1
    others = np.stack([pairs[:, 0], np.roll(pairs[:, 1], 1, axis=0)], axis=1)
    assert halves_of.found(others) == 0
    paths = [write_wav(tmp_path / f"{seed}.wav", 8.0, seed) for seed in (0, 1)]
    write_wav(tmp_path / "short.wav", 1.0)
    clips = halves_of.long_enough([str(tmp_path)])
    assert [clip.wav for clip in clips] == list(map(str, paths))
    extractor = HiddenStates(tiny_encoder("MuQEncoder"))
    assert halves_of.features(extractor, clips).shape == (3, 2, 2, 64)


def test_a_probe_in_the_loop_sees_what_is_kept(tmp_path):
    """Both ways end with the same score, as they see the same vectors."""
    folder = in_the_loop.write_folder(tmp_path / "GTZAN", seconds=1)
    opened = open_task(TASKS["gtzan_genre"], folder)
    extractor = HiddenStates(tiny_encoder("MuQEncoder"))
    found = in_the_loop.both_ways(opened, extractor, 1, 2, tmp_path / "kept")
    looped, kept, score, same = found
    assert looped > 0 and kept > 0 and score == same


@needs_int8
def test_int8_is_measured(capsys):
    sizes = {"width": 32, "num_layers": 1, "num_heads": 4, "ffn_width": 32}
    model, rounded = (int8.random_model(sizes | {"conv_channels": 4}) for _ in range(2))
    wav = int8.random_chords(1)[None]
    int8.errors(model, rounded.int8(), wav)
    assert capsys.readouterr().out.count("1 - cosine") == 2
    calls = [lambda: sum(range(10**6)), lambda: sum(range(10**4))]
    assert " times as fast (" in int8.ratio(calls, 3)


def test_manifests_are_made_and_measured(tmp_path):
    manifests.make(tmp_path / "made", 40)
    manifests.make_files(tmp_path / "made", 40)
    found = {}
    for what in ("start", "ids and split", "scan again"):
        found |= manifests.measure(tmp_path / "made", what)
    assert found.keys() == {"start", "first batch", "resume", "trainer"} | {
        "ids and split",
        "scan again",
    }
    assert found.keys() <= manifests.ROWS.keys()
