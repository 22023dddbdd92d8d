"""Tags, an index and searches with a real, if untrained, model of music and text."""

import json

import numpy as np
import pytest

from muq_plugins.inference.cli.main import main
from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.mulan import MuQMuLan
from tests.integration.tiny_mulan import make_mulan, write_chord


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and five files of music."""
    folder = tmp_path_factory.mktemp("search")
    make_mulan(folder)
    for number in range(5):
        write_chord(folder / "music" / f"{number}.flac", number)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return MuQMuLan.from_pretrained(folder / "mulan")


@pytest.fixture(scope="module")
def index(folder):
    options = ["--model", str(folder / "mulan"), "--out", str(folder / "index")]
    assert main(["index", str(folder / "music"), *options]) == 0
    return folder / "index"


def output(capsys, *command):
    capsys.readouterr()
    assert main([*map(str, command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_tags_are_the_similarities_of_the_model(folder, model, tmp_path, capsys):
    tags = ["cello", "fast piano", "钢琴 🎹", "x" * 10_000]
    (tmp_path / "tags.txt").write_text("\n".join([*tags, "Cello"]), "utf-8")
    options = ["--tags", tmp_path / "tags.txt", "--model", folder / "mulan"]
    files = output(capsys, "tag", folder / "music", *options)["files"]
    assert len(files) == 5
    for file in files:
        expected = model.similarity(
            model.embed_file(file["path"])[None], model.embed_text(tags)
        )[0]
        found = {tag["tag"]: tag["score"] for tag in file["tags"]}
        assert [found[tag] for tag in tags] == pytest.approx(expected.tolist(), 1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_index_holds_the_latents_of_the_model(index, model):
    opened = MusicIndex(index)
    assert opened.store.space == model.space()
    for entry in opened.store.entries():
        latent = model.embed_file(entry.path).numpy()
        assert np.array_equal(opened.vector(entry), latent)


@pytest.mark.parametrize("text", ["calm solo cello", "慢 piano 🎻", "cello " * 1700])
def test_a_text_finds_what_is_most_similar(index, model, text, capsys):
    matches = output(capsys, "search", text, "--index", index)["matches"]
    latent = model.embed_text([text])
    expected = {
        entry.path: float(model.similarity(model.embed_file(entry.path)[None], latent))
        for entry in MusicIndex(index).store.entries()
    }
    ranked = sorted(expected, key=expected.get, reverse=True)
    assert [match["path"] for match in matches] == ranked
    scores = [match["score"] for match in matches]
    assert scores == pytest.approx([expected[path] for path in ranked], abs=1e-5)


def test_an_example_finds_its_copy(folder, index, tmp_path, capsys):
    copy = write_chord(tmp_path / "copy.wav", 3)
    [best] = output(capsys, "search", "--audio", copy, "--index", index, "--top", 1)[
        "matches"
    ]
    assert best["path"] == str(folder / "music" / "3.flac")
