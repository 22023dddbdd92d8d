"""Bringing an index up to date: what changes, what stays, and what can go wrong."""

import os
import shutil
import time

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.loudness import can_measure
from muq_plugins.data.scan import Found
from muq_plugins.data.shares import is_own
from muq_plugins.errors import UserError
from muq_plugins.files import locked
from muq_plugins.inference.index import update as updates
from muq_plugins.inference.index.search import MusicIndex, query_text
from muq_plugins.inference.index.update import EncoderLayer, prune_index, update_index
from muq_plugins.inference.muq import MuQ, save_muq
from muq_plugins.lobes import MuQEncoder
from tests.forks import FORKS
from tests.unit.inference.tones import ToneModel, write_tone


def contents(folder):
    """The latent of each path, as bytes."""
    index = MusicIndex(folder)
    entries = index.store.entries()
    return {entry.path: index.vector(entry).tobytes() for entry in entries}


def update(tmp_path, music, model, **options):
    return update_index(tmp_path / "index", music, model, "tones", **options)


def counts(changes):
    return changes.added, changes.changed, changes.removed, changes.unchanged


def assert_same(one, other):
    assert contents(one) == contents(other)


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


def test_what_came_since_the_folder_was_listed_stays(tmp_path, music, model):
    """An update that has waited, as another one has embedded a file meanwhile."""

    def new_file(_):
        monkeypatch.undo()
        write_tone(music / "new.wav", 330)
        assert counts(update(tmp_path, music, model)) == (1, 0, 0, 4)

    update(tmp_path, music, model)
    monkeypatch = pytest.MonkeyPatch()
    listed = updates.find_audio(str(music))
    monkeypatch.setattr(updates, "find_audio", lambda _: new_file(_) or listed)
    assert counts(update(tmp_path, music, model)) == (0, 0, 0, 4)
    assert counts(update(tmp_path, music, model)) == (0, 0, 0, 5)


def test_a_new_file_moves_no_other_to_another_process(monkeypatch):
    def share(rank):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("RANK", str(rank))
        return {name for name in names if is_own(name)}

    names = [f"album {number % 7}/{number}.flac" for number in range(300)]
    before = [share(rank) for rank in range(3)]
    assert sum(map(len, before)) == 300 and set.union(*before) == set(names)
    assert all(80 <= len(one) <= 120 for one in before)
    names.insert(0, "a new one.flac")
    assert all(old <= share(rank) for rank, old in enumerate(before))


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
    half = write_tone(music / "half.wav", 220, seconds=3.0)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    soundfile.write(music / "slow.wav", np.full(40000, 0.5), 1)
    changes = update(tmp_path, music, model)
    assert counts(changes) == (4, 0, 0, 0)
    names = ("bad.wav", "cut.flac", "empty.flac", "half.wav", "slow.wav")
    bad = [str(music / name) for name in names]
    assert [problem.split(":")[0] for problem in changes.problems] == bad
    assert "cut.flac: truncated" in changes.problems[1]
    assert "half.wav: truncated" in changes.problems[3]
    assert "slow.wav: implausible" in changes.problems[4]
    store = MusicIndex(tmp_path / "index").store
    assert list(store.problems()) == bad
    # They are listed each time, until they are repaired or removed.
    assert update(tmp_path, music, model).problems == changes.problems
    write_tone(cut, 220)
    for name in ("bad.wav", "half.wav", "slow.wav"):
        (music / name).unlink()
    changes = update(tmp_path, music, model)
    assert counts(changes) == (1, 0, 0, 4)
    assert list(store.problems()) == [str(music / "empty.flac")]


def test_a_pipe_is_listed_and_not_opened(tmp_path, music, model):
    """Opening it would wait for a writer that may never come."""
    os.mkfifo(music / "pipe.wav")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (4, 0, 0, 0)
    [problem] = changes.problems
    assert problem.startswith(f"{music / 'pipe.wav'}: undecodable (not a regular file)")
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

    def broken(self, path, loudness):
        return embed(self, path) * (float("nan") if path.endswith("a.wav") else 1)

    monkeypatch.setattr(ToneModel, "embed_file", broken)
    changes = update(tmp_path, music, model)
    assert counts(changes) == (3, 0, 0, 0)
    assert "what the model makes of it is not finite" in changes.problems[0]


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
    update(tmp_path, music, model)
    (music / "b.wav").unlink()
    monkeypatch.setattr(
        updates,
        "find_audio",
        lambda root: Found(["a.wav"], [("deep", "Permission denied")], [], {}),
    )
    isfile = os.path.isfile
    monkeypatch.setattr(
        updates.os.path, "isfile", lambda path: "deep" not in path and isfile(path)
    )
    changes = update(tmp_path, music, model)
    assert counts(changes) == (0, 0, 1, 1)  # only b.wav is known to be gone
    assert "deep: cannot be listed (Permission denied)" in changes.problems[0]


