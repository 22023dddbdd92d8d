"""Processes that share a folder: nothing is done twice, nothing is left undone."""

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from muq_plugins.data.labels import LabelSet, LabelWindows, extract_labels
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.shards import plan_shards
from tests.unit.data.labels.conftest import make_target


def contents(folder):
    """The files that a reader sees."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def start(folder, manifest, shard_minutes, done, share):
    """Starts a process of a job with the target of the other tests.

    Forked, since a new interpreter would need seconds to begin.
    """
    context = multiprocessing.get_context("fork")
    arguments = (folder, manifest, shard_minutes, done, share)
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def work(folder, manifest, shard_minutes, done, share):
    # The threads of the parent do not exist here: nobody must wait for them.
    torch.set_num_threads(1)
    target = make_target()
    windows = LabelWindows.in_seconds(target, window=0.8, context=0.2)
    result = extract_labels(folder, windows, manifest, shard_minutes, share=share)
    with done.get_lock():
        done.value += result.shards


def test_shards_hold_every_clip_once_in_order(manifest):
    shards = plan_shards(Path("x"), manifest, {"format": 2, "shard_minutes": 2.5 / 60})
    assert [clip for shard in shards for clip in shard.clips] == list(manifest)
    assert len(shards) == 3


def test_an_extraction_that_is_complete_is_not_done_again(extract, tmp_path):
    first = extract(tmp_path / "a")
    before = contents(tmp_path / "a")
    assert first.shards == 3 and first.audio_seconds == pytest.approx(7.06, abs=0.01)
    assert extract(tmp_path / "a").shards == 0
    assert contents(tmp_path / "a") == before
    assert not list((tmp_path / "a").glob(".shard*"))


def test_a_killed_job_goes_on_with_another_number_of_processes(
    extract, tmp_path, manifest
):
    """SIGKILL in the middle of a shard: nothing is done twice, nothing is missing."""
    folder, done = tmp_path / "labels", multiprocessing.Value("i", 0)
    clips = {f"{n}": manifest["track0"] for n in range(24)}
    alone = start(tmp_path / "alone", clips, 0.1, done, (0, 1))
    alone.join(timeout=120)
    shards, done.value = done.value, 0
    worker = start(folder, clips, 0.1, done, (0, 2))
    while not (made := list(folder.glob("shard-*.json"))):
        time.sleep(0.002)
    while not list(folder.glob(".*.partial")) and worker.is_alive():
        time.sleep(0.001)
    worker.kill()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.json")}
    assert before.keys() >= set(made)
    for rank in (2, 0, 1):
        assert not (folder / "verified.json").exists()
        work(folder, clips, 0.1, done, (rank, 3))
    assert done.value + len(before) == shards > len(before)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert contents(folder) == contents(tmp_path / "alone")
    assert not [path for path in folder.iterdir() if path.suffix == ".partial"]


@pytest.mark.parametrize("shares", [[(0, 2), (1, 2)], [(0, 1), (0, 1)]])
def test_two_processes_make_the_files_of_one(extract, tmp_path, manifest, shares):
    """Also where the same one was started twice."""
    done, folder = multiprocessing.Value("i", 0), tmp_path / "two"
    workers = [start(folder, manifest, 2.5 / 60, done, share) for share in shares]
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert done.value == 3  # no shard was made twice
    extract(tmp_path / "one")
    assert contents(folder) == contents(tmp_path / "one")


@pytest.mark.slow
def test_ten_kills_at_random_moments(manifest, target, windows, tmp_path):
    clips = {
        f"{name}-{copy}": entry
        for copy in range(12)
        for name, entry in manifest.items()
    }
    folder, chance = tmp_path / "labels", random.Random(0)
    arguments = (folder, clips, 1 / 60, multiprocessing.Value("i", 0))
    workers = [start(*arguments, (rank, 2)) for rank in (0, 1)]
    for _ in range(10):
        # Not before there is work under way, else only the start would be tested.
        while not list(folder.glob(".*.partial")) and workers[0].is_alive():
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.2))
        victim = chance.randrange(2)
        workers[victim].kill()
        workers[victim].join()
        if (folder / "verified.json").exists():
            (folder / "verified.json").unlink()  # too fast: half of it once more
            for index in list(folder.glob("shard-*.json"))[::2]:
                index.unlink()
        workers[victim] = start(*arguments, (victim, 2))
    for worker in workers:
        worker.join(timeout=120)
    # The last word, of another number of processes.
    last = start(*arguments, (0, 1))
    last.join(timeout=120)
    assert last.exitcode == 0
    description = describe(windows, clips, 1 / 60, latents=False)
    labels = LabelSet(folder, clips, description)
    verified = json.loads((folder / "verified.json").read_text(encoding="utf-8"))
    assert verified["clips"] == len(clips) and verified["failures"] == {}
    assert not list(folder.glob(".*.partial"))  # what the killed ones left behind
    expected = {}
    for name, entry in clips.items():
        codes = labels.codes(name, 0, 10000)
        assert len(codes) == round(entry["duration"] * 24000) // 960
        music = name.rpartition("-")[0]
        assert np.array_equal(expected.setdefault(music, codes), codes)
