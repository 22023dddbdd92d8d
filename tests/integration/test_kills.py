"""Whatever is killed with SIGKILL, whenever, goes on and ends with the same files.

A few kills in every command. For twenty in all of them:
``MUQ_KILLS=20 pytest -n 0 -s tests/integration/test_kills.py``
"""

import contextlib
import json
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from muq_plugins.files import read_json_lines
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.goldens.metrics import CLOCK
from tests.integration.commands import (
    HERE,
    RECIPES,
    ROOT,
    Fork,
    checked,
    experiment_file,
    recipe_here,
    recipe_options,
)
from tests.integration.test_iterative import write_small
from tests.integration.test_marble import marble, write_gtzan
from tests.integration.test_mulan import sounds  # noqa: F401 (a fixture)
from tests.integration.test_study import ablate, study  # noqa: F401 (a fixture)
from tests.integration.tiny_mulan import make_mulan, write_chord

KILLS = int(os.environ.get("MUQ_KILLS", 0))
#: What tells of a run and its clock: logs, pages, checkpoints (which hold random
#: states of processes), and hashes of the moments at which files were written.
PASSING = (".txt", ".html", ".md", ".png", ".ckpt", ".yaml", ".lock", ".py")
# A writer that was killed may leave a hidden file that nobody reads.
PASSING += ("history.jsonl", ".partial", "finished.json", ".log")
CLOCKS = {*CLOCK, "training_seconds", "tokenizer_seconds", "run", "command", "created"}


def kill(folder, script, arguments, kills, changes, seconds=0.03):
    """Kills a command again and again; then it must end well.

    Each time when its folder has changed at most `changes` times: the machine may be
    slow, and the command anywhere in a step, in validation, or in the middle of a file.
    It is looked at after so many seconds, each time.
    """
    generator, begin, killed = random.Random(5), time.monotonic(), 0
    for _ in range(KILLS or kills):
        fork = Fork(script, *arguments, OMP_NUM_THREADS="1")
        seen, left = newest(folder), generator.randint(1, changes)
        while left and fork.process.is_alive():
            time.sleep(seconds)
            before, seen = seen, newest(folder)
            left -= seen != before
        fork.kill()
        if fork.process.exitcode == 0:
            break  # it has come to its end
        assert fork.process.exitcode == -signal.SIGKILL, fork.result()
        killed += 1
    checked(Fork(script, *arguments, OMP_NUM_THREADS="1").result(900))
    assert killed >= kills
    name = getattr(script, "stem", script)
    print(f"\n{name} {folder.name}: {killed} kills, {time.monotonic() - begin:.0f} s")


def newest(folder):
    """What the folder holds now, half-written files included."""
    # os.walk passes over a folder that vanishes meanwhile; rglob raises.
    found = []
    for top, inner, files in os.walk(folder):
        for name in inner + files:
            with contextlib.suppress(FileNotFoundError):
                found.append((f"{top}/{name}", os.stat(f"{top}/{name}").st_mtime_ns))
    return sorted(found)


def contents(folder):
    """The files of a folder that must come out the same, as things to compare."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.endswith(PASSING) or "save/" in name:
            continue
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays}
        elif path.suffix == ".jsonl":
            lines = path.read_text("utf-8").splitlines()
            found[name] = [timeless(json.loads(line)) for line in lines]
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text("utf-8")))
        else:
            found[name] = path.read_bytes()
    return found


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCKS}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def same(killed, whole, *needed):
    """Compares two folders; `needed` files must be among what was compared."""
    one, other = contents(killed), contents(whole)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    missing = [name for name in needed if not any(n.endswith(name) for n in one)]
    assert not missing, list(one)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums differ with the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def twice(tmp_path, script, arguments, kills, changes):
    """Both folders of a recipe: of the killed run, and of one that was not."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    given = [*arguments, "--output_folder", killed, "--ckpt_interval_steps", "1"]
    given = recipe_options(given)
    kill(killed, RECIPES / script, given, kills, changes)
    recipe_here(script, *arguments, "--output_folder", whole)
    return killed, whole


def test_training(options, tmp_path):
    limit = "240" if KILLS else "60"  # enough for as many kills
    steps = ["--optimizer_step_limit", limit]
    steps += ["--log_interval", "10", "--valid_interval", "60"]
    folders = twice(tmp_path, "train.py", [*options, *steps], 6, 20)
    same(*folders, "inference/model.safetensors", "metrics.jsonl")
    starts = read_json_lines(folders[0] / "history.jsonl")
    assert any(row.get("step") for row in starts)  # they went on