def test_sound_that_is_not_looked_for_is_listed(tmp_path, music, model):
    (music / "film.mp4").touch()
    [problem] = update(tmp_path, music, model).problems
    assert "film.mp4: other format" in problem


def test_a_folder_without_music_removes_nothing(tmp_path, music, model):
    """Such as the place of a drive that is not connected."""
    update(tmp_path, music, model)
    music.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="does not exist"):
        update(tmp_path, music, model)
    music.mkdir()
    with pytest.raises(UserError, match="no audio files.*indexed stays"):
        update(tmp_path, music, model)
    assert len(MusicIndex(tmp_path / "index")) == 4


def test_names_that_are_not_utf8(tmp_path, music, model):
    name = os.fsdecode(b"caf\xe9.wav")
    (music / "a.wav").rename(music / name)
    (music / os.fsdecode(b"bad\xe9.wav")).write_text("no audio")
    changes = update(tmp_path, music, model)
    assert counts(changes) == (4, 0, 0, 0)
    assert "bad\ufffd.wav: undecodable" in changes.problems[0]
    entry = MusicIndex(tmp_path / "index").store.find(str(music / name))
    assert entry.shown.endswith("/caf\ufffd.wav")


def test_another_model_is_refused(tmp_path, music, model):
    update(tmp_path, music, model)
    with pytest.raises(UserError, match="weights .* 70e5 there, 0ff0 here"):
        update_index(tmp_path / "index", music, ToneModel("0ff0"), "others")


def test_a_folder_of_something_else_is_refused(tmp_path, music, model):
    with pytest.raises(UserError, match="holds a.wav and is not an index"):
        update_index(music, music, model, "tones")


def test_another_layer_is_refused(tmp_path, music, model):
    update(tmp_path, music, ToneModel(layer=3))
    other = ToneModel(layer=6)
    before = (tmp_path / "index" / "music.sqlite").read_bytes()
    with pytest.raises(UserError, match=r"3 there, 6 here\): give --layer 3, or"):
        update(tmp_path, music, other)
    if can_measure():
        with pytest.raises(UserError, match=r"as it is there, -16\.0 here\): leave"):
            update(tmp_path, music, ToneModel(layer=3), loudness=-16.0)
    assert (tmp_path / "index" / "music.sqlite").read_bytes() == before


