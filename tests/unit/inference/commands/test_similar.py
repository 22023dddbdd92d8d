"""Similar files: the order, ways to name the query, and what cannot be compared."""

import json

import numpy as np
import pytest

from muq_plugins.inference.commands.main import main
from muq_plugins.inference.commands.records import Record, write_record


def write(folder, name, vector, **facts):
    """Writes an embedding of layers 2 (or others) of a model."""
    layers = facts.setdefault("layers", [2])
    embedding = np.array([vector] * len(layers), dtype=np.float32)
    facts = {
        "command": "embed",
        "path": f"music/{name}",
        "fingerprint": "1ec3",
        "model": "muq",
        "num_hidden_states": 3,
        "dtype": "float32",
        **facts,
    }
    arrays = {"embedding": embedding, "layers": np.array(layers)}
    write_record(folder / f"{name}.npz", Record(facts, arrays))


@pytest.fixture
def folder(tmp_path):
    """Angles of 0, 10, 40 and 90 degrees to the first file."""
    folder = tmp_path / "out"
    for name, angle in (("x/a.wav", 0), ("b.wav", 40), ("c.wav", 90), ("x/d.wav", 10)):
        radians = np.radians(angle)
        write(folder, name, [3 * np.cos(radians), 3 * np.sin(radians)])
    return folder


def rows(capsys, *arguments):
    assert main(["similar", *map(str, arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["similar"]
    return [(row["path"], round(row["similarity"], 3)) for row in found]


EXPECTED = [("music/x/d.wav", 0.985), ("music/b.wav", 0.766), ("music/c.wav", 0.0)]


@pytest.mark.parametrize("query", ["music/x/a.wav", "x/a.wav", "a.wav", "x/a.wav.npz"])
def test_most_similar_first(folder, capsys, query):
    assert rows(capsys, folder, query) == EXPECTED
    assert rows(capsys, folder, query, "--top", 1) == EXPECTED[:1]


def test_table(folder, capsys):
    assert main(["similar", str(folder), "a.wav"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rank  similarity  path",
        "   1      0.9848  music/x/d.wav",
        "   2      0.7660  music/b.wav",
        "   3      0.0000  music/c.wav",
    ]


def test_a_name_that_several_have_is_refused(folder, capsys):
    write(folder, "y/a.wav", [1.0, 1.0])
    assert main(["similar", str(folder), "a.wav"]) == 2
    message = capsys.readouterr().err
    assert "2 embedded files are called a.wav: music/x/a.wav, music/y/a.wav" in message
    assert rows(capsys, folder, "x/a.wav")[0] == EXPECTED[0]


def test_different_models_are_refused(folder, capsys):
    write(folder, "e.wav", [1.0, 1.0], fingerprint="77aa", model="other")
    assert main(["similar", str(folder), "a.wav"]) == 2
    message = capsys.readouterr().err
    assert "muq (1ec3)" in message and "other (77aa)" in message
    assert "different models cannot be compared" in message


def test_different_layers_are_refused(folder, capsys):
    write(folder, "e.wav", [1.0, 1.0], layers=[0, 1])
    assert main(["similar", str(folder), "a.wav"]) == 2
    message = capsys.readouterr().err
    assert "e.wav.npz does not hold layer 2, only 0, 1" in message


def test_one_of_several_layers(tmp_path, capsys):
    for name, vector in (("a.wav", [1.0, 0.0]), ("b.wav", [1.0, 1.0])):
        write(tmp_path, name, vector, layers=[0, 2])
    assert main(["similar", str(tmp_path), "a.wav"]) == 2
    assert "hold the layers 0, 2: choose one with --layer" in capsys.readouterr().err
    assert rows(capsys, tmp_path, "a.wav", "--layer", -1) == [("music/b.wav", 0.707)]
    assert main(["similar", str(tmp_path), "a.wav", "--layer", "1"]) == 2
    assert "does not hold layer 1" in capsys.readouterr().err


def test_frames_are_averaged(tmp_path, capsys):
    write(tmp_path, "a.wav", [[1.0, 0.0], [1.0, 2.0]], pool="frames")
    write(tmp_path, "b.wav", [1.0, 1.0])
    assert rows(capsys, tmp_path, "a.wav") == [("music/b.wav", 1.0)]


def test_codes_and_files_of_others_are_left_out(folder, capsys):
    write(folder, "codes.wav", [1.0], command="tokenize")
    np.savez(folder / "mine.npz", mine=np.zeros(3))
    assert rows(capsys, folder, "a.wav") == EXPECTED


def test_two_formats_of_one_file_are_refused(folder, capsys):
    write(folder, "b.wav", [1.0, 1.0])
    record = Record({"command": "embed"}, {"embedding": np.zeros((1, 2))})
    write_record(folder / "b.wav.safetensors", record)
    assert main(["similar", str(folder), "a.wav"]) == 2
    assert "embed the same audio" in capsys.readouterr().err


def test_a_damaged_file_is_named(folder, capsys):
    (folder / "b.wav.npz").write_text("")
    assert main(["similar", str(folder), "a.wav"]) == 2
    message = capsys.readouterr().err
    assert "b.wav.npz is damaged" in message
    assert "run `muq-plugins embed` again" in message


def test_an_empty_or_missing_folder_is_explained(tmp_path, capsys):
    assert main(["similar", str(tmp_path), "a.wav"]) == 2
    assert "holds no embeddings: make them with" in capsys.readouterr().err
    assert main(["similar", str(tmp_path / "nowhere"), "a.wav"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_an_unknown_query_is_explained(folder, tmp_path, write_wav, capsys):
    assert main(["similar", str(folder), "bb.wav"]) == 2
    message = capsys.readouterr().err
    assert "bb.wav is neither one of the 4 files" in message
    assert "Close to it: b.wav" in message
    new = write_wav(tmp_path / "new.wav", 0.5)
    assert main(["similar", str(folder), str(new)]) == 2
    assert "give --model, the model that the folder was made with (muq)" in (
        capsys.readouterr().err
    )


def test_a_new_file_is_embedded(
    model_folder, other_model_folder, music, tmp_path, write_wav, capsys
):
    out = str(tmp_path / "out")
    assert main(["embed", model_folder, str(music), "--out", out]) == 0
    new = tmp_path / "new.wav"
    new.write_bytes((music / "a.wav").read_bytes())
    found = rows(capsys, out, new, "--model", model_folder)
    assert found[0] == (str(music / "a.wav"), 1.0)
    assert main(["similar", out, str(new), "--model", other_model_folder]) == 2
    assert "is not the model that" in capsys.readouterr().err
    new.write_text("no audio")
    assert main(["similar", out, str(new), "--model", model_folder]) == 1
    assert "undecodable" in capsys.readouterr().err
    write_wav(new, 0.04)
    assert main(["similar", out, str(new), "--model", model_folder]) == 1
    assert "too short for a frame" in capsys.readouterr().err
