"""Bringing an index up to date: what changes, what stays, and what can go wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from muq_plugins.data.locking import alone
from muq_plugins.inference.index import (
    MusicIndex,
    MusicIndexError,
    faiss_neighbours,
    update_index,
)
from tests.unit.inference.tones import ToneModel, write_tone

ROOT = Path(__file__).parents[4]


def contents(folder):
    """Paths and latents, in the order of the paths."""
    database = MusicIndex(folder).database
    _, latents = database.latents()
    paths = [entry.path for entry in database.entries()]
    order = np.argsort(paths)
    return [paths[index] for index in order], latents[order]


def update(tmp_path, music, model, **options):
    return update_index(tmp_path / "index", music, model, "tones", **options)


def counts(changes):
    return changes.added, changes.changed, changes.removed, changes.unchanged


def assert_same(one, other):
    paths, latents = contents(one)
    other_paths, other_latents = contents(other)
    assert paths == other_paths
    assert np.array_equal(latents, other_latents)


def test_an_update_equals_a_fresh_index(tmp_path, music, model):
    assert counts(update(tmp_path, music, model)) == (4, 0, 0, 0)
    write_tone(music / "new.wav", 330)
    write_tone(music / "b.wav", 1760)
    (music / "deep" / "c.wav").unlink()
    model.embedded.clear()
    assert counts(update(tmp_path, music, model)) == (1, 1, 1, 2)
    assert model.embedded == ["b.wav", "new.wav"]
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")
    model.embedded.clear()
    assert counts(update(tmp_path, music, model)) == (0, 0, 0, 4)
    assert model.embedded == []


def test_a_change_of_the_same_size_is_seen(tmp_path, music, model):
    update(tmp_path, music, model)
    size = (music / "a.wav").stat().st_size
    write_tone(music / "a.wav", 3520)
    assert (music / "a.wav").stat().st_size == size
    assert counts(update(tmp_path, music, model)) == (0, 1, 0, 3)


def test_folders_share_an_index(tmp_path, music, model):
    other = tmp_path / "other"
    write_tone(other / "e.wav", 660)
    update(tmp_path, music, model)
    assert counts(update(tmp_path, other, model)) == (1, 0, 0, 0)
    assert len(MusicIndex(tmp_path / "index")) == 5
    # A part of a folder is not taken for all of it.
    write_tone(music / "deep" / "f.wav", 990)
    assert counts(update(tmp_path, music / "deep", model)) == (1, 0, 0, 2)
    assert len(MusicIndex(tmp_path / "index")) == 6


def test_bad_files_are_listed_and_come_back(tmp_path, music, model):
    (music / "bad.wav").write_text("no audio")
    cut = write_tone(music / "cut.flac", 220, seconds=3.0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    np.zeros(0).tofile(music / "empty.flac")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (4, 0, 0, 0)
    bad = [str(music / name) for name in ("bad.wav", "cut.flac", "empty.flac")]
    assert [problem.split(":")[0] for problem in changes.problems] == bad
    assert "cut.flac: truncated" in changes.problems[1]
    database = MusicIndex(tmp_path / "index").database
    assert list(database.problems()) == bad
    # They are listed each time, until they are repaired or removed.
    assert update(tmp_path, music, model).problems == changes.problems
    write_tone(cut, 220)
    (music / "bad.wav").unlink()
    changes = update(tmp_path, music, model)
    assert counts(changes) == (1, 0, 0, 4)
    assert list(database.problems()) == [str(music / "empty.flac")]


def test_a_pipe_is_listed_and_not_opened(tmp_path, music, model):
    """Opening it would wait for a writer that may never come."""
    os.mkfifo(music / "pipe.wav")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (4, 0, 0, 0)
    [problem] = changes.problems
    assert problem.startswith(f"{music / 'pipe.wav'}: not a regular file")
    # Also in the place of a file that is indexed.
    (music / "a.wav").unlink()
    os.mkfifo(music / "a.wav")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (0, 0, 0, 3) and len(changes.problems) == 2
    assert len(MusicIndex(tmp_path / "index")) == 3


def test_a_file_that_goes_bad_is_not_found_any_more(tmp_path, music, model):
    update(tmp_path, music, model)
    (music / "a.wav").write_text("no audio")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (0, 0, 0, 3)
    assert "a.wav: undecodable" in changes.problems[0]
    assert len(MusicIndex(tmp_path / "index")) == 3


def test_a_latent_that_is_not_finite_is_a_problem(tmp_path, music, model, monkeypatch):
    embed = ToneModel.embed_file

    def broken(self, path):
        return embed(self, path) * (float("nan") if path.endswith("a.wav") else 1)

    monkeypatch.setattr(ToneModel, "embed_file", broken)
    changes = update(tmp_path, music, model)
    assert counts(changes) == (3, 0, 0, 0)
    assert "the model's latent is not finite" in changes.problems[0]


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every folder")
def test_music_that_cannot_be_seen_stays(tmp_path, music, model):
    update(tmp_path, music, model)
    (music / "deep").chmod(0)
    try:
        changes = update(tmp_path, music, model)
    finally:
        (music / "deep").chmod(0o755)
    assert "deep: cannot be listed" in changes.problems[0]
    assert len(MusicIndex(tmp_path / "index")) == 4


def test_an_unlisted_folder_keeps_its_files(tmp_path, music, model, monkeypatch):
    """As above, also for root."""
    from muq_plugins.inference.index import update as module

    update(tmp_path, music, model)
    monkeypatch.setattr(
        module,
        "find_audio",
        lambda root: (["a.wav"], [("deep", "Permission denied")], {}),
    )
    changes = update(tmp_path, music, model)
    assert counts(changes) == (0, 0, 1, 1)  # only b.wav is known to be gone
    assert "deep: cannot be listed (Permission denied)" in changes.problems[0]


def test_a_folder_without_music_removes_nothing(tmp_path, music, model):
    """Such as the place of a drive that is not connected."""
    update(tmp_path, music, model)
    music.rename(tmp_path / "elsewhere")
    with pytest.raises(MusicIndexError, match="does not exist"):
        update(tmp_path, music, model)
    music.mkdir()
    with pytest.raises(MusicIndexError, match="no audio files.*indexed stays"):
        update(tmp_path, music, model)
    assert len(MusicIndex(tmp_path / "index")) == 4


def test_names_that_are_not_utf8(tmp_path, music, model):
    name = os.fsdecode(b"caf\xe9.wav")
    (music / "a.wav").rename(music / name)
    (music / os.fsdecode(b"bad\xe9.wav")).write_text("no audio")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (4, 0, 0, 0)
    assert "bad\ufffd.wav: undecodable" in changes.problems[0]
    entry = MusicIndex(tmp_path / "index").database.find(str(music / name))
    assert entry.shown.endswith("/caf\ufffd.wav")


def test_another_model_is_refused(tmp_path, music, model):
    update(tmp_path, music, model)
    with pytest.raises(MusicIndexError, match=r"tones \(70e5\), this is .*\(0ff0\)"):
        update_index(tmp_path / "index", music, ToneModel("0ff0"), "others")


def test_a_folder_of_something_else_is_refused(tmp_path, music, model):
    with pytest.raises(MusicIndexError, match="holds a.wav and is not an index"):
        update_index(music, music, model, "tones")


def test_an_index_of_before_is_not_mixed_in(tmp_path, music, model):
    """The FAISS file of an index that was removed."""
    update(tmp_path, music, model, faiss_above=0)
    (tmp_path / "index" / "music.sqlite").unlink()
    [left] = (tmp_path / "index").iterdir()
    with pytest.raises(MusicIndexError, match="is not an index"):
        update(tmp_path, music, model)
    (tmp_path / "index2").mkdir()
    update_index(tmp_path / "index2", music, model, "tones")
    left.rename(tmp_path / "index2" / left.name)
    update_index(tmp_path / "index2", music, model, "tones", faiss_above=0)
    assert left.name not in os.listdir(tmp_path / "index2")


def test_the_faiss_file_follows(tmp_path, music, model):
    """It is updated, made anew when it is damaged, and removed below the size."""
    update(tmp_path, music, model)
    assert MusicIndex(tmp_path / "index").is_exact
    update(tmp_path, music, model, faiss_above=3)
    [file] = (tmp_path / "index").glob("*.faiss")
    write_tone(music / "b.wav", 1760)
    (music / "a.wav").unlink()
    write_tone(music / "e.wav", 660)
    update(tmp_path, music, model, faiss_above=3)
    index = MusicIndex(tmp_path / "index")
    assert not index.is_exact
    assert index._neighbours.ids().tolist() == index.database.ids().tolist()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MusicIndexError, match="faiss is damaged.*makes it again"):
        MusicIndex(tmp_path / "index")
    update(tmp_path, music, model, faiss_above=3)
    [best, *_] = MusicIndex(tmp_path / "index").search(model.embed_text(["1760"])[0])
    assert best.entry.path.endswith("b.wav")
    update(tmp_path, music, model, faiss_above=4)
    assert not file.exists()


def test_many_more_files_get_new_cells(tmp_path, music, model):
    update(tmp_path, music, model, faiss_above=0)
    for number in range(8):
        write_tone(music / f"{number}.wav", 200 + 100 * number)
    cells = MusicIndex(tmp_path / "index")._neighbours.index.nlist
    update(tmp_path, music, model, faiss_above=0)
    assert MusicIndex(tmp_path / "index")._neighbours.index.nlist > cells


def test_without_faiss_nothing_is_begun(tmp_path, music, model, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(faiss_neighbours, "import_module", missing)
    with pytest.raises(MusicIndexError, match=r"pip install 'muq-plugins\[search\]'"):
        update(tmp_path, music, model, faiss_above=3)
    assert model.embedded == []
    update(tmp_path, music, model, faiss_above=4)


DRIVER = """
import sys
from muq_plugins.inference.index import update_index
from tests.unit.inference.tones import ToneModel
print("begin", flush=True)
update_index(sys.argv[1], sys.argv[2], ToneModel(seconds=float(sys.argv[3])), "tones")
"""


def start(index, music, seconds):
    """An update in another process, past its imports."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, index, music, str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begin\n"
    return process


def test_a_kill_leaves_what_is_done(tmp_path, music, model):
    for number in range(20):
        write_tone(music / f"{number:02d}.wav", 200 + 100 * number)
    process = start(tmp_path / "index", music, 0.1)
    try:
        done = 0
        while done < 5:
            time.sleep(0.02)
            if (tmp_path / "index" / "music.sqlite").exists():
                done = len(MusicIndex(tmp_path / "index"))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    index = MusicIndex(tmp_path / "index")
    done = len(index)
    assert 5 <= done < 24
    assert len(index.search(model.embed_text(["440"])[0], top=3)) == 3
    assert counts(update(tmp_path, music, model)) == (24 - done, 0, 0, done)
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")


def test_updates_at_the_same_time_wait(tmp_path, music, model):
    (tmp_path / "index").mkdir()
    with alone(tmp_path / "index"):
        process = start(tmp_path / "index", music, 0.0)
        try:
            time.sleep(0.5)
            assert process.poll() is None
            assert not (tmp_path / "index" / "music.sqlite").exists()
        except BaseException:
            process.kill()
            raise
    assert process.wait(30) == 0
    process.stdout.close()
    assert counts(update(tmp_path, music, model)) == (0, 0, 0, 4)