def test_music_that_has_moved_is_the_same_music(tmp_path, music, model):
    """In the tree, out of it, and with another name; it keeps its numbers."""
    update(tmp_path, music, model)
    before = {entry.content: entry.id for entry in entries(tmp_path)}
    (music / "a.wav").rename(music / "deep" / "other name.wav")
    model.embedded.clear()
    changes = update(tmp_path, music, model)
    assert counts(changes) == (0, 0, 0, 3) and changes.moved == 1
    shutil.move(music, tmp_path / "moved")
    os.utime(tmp_path / "moved" / "b.wav", (1, 1))  # a copy that keeps no times
    changes = update(tmp_path, tmp_path / "moved", model)
    assert counts(changes) == (0, 0, 0, 0) and changes.moved == 4
    assert model.embedded == []
    assert {entry.content: entry.id for entry in entries(tmp_path)} == before
    assert counts(update(tmp_path, tmp_path / "moved", model)) == (0, 0, 0, 4)
    update_index(tmp_path / "fresh", tmp_path / "moved", model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")


def entries(tmp_path):
    return MusicIndex(tmp_path / "index").store.entries()


def test_a_copy_has_not_moved(tmp_path, music, model):
    """Nor has another file of the same size in the place of one that has gone."""
    update(tmp_path, music, model)
    shutil.copy(music / "a.wav", music / "copy.wav")
    assert counts(update(tmp_path, music, model)) == (1, 0, 0, 4)
    (music / "b.wav").unlink()
    new = write_tone(music / "new.wav", 1760)
    assert new.stat().st_size == (music / "a.wav").stat().st_size
    assert counts(update(tmp_path, music, model)) == (1, 0, 1, 4)


def test_a_file_whose_time_alone_has_changed_is_the_same(tmp_path, music, model):
    """Such as all files of a backup that was restored."""
    update(tmp_path, music, model)
    before = {entry.path: entry.id for entry in entries(tmp_path)}
    os.utime(music / "a.wav", (1, 1))
    model.embedded.clear()
    for _ in range(2):
        assert counts(update(tmp_path, music, model)) == (0, 0, 0, 4)
    assert model.embedded == []
    assert {entry.path: entry.id for entry in entries(tmp_path)} == before
    assert all(entry.is_current() for entry in entries(tmp_path))


def test_each_file_that_may_have_moved_is_looked_for_once(
    tmp_path, music, model, monkeypatch
):
    """Files of equal size are many where music is cut into clips."""
    update(tmp_path, music, model)
    for number in range(10):
        write_tone(tmp_path / "new" / f"{number}.wav", 1000 + 10 * number)
    asked, has_gone = [], updates._has_gone
    monkeypatch.setattr(
        updates, "_has_gone", lambda path: asked.append(path) or has_gone(path)
    )
    assert counts(update(tmp_path, tmp_path / "new", model)) == (10, 0, 0, 0)
    assert sorted(asked) == sorted(map(str, music.rglob("*.wav")))
    asked.clear()
    write_tone(music / "new.wav", 990)
    assert counts(update(tmp_path, music, model)) == (1, 0, 0, 4)
    assert sorted(asked) == [str(tmp_path / "new" / f"{n}.wav") for n in range(10)]


def test_music_is_the_same_behind_a_new_link(tmp_path, music, model):
    """The folder is found by the first name that it has, which is another now."""
    update(tmp_path, music, model)
    write_tone(music / "deep" / "d.wav", 330)  # as the link comes, this changes
    (music / "album").symlink_to(music / "deep")
    model.embedded.clear()
    changes = update(tmp_path, music, model)
    assert counts(changes) == (1, 0, 1, 2) and changes.moved == 1
    assert model.embedded == ["d.wav"]
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")
    (music / "album").unlink()
    changes = update(tmp_path, music, model)
    assert counts(changes) == (0, 0, 0, 2) and changes.moved == 2


def test_music_of_an_older_index_has_moved(tmp_path, music, model):
    """Without a hash of its content, the same name, size and time are enough."""
    update(tmp_path, music, model)
    store = MusicIndex(tmp_path / "index").store
    with store._changing() as (connection, _):
        connection.execute("UPDATE files SET content = NULL")
    shutil.move(music, tmp_path / "moved")
    assert update(tmp_path, tmp_path / "moved", model).moved == 4
    assert None not in {entry.content for entry in entries(tmp_path)}


def test_files_that_have_gone_are_pruned(tmp_path, music, model):
    other = write_tone(tmp_path / "other" / "e.wav", 660)
    update(tmp_path, music, model)
    update(tmp_path, other.parent, model)
    shutil.rmtree(music / "deep")
    other.unlink()
    gone = prune_index(tmp_path / "index")
    assert gone == [str(music / "deep" / name) for name in ("c.wav", "d.wav")] + [
        str(other)
    ]
    assert len(entries(tmp_path)) == 2
    assert prune_index(tmp_path / "index") == []
    with pytest.raises(UserError, match="is not an index of music"):
        prune_index(tmp_path / "nowhere")


def test_an_index_that_was_cut_is_pruned(tmp_path, music, model):
    update(tmp_path, music, model)
    [path] = (tmp_path / "index").glob("*.f4")
    os.truncate(path, path.stat().st_size - 4)
    shutil.rmtree(music / "deep")
    assert len(prune_index(tmp_path / "index")) == 2
    assert update(tmp_path, music, model).files == 2
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")


def test_damaged_vectors_are_made_again(tmp_path, music, model):
    update(tmp_path, music, model)
    [path] = (tmp_path / "index").glob("*.f4")
    content = bytearray(path.read_bytes())
    content[150] ^= 1
    path.write_bytes(content)
    model.embedded.clear()
    assert counts(update(tmp_path, music, model)) == (0, 1, 0, 3)
    assert model.embedded == ["b.wav"]
    path.unlink()
    assert counts(update(tmp_path, music, model)) == (0, 4, 0, 0)
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")


@pytest.fixture
def encoder(tmp_path):
    """An encoder that knows no words."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    return MuQ.from_pretrained(save_muq(tmp_path / "model", encoder))


def test_an_index_of_an_encoder(tmp_path, music, encoder):
    """Its vectors are the directions of what `embed` writes."""
    write_tone(music / "click.wav", 220, seconds=0.02)
    write_tone(music / "long.wav", 220, seconds=70)
    changes = update_index(tmp_path / "index", music, EncoderLayer(encoder, 1), "muq")
    assert counts(changes) == (5, 0, 0, 0)
    assert "click.wav: too short (0.020 s, a frame needs" in changes.problems[0]
    index = MusicIndex(tmp_path / "index")
    assert index.store.layer == 1 and not index.takes_texts
    for name in ("a.wav", "long.wav"):
        entry = index.store.find(str(music / name))
        chunks = [chunk.hidden for chunk in encoder.embed_long(entry.path, layer=1)]
        mean = torch.cat(chunks).mean(0)
        expected = torch.nn.functional.normalize(mean, dim=0).numpy()
        assert np.abs(index.vector(entry) - expected).max() < 1e-6
        assert index.search(expected, top=1)[0].score == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError, match="holds layer 1 of muq, which knows no words"):
        query_text(index, "calm")


def work(index, music, seconds, begun, share):
    os.environ.update(share)
    begun.set()
    update_index(index, music, ToneModel(seconds=seconds), "tones")


def start(index, music, seconds, **share):
    """An update in another process, past its imports."""
    begun = FORKS.Event()
    process = FORKS.Process(target=work, args=(index, music, seconds, begun, share))
    process.start()
    assert begun.wait(120)
    return process


def wait_for(index, files):
    """Until that many are done."""
    done = 0
    while done < files:
        time.sleep(0.02)
        if (index / "music.sqlite").exists():
            done = len(MusicIndex(index))


def test_a_kill_leaves_what_is_done(tmp_path, music, model):
    for number in range(20):
        write_tone(music / f"{number:02d}.wav", 200 + 100 * number)
    process = start(tmp_path / "index", music, 0.1)
    try:
        wait_for(tmp_path / "index", 5)
    finally:
        process.kill()
        process.join()
    index = MusicIndex(tmp_path / "index")
    done = len(index)
    assert 5 <= done < 24
    assert len(index.search(model.embed_text(["440"])[0], top=3)) == 3
    assert counts(update(tmp_path, music, model)) == (24 - done, 0, 0, done)
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")


def test_updates_at_the_same_time_wait(tmp_path, music, model):
    (tmp_path / "index").mkdir()
    with locked(tmp_path / "index"):
        process = start(tmp_path / "index", music, 0.0)
        try:
            time.sleep(0.5)
            assert process.is_alive()
            assert not (tmp_path / "index" / "music.sqlite").exists()
        except BaseException:
            process.kill()
            raise
    process.join(60)
    assert process.exitcode == 0
    assert counts(update(tmp_path, music, model)) == (0, 0, 0, 4)


def test_several_processes_embed_a_share_each(tmp_path, music, model, monkeypatch):
    """At once; what a killed one left is done by others, in any number."""
    for number in range(20):
        write_tone(music / f"{number:02d}.wav", 200 + 100 * number)
    ranks = [
        start(tmp_path / "index", music, 0.1, RANK=rank, WORLD_SIZE="2")
        for rank in "01"
    ]
    try:
        wait_for(tmp_path / "index", 5)
        ranks[0].kill()
        ranks[1].join(60)
        assert ranks[1].exitcode == 0
    finally:
        ranks[0].kill()
        ranks[1].kill()
    done = len(MusicIndex(tmp_path / "index"))
    names = [path.relative_to(music).as_posix() for path in music.rglob("*.wav")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert sum(map(is_own, names)) <= done < 24
    added = 0
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in "201":
        monkeypatch.setenv("RANK", rank)
        changes = update(tmp_path, music, model)
        assert changes.added + changes.unchanged == sum(map(is_own, names))
        added += changes.added
    assert added == 24 - done
    monkeypatch.undo()
    assert counts(update(tmp_path, music, model)) == (0, 0, 0, 24)
    update_index(tmp_path / "fresh", music, model, "tones")
    assert_same(tmp_path / "index", tmp_path / "fresh")