def test_a_tokenizer(data_options, tmp_path):
    limit = "100" if KILLS else "30"
    steps = ["--tokenizer.optimizer_step_limit", limit]
    arguments = [HERE / "tiny_tokenizer.yaml", *data_options, *steps]
    folders = twice(tmp_path, "train_tokenizer.py", arguments, 2, 24)
    same(*folders, "inference/model.safetensors", "metrics.jsonl")


@pytest.mark.slow
def test_an_iteration_with_its_labels(data_options, tmp_path):
    _, music, _, corpus = data_options
    plan = write_small(tmp_path, "muq_iter", **{"data.corpus_folder": str(corpus)})
    arguments = [plan, "--data_folder", music, "--iterations", "1"]
    arguments += ["--teacher_layer", "1", "--optimizer_step_limit", "4"]
    folders = twice(tmp_path, "train.py", arguments, 2, 60)
    needed = [f"iteration-{k}/inference/model.safetensors" for k in range(2)]
    same(*folders, *needed, "labels/verified.json", "iterations.json")


@pytest.mark.slow
def test_music_and_text(sounds, tmp_path):  # noqa: F811
    arguments = [*sounds, "--valid_interval", "30"]
    arguments += ["--optimizer_step_limit", "60" if KILLS else "30"]
    folders = twice(tmp_path, "train_mulan.py", arguments, 2, 30)
    same(*folders, "inference/model.safetensors", "metrics.jsonl")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A model of music and text, and chords to embed or index."""
    folder = tmp_path_factory.mktemp("library")
    make_mulan(folder)
    for number in range(max(60, 30 * KILLS)):
        write_chord(folder / "music" / f"{number}.wav", number)
    return folder


def test_embed(pretrain_run, library, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["embed", pretrain_run, library / "music", "--device", "cpu"]
    # Alone: who else is in a batch decides the last digits.
    arguments += ["--batch-seconds", "1"]
    kill(killed, "muq_plugins", [*arguments, "--out", killed], 1, 1)
    assert main([str(part) for part in [*arguments, "--out", whole]]) == 0
    same(killed, whole, *(f"{number}.wav.npz" for number in range(60)))


def test_index(library, tmp_path):
    model = ["--model", library / "mulan", "--device", "cpu"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["index", library / "music", *model]
    kill(killed, "muq_plugins", [*arguments, "--out", killed], 1, 1)
    assert main([str(part) for part in [*arguments, "--out", whole]]) == 0
    one, other = MusicIndex(killed), MusicIndex(whole)
    assert len(one) == len(list((library / "music").iterdir()))
    assert rows(one) == rows(other)


def rows(index):
    """Paths and vectors, whatever the order in which they were made."""
    return {e.path: index.vector(e).tobytes() for e in index.store.entries()}


def test_marble(tmp_path):
    """Its features, probes and scores, of two devices as of one."""
    encoder = MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(tmp_path / "encoder", encoder)
    arguments = ["--data_folder", write_gtzan(tmp_path / "GTZAN"), "--beside", "[]"]
    arguments += ["--encoder", tmp_path / "encoder", "--seeds", "[0]"]
    arguments += ["--protocol", "v2_as_shipped"]
    folders = tmp_path / "killed", tmp_path / "whole"
    killed, whole = (
        [*arguments, "--output_folder", f / "out", "--features.folder", f / "features"]
        for f in folders
    )
    script = ROOT / "recipes" / "MARBLE" / "probe.py"
    given = [experiment_file("gtzan_genre"), *killed, "--devices", "[cpu, cpu]"]
    given = [*map(str, given), "--noprogressbar"]
    kill(folders[0], script, given, 1, 3)
    marble("gtzan_genre", *whole)
    same(*folders, "scores.json", "layer00.f16", "gtzan_genre.npz")


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="a single kill of a study is in test_study.py")
def test_a_study(study, tmp_path):  # noqa: F811
    arguments = [study / "small.yaml"]
    killed, whole = study / "killed", study / "whole"
    folders = ["--output_folder", killed, "--runs_folder", killed / "runs"]
    kill(killed, RECIPES / "ablate.py", [*arguments, *folders], 0, 200)
    folders = ["--output_folder", whole, "--runs_folder", whole / "runs"]
    ablate(*arguments, *folders)
    same(killed, whole, "study.json", "inference/model.safetensors")
