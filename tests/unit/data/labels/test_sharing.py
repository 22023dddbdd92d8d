"""Workers that share a folder: nothing is done twice, nothing is left undone."""

import json
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from muq_plugins.data.labels import LabelSet, LabelWindows, extract_labels
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.shards import plan_shards
from muq_plugins.files import locked
from tests.unit.data.labels.conftest import make_target


def contents(folder):
    """The files that a reader sees."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def start(folder, manifest, shard_minutes, done):
    """Starts a worker with the target of the other tests.

    Forked, since a new interpreter would need seconds to begin.
    """
    context = multiprocessing.get_context("fork")
    arguments = (folder, manifest, shard_minutes, done)
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def work(folder, manifest, shard_minutes, done):
    # The threads of the parent do not exist here: nobody must wait for them.
    torch.set_num_threads(1)
    target = make_target()
    windows = LabelWindows.in_seconds(target, window=0.8, context=0.2)
    result = extract_labels(folder, windows, manifest, shard_minutes)
    with done.get_lock():
        done.value += result.shards


def test_shards_hold_every_clip_once_in_order(manifest):
    shards = plan_shards(Path("x"), manifest, 2.5 / 60)
    assert [clip for shard in shards for clip in shard.clips] == list(manifest)
    assert len(shards) == 3


def test_an_extraction_that_is_complete_is_not_done_again(extract, tmp_path):
    first = extract(tmp_path / "a")
    before = contents(tmp_path / "a")
    assert first.shards == 3 and first.audio_seconds == pytest.approx(7.06, abs=0.01)
    assert extract(tmp_path / "a").shards == 0
    assert contents(tmp_path / "a") == before
    assert not list((tmp_path / "a").glob(".shard*"))


def test_the_shard_of_a_killed_worker_is_free_at_once(extract, tmp_path, manifest):
    folder, done = tmp_path / "labels", multiprocessing.Value("i", 0)
    slow = {f"{copy}": manifest["track0"] for copy in range(200)}  # one shard of 11 min
    worker = start(folder, slow, 60, done)
    described = folder / "labels.json"
    while not described.exists() or not list(folder.glob(".*.partial")):
        time.sleep(0.002)
    with locked(folder, ".shard-00000.lock", wait=False) as free:
        assert not free
    worker.kill()
    worker.join()
    with locked(folder, ".shard-00000.lock", wait=False) as free:
        assert free and not (folder / "shard-00000.json").exists()


def test_two_workers_make_the_files_of_one(extract, tmp_path, manifest):
    done = multiprocessing.Value("i", 0)
    workers = [start(tmp_path / "two", manifest, 2.5 / 60, done) for _ in range(2)]
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert done.value == 3  # no item was done twice
    extract(tmp_path / "one")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_ten_kills_at_random_moments(manifest, target, windows, tmp_path):
    clips = {
        f"{name}-{copy}": entry
        for copy in range(12)
        for name, entry in manifest.items()
    }
    folder, chance = tmp_path / "labels", random.Random(0)
    arguments = (folder, clips, 1 / 60, multiprocessing.Value("i", 0))
    workers = [start(*arguments) for _ in range(2)]
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
        workers[victim] = start(*arguments)
    # The last word: whoever ended early must not have left anything undone.
    last = start(*arguments)
    for worker in [*workers, last]:
        worker.join(timeout=120)
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
