"""The store of an index: what a kill leaves, damage, compaction, and the old format."""

import os
import signal
import sqlite3
import zlib

import numpy as np
import pytest

from muq_plugins.errors import UserError
from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.index.store import (
    APPLICATION,
    FILE,
    TURN,
    Store,
    _write_vectors,
    create,
)
from muq_plugins.inference.space import latent_space
from tests.forks import FORKS

WIDTH = 3


@pytest.fixture
def store(tmp_path):
    create(tmp_path, "results/tones", latent_space("70e5"), WIDTH)
    return Store(tmp_path)


def vector(number):
    return np.array([number, 0.5, -number], np.float32)


def put(store, *numbers):
    for number in numbers:
        store.put(f"/{number}.wav", 48, 0, 1.0, vector(number))


def found(index):
    """The paths of an index with the first number of their vectors."""
    pairs = [
        (os.path.basename(entry.path), vectors[place, 0])
        for entries, vectors in index.all_vectors()
        for place, entry in enumerate(entries)
    ]
    return {name: float(number) for name, number in pairs}


def expected(*numbers):
    return {f"{number}.wav": float(number) for number in numbers}


def test_a_view_follows_each_change(store, tmp_path):
    """Also many changes between two looks, and none."""
    index = MusicIndex(tmp_path)
    assert found(index) == {}
    put(store, 1, 2, 3)
    assert found(index) == expected(1, 2, 3)
    store.remove(["/2.wav"])
    put(store, 4, 3)  # the same file again has another number
    assert found(index) == found(index) == expected(1, 3, 4)
    put(store, 5)
    store.remove(["/5.wav", "/nowhere.wav"])
    assert found(index) == found(MusicIndex(tmp_path)) == expected(1, 3, 4)


def test_following_costs_what_has_changed(store, tmp_path):
    """Not what there is: else a service that is alive stops at each change."""
    put(store, *range(20))
    index = MusicIndex(tmp_path)
    put(store, 20)
    store.remove(["/3.wav"])
    news = store.news(index._name, index._revision)
    assert (len(news.rows), news.ids.tolist()) == (2, [21, -1])
    index.search(vector(1))
    assert store.news(index._name, index._revision) is None


def test_what_a_kill_leaves_is_not_there(store, tmp_path):
    """A vector without a row, and half a vector."""
    put(store, 1, 2)
    [path] = tmp_path.glob("*.f4")
    for left in (vector(9).tobytes(), b"half"):
        with open(path, "ab") as file:
            file.write(left)
        assert found(MusicIndex(tmp_path)) == expected(1, 2)
    put(store, 3)
    assert found(MusicIndex(tmp_path)) == expected(1, 2, 3)
    assert store.check() == set()


def test_dead_vectors_are_left_out_when_they_are_many(store, tmp_path):
    put(store, *range(9))
    store.remove([f"/{number}.wav" for number in (0, 4, 8)])
    [before] = tmp_path.glob("*.f4")
    index, content = MusicIndex(tmp_path), before.read_bytes()
    store.compact()
    assert before.read_bytes() == content  # a third and no more
    store.remove(["/5.wav"])
    store.compact()
    [after] = tmp_path.glob("*.f4")
    assert after != before and after.stat().st_size == 5 * 4 * WIDTH
    # Also for those who have mapped the old file.
    assert found(index) == found(MusicIndex(tmp_path)) == expected(1, 2, 3, 6, 7)
    put(store, 10)
    store.remove(["/1.wav"])
    assert found(index) == expected(2, 3, 6, 7, 10)
    assert store.check() == set()


def test_a_compaction_that_was_killed(store, tmp_path, monkeypatch):
    """Before its commit: the old vectors are those of the index."""
    put(store, *range(6))
    store.remove([f"/{number}.wav" for number in range(4)])
    before = set(tmp_path.glob("*.f4"))
    with monkeypatch.context() as patch:
        patch.setattr("muq_plugins.inference.index.store._NUMBER_ROWS", "no SQL")
        with pytest.raises(UserError, match="cannot be used"):
            store.compact()
    assert len(set(tmp_path.glob("*.f4")) - before) == 1
    assert found(MusicIndex(tmp_path)) == expected(4, 5)
    store.compact()
    assert found(MusicIndex(tmp_path)) == expected(4, 5)
    assert len(list(tmp_path.glob("*.f4"))) == 1


def killed_compaction(folder):
    def kill():
        yield bytes(1000)
        os.kill(os.getpid(), signal.SIGKILL)

    _write_vectors(folder, kill())


