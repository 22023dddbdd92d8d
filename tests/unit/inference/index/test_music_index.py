"""Searching: the order, FAISS beside exact search, damage, and changes meanwhile."""

import shutil
import sqlite3

import numpy as np
import pytest

from muq_plugins.inference.index import MusicIndex, MusicIndexError, update_index
from muq_plugins.inference.index.exact_neighbours import ExactNeighbours
from muq_plugins.inference.index.faiss_neighbours import FaissNeighbours
from muq_plugins.inference.index.queries import check_text, embed_query, find_example
from tests.unit.inference.tones import write_tone


@pytest.fixture
def folder(tmp_path, music, model):
    update_index(tmp_path / "index", music, model, "tones")
    return tmp_path / "index"


def names(matches):
    return [match.entry.path.rpartition("/")[2] for match in matches]


def search(folder, model, text, **options):
    return MusicIndex(folder).search(embed_query(model, text), **options)


def test_the_best_come_first(folder, model):
    matches = search(folder, model, "440 Hz, much like 880")
    assert set(names(matches[:2])) == {"c.wav", "d.wav"}
    assert names(search(folder, model, "220", top=1)) == ["b.wav"]
    latent = model.embed_text(["220"])[0].numpy()
    assert matches == sorted(matches, key=lambda match: -match.score)
    [best] = MusicIndex(folder).search(latent, top=1)
    expected = model.embed_file(best.entry.path)[0].numpy() @ latent
    assert best.score == pytest.approx(float(expected), abs=1e-6)


def test_an_example_is_not_its_own_answer(folder):
    index = MusicIndex(folder)
    example = find_example(index, "b.wav")
    latent = index.latent(example)
    assert names(index.search(latent, top=1)) == ["b.wav"]
    found = names(index.search(latent, without=example))
    assert sorted(found) == ["a.wav", "c.wav", "d.wav"]


def test_equal_files_stay_in_order(tmp_path, music, model):
    for name in "zyx":
        shutil.copy(music / "a.wav", music / f"{name}.wav")
    update_index(tmp_path / "index", music, model, "tones")
    found = names(search(tmp_path / "index", model, "110", top=4))
    assert found == ["a.wav", "x.wav", "y.wav", "z.wav"]


