"""Searching: the order, damage, changes meanwhile, examples by name, and export."""

import os
import shutil
import threading
import unicodedata

import numpy as np
import pytest

from muq_plugins.errors import UserError
from muq_plugins.inference.index.search import (
    COMPARED,
    MusicIndex,
    embed_query,
    export_parquet,
    find_example,
    find_folder,
    query_text,
    stands_out,
)
from muq_plugins.inference.index.store import Store, create
from muq_plugins.inference.index.update import update_index
from muq_plugins.inference.space import latent_space
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
    assert matches == sorted(matches, key=lambda match: -round(match.score, 6))
    [best] = MusicIndex(folder).search(latent, top=1)
    expected = model.embed_file(best.entry.path)[0].numpy() @ latent
    assert best.score == pytest.approx(float(expected), abs=1e-6)


def test_an_example_is_not_its_own_answer(folder):
    index = MusicIndex(folder)
    example = find_example(index, "b.wav")
    latent = index.vector(example)
    assert names(index.search(latent, top=1)) == ["b.wav"]
    found = names(index.search(latent, without=example))
    assert sorted(found) == ["a.wav", "c.wav", "d.wav"]


def test_equal_files_stay_in_order(tmp_path, music, model):
    for name in "zyx":
        shutil.copy(music / "a.wav", music / f"{name}.wav")
    update_index(tmp_path / "index", music, model, "tones")
    found = names(search(tmp_path / "index", model, "110", top=4))
    assert found == ["a.wav", "x.wav", "y.wav", "z.wav"]