def test_what_a_killed_compaction_leaves_is_taken_away(store, tmp_path):
    put(store, 1, 2)
    before = set(tmp_path.iterdir())
    process = FORKS.Process(target=killed_compaction, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(set(tmp_path.iterdir()) - before) == 1
    store.compact()
    assert set(tmp_path.iterdir()) - before == {tmp_path / TURN}
    assert found(MusicIndex(tmp_path)) == expected(1, 2)


def test_a_changed_bit_is_noticed(store, tmp_path):
    put(store, 1, 2, 3)
    [path] = tmp_path.glob("*.f4")
    content = bytearray(path.read_bytes())
    content[4 * WIDTH + 3] ^= 0x3F  # of 2.wav: a huge number, which would rank first
    path.write_bytes(content)
    assert store.check() == {2}
    with pytest.raises(UserError, match=r"The vector of /2.wav .* has changed.*again"):
        MusicIndex(tmp_path).search(vector(1), top=1)


@pytest.mark.parametrize("left", [0, 20])
def test_vectors_that_are_missing_are_noticed(store, tmp_path, left):
    put(store, 1, 2, 3)
    [path] = tmp_path.glob("*.f4")
    os.truncate(path, left)
    with pytest.raises(UserError, match=r"\.f4 holds . of 3 vectors.*run"):
        MusicIndex(tmp_path)
    left = left // (4 * WIDTH)
    assert store.check() == set(range(left + 1, 4))
    put(store, *range(left + 1, 4))  # no row is given twice
    assert found(MusicIndex(tmp_path)) == expected(1, 2, 3)


def old_index(folder, names=("a", "b", "c")):
    """An index as format 1 has it: vectors inside, and a FAISS file beside."""
    connection = sqlite3.connect(folder / FILE)
    connection.executescript(
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
        "CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE,"
        " bytes INTEGER, modified INTEGER, duration REAL, latent BLOB,"
        " checksum INTEGER);"
        "CREATE TABLE problems (path BLOB PRIMARY KEY, reason TEXT NOT NULL);"
        f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1;"
    )
    facts = {"model": "results/tones", "fingerprint": "70e5", "width": str(WIDTH)}
    facts |= {"id": "5c1a", "revision": "77aa"}
    with connection:
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        for number, name in enumerate(names, start=2):
            blob = vector(number).tobytes()
            connection.execute(
                "INSERT INTO files VALUES (?, ?, 48, 0, 1.0, ?, ?)",
                (number, f"/music/{name}.wav".encode(), blob, zlib.crc32(blob)),
            )
        connection.execute("INSERT INTO problems VALUES (?, 'bad')", (b"/music/x.wav",))
    connection.close()
    (folder / "latents-5c1a.faiss").touch()


def test_an_index_of_format_1_goes_on(tmp_path):
    """To embed its music again would cost hours."""
    old_index(tmp_path)
    index = MusicIndex(tmp_path)
    assert found(index) == {"a.wav": 2.0, "b.wav": 3.0, "c.wav": 4.0}
    assert (index.store.model, index.store.space) == (
        "results/tones",
        latent_space("70e5"),
    )
    assert index.takes_texts and index.store.folders() == ["/music"]
    assert index.store.problems() == {"/music/x.wav": "bad"}
    assert [entry.id for entry in index.store.entries()] == [2, 3, 4]
    assert index.store.check() == set()
    put(index.store, 9)
    index.store.remove(["/music/b.wav"])
    assert (
        found(index)
        == found(MusicIndex(tmp_path))
        == {
            "a.wav": 2.0,
            "c.wav": 4.0,
            "9.wav": 9.0,
        }
    )
    assert not list(tmp_path.glob("*.faiss"))


def test_a_migration_that_is_killed_begins_again(tmp_path, monkeypatch):
    old_index(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("muq_plugins.inference.index.store._NUMBER_ROWS", "no SQL")
        with pytest.raises(UserError, match="cannot be used"):
            MusicIndex(tmp_path)
    assert found(MusicIndex(tmp_path)) == {"a.wav": 2.0, "b.wav": 3.0, "c.wav": 4.0}


def test_an_empty_index_of_format_1(tmp_path):
    old_index(tmp_path, names=())
    index = MusicIndex(tmp_path)
    assert index.search(vector(1)) == []
    put(index.store, 1)
    assert found(index) == expected(1)


def test_another_sqlite_file_is_no_index(tmp_path):
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    with pytest.raises(UserError, match="not an index that this version"):
        Store(tmp_path)
    with pytest.raises(UserError, match="is not an index of music.*Make one"):
        Store(tmp_path / "nowhere")


def test_what_is_not_finite_never_ranks(store, tmp_path):
    """Not even as one whose checksum fits, which an older version has written."""
    put(store, 1, 2)
    bad = np.array([np.nan, 0.5, 0], "<f4")
    [path] = tmp_path.glob("vectors-*.f4")
    path.write_bytes(bad.tobytes() + path.read_bytes()[bad.nbytes :])
    checksum = zlib.crc32(bad.tobytes())
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE files SET checksum = ? WHERE id = 1", (checksum,))
    with pytest.raises(UserError, match="1.wav .* is not finite: run"):
        MusicIndex(tmp_path).search(vector(2), top=1)
    assert store.check() == {1}