def clustered(count, width=32):
    """Latents in clusters, as those of music are, and queries among them."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((count // 20, width))
    points = centers[random.integers(0, len(centers), count + 50)]
    points = points + 0.6 * random.standard_normal(points.shape)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = points.astype(np.float32)
    return points[:count], points[count:]


def recall(exact, faiss, queries, top=10):
    shares = [
        np.isin(faiss.search(query, top), exact.search(query, top)).mean()
        for query in queries
    ]
    return np.mean(shares)


def test_faiss_finds_what_exact_search_does():
    latents, queries = clustered(4000)
    ids = np.arange(4000) + 7
    exact, faiss = ExactNeighbours(ids, latents), FaissNeighbours.build(ids, latents)
    assert faiss.index.nprobe < faiss.index.nlist / 4  # it does not look everywhere
    assert recall(exact, faiss, queries) > 0.99
    # Where it does look everywhere, the ranking is the same.
    faiss.index.nprobe = faiss.index.nlist
    for query in queries:
        assert exact.search(query, 10).tolist() == faiss.search(query, 10).tolist()


def test_neighbours_follow_changes():
    latents, queries = clustered(1000)
    first, then = np.arange(600), np.arange(300, 1000)
    for kind in (ExactNeighbours, FaissNeighbours.build):
        neighbours = kind(first, latents[:600])
        assert neighbours.update(then, lambda ids: (ids, latents[ids]))
        assert not neighbours.update(then, lambda ids: (ids, latents[ids]))
        fresh = ExactNeighbours(then, latents[300:])
        assert recall(fresh, neighbours, queries) > 0.95
        found = np.concatenate([neighbours.search(query, 20) for query in queries])
        assert found.min() >= 300


def test_faiss_and_exact_search_of_one_index(tmp_path, music, model):
    for number in range(30):
        write_tone(music / f"{number}.wav", 120 + 40 * number)
    update_index(tmp_path / "index", music, model, "tones", faiss_above=10)
    faiss, exact = MusicIndex(tmp_path / "index"), MusicIndex(tmp_path / "index", True)
    assert not faiss.is_exact and exact.is_exact
    for pitch in (150, 440, 1000):
        latent = embed_query(model, str(pitch))
        scores = [
            [match.score for match in x.search(latent, 5)] for x in (faiss, exact)
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        assert faiss.search(latent, 1) == exact.search(latent, 1)


def test_changes_are_followed_while_it_is_open(tmp_path, folder, music, model):
    index, latent = MusicIndex(folder), embed_query(model, "660")
    gone = find_example(index, "b.wav")
    index.search(latent)
    write_tone(music / "e.wav", 660)
    (music / "b.wav").unlink()
    update_index(folder, music, model, "tones")
    assert names(index.search(latent, top=1)) == ["e.wav"]
    assert "b.wav" not in names(index.search(latent))
    with pytest.raises(MusicIndexError, match="b.wav is not in .* any more"):
        index.latent(gone)


@pytest.mark.parametrize("faiss_above", [0, 100])
def test_a_file_that_goes_while_a_change_is_followed(
    tmp_path, folder, music, model, monkeypatch, faiss_above
):
    """Between the numbers of the files and their latents."""
    update_index(folder, music, model, "tones", faiss_above)
    index, latent = MusicIndex(folder), embed_query(model, "660")
    index.search(latent)
    for name, pitch in (("e", 660), ("f", 990)):
        write_tone(music / f"{name}.wav", pitch)
    update_index(folder, music, model, "tones", faiss_above)
    all_ids = index.database.ids

    def ids_and_then_one_less():
        ids = all_ids()
        index.database.remove([str(music / "e.wav")])
        return ids

    with monkeypatch.context() as patch:
        patch.setattr(index.database, "ids", ids_and_then_one_less)
        found = names(index.search(latent))
    assert sorted(found) == ["a.wav", "b.wav", "c.wav", "d.wav", "f.wav"]
    assert names(index.search(embed_query(model, "990"), top=1)) == ["f.wav"]


@pytest.mark.parametrize("faiss_above", [0, 100])
def test_all_files_leave_while_it_is_open(folder, music, model, faiss_above):
    update_index(folder, music, model, "tones", faiss_above)
    index, latent = MusicIndex(folder), embed_query(model, "660")
    assert index.is_exact == (faiss_above == 100)
    assert len(index.search(latent)) == 4
    index.database.remove([entry.path for entry in index.database.entries()])
    assert index.search(latent) == []


def test_a_faiss_file_left_behind_by_a_kill(tmp_path, music, model):
    """The database is ahead: the answers are right all the same."""
    update_index(tmp_path / "index", music, model, "tones", faiss_above=0)
    [file] = (tmp_path / "index").glob("*.faiss")
    before = file.read_bytes()
    write_tone(music / "e.wav", 660)
    (music / "b.wav").unlink()
    update_index(tmp_path / "index", music, model, "tones", faiss_above=0)
    file.write_bytes(before)
    index = MusicIndex(tmp_path / "index")
    assert not index.is_exact
    found = names(index.search(embed_query(model, "660")))
    assert found[0] == "e.wav" and "b.wav" not in found


def test_damage_is_said_clearly(folder, model):
    path = folder / "music.sqlite"
    content = path.read_bytes()
    latent = embed_query(model, "220")
    for broken in (b"", b"not SQLite" * 1000, content[: len(content) // 2]):
        path.write_bytes(broken)
        with pytest.raises(MusicIndexError, match=r"music.sqlite is (damaged|not an)"):
            MusicIndex(folder).search(latent)
    # A changed bit in a latent, which SQLite does not see.
    place = content.index(second_latent(content, folder, path)) + 5
    flipped = bytearray(content)
    flipped[place] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(MusicIndexError, match="the latent of file 2 has changed.*make"):
        MusicIndex(folder).search(latent)


def second_latent(content, folder, path):
    """The bytes of the second latent in the file."""
    path.write_bytes(content)
    _, latents = MusicIndex(folder).database.latents()
    return latents[1].astype("<f4").tobytes()


def test_another_sqlite_file_is_no_index(tmp_path):
    connection = sqlite3.connect(tmp_path / "music.sqlite")
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    with pytest.raises(MusicIndexError, match="not an index that this version"):
        MusicIndex(tmp_path)
    with pytest.raises(MusicIndexError, match="is not an index of music.*Make one"):
        MusicIndex(tmp_path / "nowhere")


def test_queries_that_make_no_sense(folder):
    index = MusicIndex(folder)
    for query in (np.zeros(3), np.full(24, np.nan)):
        with pytest.raises(MusicIndexError, match="24 finite numbers"):
            index.search(query)
    with pytest.raises(MusicIndexError, match="The query is empty"):
        check_text(" \n\t")


@pytest.mark.parametrize(
    "text", ["220 " * 2500, "🎻 220 🎹", "安静的 220 Hz тихая музыка", "220 \udce9"]
)
def test_long_and_mixed_queries(folder, model, text):
    assert names(search(folder, model, check_text(text), top=1)) == ["b.wav"]


def test_examples_by_name(folder, music):
    index = MusicIndex(folder)
    for name in ("c.wav", "deep/C.wav", str(music / "deep" / "c.wav"), " c.wav "):
        assert find_example(index, name).path == str(music / "deep" / "c.wav")
    with pytest.raises(MusicIndexError, match=r"called e.wav. Close to it: \w.wav"):
        find_example(index, "e.wav")
    with pytest.raises(MusicIndexError, match="The name is empty"):
        find_example(index, " ")


def test_a_name_that_several_have(tmp_path, music, model):
    shutil.copy(music / "a.wav", music / "deep" / "a.wav")
    update_index(tmp_path / "index", music, model, "tones")
    index = MusicIndex(tmp_path / "index")
    with pytest.raises(MusicIndexError, match="2 indexed files are called A.wav: /"):
        find_example(index, "A.wav")
    assert find_example(index, "deep/a.wav").path == str(music / "deep" / "a.wav")
    assert find_example(index, str(music / "a.wav")).path == str(music / "a.wav")


def test_a_path_below_the_folder_of_all_files_is_enough(tmp_path, music, model):
    for place in ("x/y.wav", "z/x/y.wav"):
        write_tone(music / place, 330)
    update_index(tmp_path / "index", music, model, "tones")
    index = MusicIndex(tmp_path / "index")
    assert index.database.common_folder() == str(music)
    assert find_example(index, "x/y.wav").path == str(music / "x" / "y.wav")
    assert find_example(index, "z/x/y.wav").path == str(music / "z" / "x" / "y.wav")