def test_all_vectors_are_compared(tmp_path):
    """Against a plain sort, for counts below and above the number of files."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((500, 24)).astype(np.float32)
    create(tmp_path, "results/tones", latent_space("70e5"), 24)
    index = MusicIndex(tmp_path)
    for number, vector in enumerate(vectors):
        index.store.put(f"/{number}", 48, 0, 1.0, vector)
    index.store.remove([f"/{number}" for number in range(0, 500, 7)])
    there = [number for number in range(500) if number % 7]
    for query in random.standard_normal((20, 24)).astype(np.float32):
        scores = vectors.astype(np.float64) @ query
        expected = sorted(there, key=lambda number: -scores[number])
        for top in (1, 10, 600):
            found = index.search(query, top)
            assert [int(match.entry.path[1:]) for match in found] == expected[:top]
        assert found[3].score == pytest.approx(scores[expected[3]], abs=1e-6)


def test_changes_are_followed_while_it_is_open(tmp_path, folder, music, model):
    index, latent = MusicIndex(folder), embed_query(model, "660")
    gone = find_example(index, "b.wav")
    index.search(latent)
    write_tone(music / "e.wav", 660)
    (music / "b.wav").unlink()
    update_index(folder, music, model, "tones")
    assert names(index.search(latent, top=1)) == ["e.wav"]
    assert "b.wav" not in names(index.search(latent))
    with pytest.raises(UserError, match="b.wav is not in .* any more"):
        index.vector(gone)


def test_a_file_that_goes_while_an_answer_is_made(folder, model, monkeypatch):
    """Between the look at what has changed and the names of what was found."""
    index, refresh = MusicIndex(folder), MusicIndex._refresh

    def refresh_and_then_one_less(index):
        refresh(index)
        index.store.remove([find_example(index, "b.wav").path])

    with monkeypatch.context() as patch:
        patch.setattr(MusicIndex, "_refresh", refresh_and_then_one_less)
        found = names(index.search(embed_query(model, "220")))
    assert sorted(found) == ["a.wav", "c.wav", "d.wav"]


def test_all_files_leave_while_it_is_open(folder, model):
    index, latent = MusicIndex(folder), embed_query(model, "660")
    assert len(index.search(latent)) == 4
    index.store.remove([entry.path for entry in index.store.entries()])
    assert index.search(latent) == []


def test_queries_from_several_threads(folder, music, model):
    """While the index changes, and its vectors are written anew."""
    index, latent = MusicIndex(folder), embed_query(model, "440")
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            found = names(index.search(latent, top=1))
            if found != ["c.wav"]:
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(8):
        write_tone(music / "e.wav", 2000 + number)
        (music / "a.wav").touch()
        update_index(folder, music, model, "tones")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_damage_is_said_clearly(folder, model):
    path = folder / "music.sqlite"
    content = path.read_bytes()
    latent = embed_query(model, "220")
    for broken in (b"", b"not SQLite" * 1000, content[: len(content) // 2]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"music.sqlite is (damaged|not an)"):
            MusicIndex(folder).search(latent)


def test_queries_that_make_no_sense(folder):
    index = MusicIndex(folder)
    for query in (np.zeros(3), np.full(24, np.nan)):
        with pytest.raises(UserError, match="24 finite numbers"):
            index.search(query)
    with pytest.raises(UserError, match="The query is empty"):
        query_text(index, " \n\t")


@pytest.mark.parametrize(
    "text", ["220 " * 2500, "🎻 220 🎹", "安静的 220 Hz тихая музыка", "220 \udce9"]
)
def test_long_and_mixed_queries(folder, model, text):
    text = query_text(MusicIndex(folder), text)
    assert names(search(folder, model, text, top=1)) == ["b.wav"]


def test_examples_by_name(folder, music):
    index = MusicIndex(folder)
    for name in ("c.wav", "deep/C.wav", str(music / "deep" / "c.wav"), " c.wav "):
        assert find_example(index, name).path == str(music / "deep" / "c.wav")
    with pytest.raises(UserError, match=r"called e.wav. Close to it: \w.wav"):
        find_example(index, "e.wav")
    with pytest.raises(UserError, match="The name is empty"):
        find_example(index, " ")


def test_a_name_that_several_have(tmp_path, music, model):
    shutil.copy(music / "a.wav", music / "deep" / "a.wav")
    update_index(tmp_path / "index", music, model, "tones")
    index = MusicIndex(tmp_path / "index")
    with pytest.raises(UserError, match="2 indexed files are called A.wav: /"):
        find_example(index, "A.wav")
    assert find_example(index, "deep/a.wav").path == str(music / "deep" / "a.wav")
    assert find_example(index, str(music / "a.wav")).path == str(music / "a.wav")


def test_a_path_below_the_folder_of_all_files_is_enough(tmp_path, music, model):
    for place in ("x/y.wav", "z/x/y.wav"):
        write_tone(music / place, 330)
    update_index(tmp_path / "index", music, model, "tones")
    index = MusicIndex(tmp_path / "index")
    assert index.store.common_folder() == str(music)
    assert find_example(index, "x/y.wav").path == str(music / "x" / "y.wav")
    assert find_example(index, "z/x/y.wav").path == str(music / "z" / "x" / "y.wav")


def test_names_are_found_however_they_are_spelled(tmp_path, music, model):
    """Letters in parts, as disks of a Mac have them; bytes that are not UTF-8."""
    apart = unicodedata.normalize("NFD", "café")
    bad = os.fsdecode(b"bad\xff")
    for folder in (apart, bad, "end "):
        (music / folder).mkdir()
        shutil.copy(music / "a.wav", music / folder / f"{folder}.wav")
    update_index(tmp_path / "index", music, model, "tones")
    index = MusicIndex(tmp_path / "index")
    for given, folder in (("café", apart), ("bad\ufffd", bad), ("end ", "end ")):
        expected = str(music / folder / f"{folder}.wav")
        for name in (f"{given}.wav", f"{given}/{given}.wav", expected):
            assert find_example(index, name).path == expected
        for name in (given, str(music / folder)):
            assert find_folder(index, name) == str(music / folder)
    with pytest.raises(UserError, match="in a folder called caf: give its path"):
        find_folder(index, "caf")
    shutil.copytree(music / bad, music / os.fsdecode(b"bad\xfe"))
    update_index(tmp_path / "index", music, model, "tones")
    with pytest.raises(UserError, match="2 indexed folders all look like bad\ufffd"):
        find_folder(index, "bad\ufffd")


def test_a_mistyped_name_is_compared_with_some(folder, monkeypatch):
    """With all of 200,000 it took half a minute."""
    asked = []
    monkeypatch.setattr(
        "difflib.get_close_matches",
        lambda name, names, n: asked.append(names) or ["a.wav"],
    )
    monkeypatch.setattr(Store, "paths", lambda _: [f"/{n}.wav" for n in range(9999)])
    with pytest.raises(UserError, match="Close to it: a.wav"):
        find_example(MusicIndex(folder), "mistyped")
    assert len(asked[0]) == COMPARED


def test_a_table_for_other_programs(tmp_path, music, model):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "index"
    (music / "a.wav").rename(music / os.fsdecode(b"caf\xe9.wav"))
    update_index(folder, music, model, "tones")
    index = MusicIndex(folder)
    assert export_parquet(index, tmp_path / "music.parquet") == 4
    table = parquet.read_table(tmp_path / "music.parquet")
    assert table.schema.metadata[b"space"] == latent_space("70e5").name.encode()
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [e.shown for e in index.store.entries()]
    paths = [os.fsdecode(row["path_bytes"]) for row in rows]
    assert paths == [e.path for e in index.store.entries()]
    for row, entry in zip(rows, index.store.entries(), strict=True):
        assert row["duration"] == entry.duration and row["bytes"] == entry.bytes
        assert np.array_equal(np.float32(row["embedding"]), index.vector(entry))


def test_what_stands_out_is_rare_by_chance():
    """One query of twenty in music that has nothing to do with it, however large."""
    generator = np.random.default_rng(0)
    for files in (30, 300, 3000):
        draws = generator.normal(0.1, 0.02, (400, files))
        assert 0.02 < np.mean([stands_out(scores) for scores in draws]) < 0.15
        draws[:, 7] = 0.25
        assert all(stands_out(scores) for scores in draws)
        # A third of the music is what was asked for.
        draws[:, : files // 3] += 0.2
        assert all(stands_out(scores) for scores in draws)
    assert stands_out(np.arange(9.0)) is None


def test_a_search_says_whether_anything_stands_out(tmp_path, music, model):
    for number in range(9):
        write_tone(music / f"low-{number}.wav", 110)
    update_index(tmp_path / "index", music, model, "tones")
    index = MusicIndex(tmp_path / "index")
    query = embed_query(model, "880")
    assert index.search_and_judge(query) == (index.search(query), True)
    assert index.search_and_judge(query, below=str(music / "deep"))[1] is None
    assert index.search_and_judge(np.ones(index.store.width))[1] is False


def test_a_text_that_is_no_description_is_refused(folder):
    with pytest.raises(UserError, match="10,000,000 characters is no description"):
        query_text(MusicIndex(folder), "x" * 10_000_000)
