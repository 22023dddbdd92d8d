"""Workers that share a folder: nothing is done twice, nothing is left undone."""

import json
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from muq_plugins.data.labels import LabelSet
from muq_plugins.data.labels.claims import ClaimFolder
from muq_plugins.data.labels.description import describe
from muq_plugins.data.labels.shards import plan_shards
from tests.unit.data.labels.worker import start


def contents(folder):
    """The files that a reader sees."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# Claims ----------------------------------------------------------------------


def test_an_item_is_claimed_once(tmp_path):
    folders = [ClaimFolder(tmp_path, 60) for _ in range(8)]
    won = []
    barrier = threading.Barrier(8)

    def compete(claims):
        barrier.wait()
        for item in range(20):
            if claim := claims.take(f"item{item}"):
                won.append((item, claim))

    threads = [threading.Thread(target=compete, args=[f]) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item for item, _ in won) == list(range(20))
    for _, claim in won:
        claim.release()
    assert not list((tmp_path / "claims").iterdir())


def test_a_claim_lives_as_long_as_its_worker(tmp_path):
    claims = ClaimFolder(tmp_path, 0.6)
    claim = claims.take("item")
    time.sleep(1.2)
    assert claims.take("item") is None and claim.in_force()
    claim._done.set()  # the worker falls silent
    claim._thread.join()
    time.sleep(0.8)
    heir = claims.take("item")
    assert heir is not None and heir.in_force() and not claim.in_force()
    claim.release()  # it wakes up, and must not take the heir's claim away
    assert heir.in_force() and claims.take("item") is None
    heir.release()
    assert claims.take("item") is not None


def test_only_one_heir(tmp_path):
    dead = tmp_path / "claims" / "item.0"
    folders = [ClaimFolder(tmp_path, 60) for _ in range(8)]
    dead.touch()
    os.utime(dead, (1, 1))
    heirs, barrier = [], threading.Barrier(8)

    def inherit(claims):
        barrier.wait()
        heirs.append(claims.take("item"))

    threads = [threading.Thread(target=inherit, args=[f]) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(heir is not None for heir in heirs) == 1


def test_a_time_that_makes_no_sense(tmp_path):
    with pytest.raises(ValueError, match="stale_seconds is 0"):
        ClaimFolder(tmp_path, 0)


# Workers ----------------------------------------------------------------------


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
    assert not list((tmp_path / "a" / "claims").iterdir())


def test_a_worker_that_lost_its_claim_publishes_nothing(extract, tmp_path, monkeypatch):
    """Its heir has the item: what it has is thrown away, then it looks again."""
    from muq_plugins.data.labels.claims import Claim

    answers = iter([False])
    in_force = Claim.in_force

    def lost_once(claim):
        if claim.path.name.startswith("shard") and claim._taken:
            return next(answers, None) is None and in_force(claim)
        claim._taken = True
        return in_force(claim)

    monkeypatch.setattr(Claim, "_taken", False, raising=False)
    monkeypatch.setattr(Claim, "in_force", lost_once)
    extract(tmp_path / "a", stale_seconds=0.5)
    assert next(answers, None) is None
    monkeypatch.undo()
    extract(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not list((tmp_path / "a").glob("*.partial"))


def test_two_workers_make_the_files_of_one(extract, tmp_path, manifest):
    done = multiprocessing.Value("i", 0)
    workers = [start(tmp_path / "two", manifest, 2.5 / 60, 5, done) for _ in range(2)]
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert done.value == 3  # no item was done twice
    extract(tmp_path / "one")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_twenty_kills_at_random_moments(manifest, target, windows, tmp_path):
    clips = {
        f"{name}-{copy}": entry
        for copy in range(12)
        for name, entry in manifest.items()
    }
    folder, chance = tmp_path / "labels", random.Random(0)
    arguments = (folder, clips, 1 / 60, 1.0, multiprocessing.Value("i", 0))
    workers = [start(*arguments) for _ in range(2)]
    for _ in range(20):
        # Not before there is work under way, else only the start would be tested.
        while not list(folder.glob("*.partial")) and workers[0].is_alive():
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
    description = describe(target, windows, clips, 1 / 60, latents=False)
    labels = LabelSet(folder, clips, description)
    verified = json.loads((folder / "verified.json").read_text(encoding="utf-8"))
    assert verified["clips"] == len(clips) and verified["failures"] == {}
    assert not list(folder.glob("*.partial"))  # what the killed ones left behind
    expected = {}
    for name, entry in clips.items():
        codes = labels.codes(name, 0, 10000)
        assert len(codes) == round(entry["duration"] * 24000) // 960
        music = name.rpartition("-")[0]
        assert np.array_equal(expected.setdefault(music, codes), codes)
