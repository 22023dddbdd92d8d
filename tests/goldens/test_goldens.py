"""Nothing that others rely on moves unseen: compared with files of an earlier day.

``tests/goldens/make.py`` makes them again; which ones moved, and why, is for the commit
to say.
"""

import json
import shutil

import pytest
import torch

from muq_plugins import MuQ
from tests.goldens import experiments, folders, results, resuming
from tests.goldens.parts import (
    DATA,
    ENCODERS,
    FIXED,
    TOKENIZERS,
    differences,
    read,
    settle,
)

FOLDERS = read("folders.json")
PACKAGED = read("packaged.json")
EXPERIMENTS = read("experiments.json")
FILES = experiments.files()


def same(golden, found, **tolerance):
    """Compares what was found with what was, both as JSON."""
    found = json.loads(json.dumps(found))
    lines = differences(golden, found, **tolerance)
    assert not lines, "moved:\n  " + "\n  ".join(lines[:20])


@pytest.mark.parametrize("name", ENCODERS)
def test_a_saved_encoder_is_read_and_computes_what_it_did(name):
    same(FOLDERS[f"encoder {name}"], folders.of_encoder(DATA / "encoders" / name))


@pytest.mark.parametrize("name", ["muq", "averaged"])
def test_speechbrain_reads_the_paths_that_are_in_saved_folders(name, tmp_path):
    folder = shutil.copytree(DATA / "encoders" / name, tmp_path / name)
    shutil.copy(folder / "model.safetensors", folder / "encoder.ckpt")
    model = MuQ.from_hparams(source=str(folder), savedir=str(tmp_path / "cache"))
    expected = MuQ.from_pretrained(folder)
    wavs, lens = folders.batch()
    with torch.no_grad():
        found, again = model(wavs, lens), expected(wavs, lens)
    assert torch.equal(found.last_hidden_state, again.last_hidden_state)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_built_with_the_same_identity(name):
    """From code, not from a folder: another config would be another model."""
    golden = FOLDERS[f"encoder {name}"]
    encoder = settle(ENCODERS[name]())
    assert json.loads(json.dumps(encoder.config)) == golden["config"]
    assert folders.encoder_fingerprint(encoder) == golden["fingerprint"]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_model_of_the_package_computes_what_it_did(name):
    same(PACKAGED[name], folders.of_packaged(name))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_saved_tokenizer_is_read_and_gives_the_codes_it_did(name):
    golden = FOLDERS[f"tokenizer {name}"]
    same(golden, folders.of_tokenizer(name, DATA / "tokenizers" / name))
    same(
        {k: v for k, v in golden.items() if k != "codes"},
        folders.of_target(settle(TOKENIZERS[name]())),
    )


@pytest.mark.parametrize("name", FIXED)
def test_a_part_without_a_folder_has_the_same_identity(name):
    same(FOLDERS[f"fixed {name}"], folders.of_fixed(name))


def test_a_saved_mulan_is_read_and_computes_what_it_did():
    same(FOLDERS["mulan"], folders.of_mulan(DATA / "mulan"))


def test_stored_labels_are_read_as_they_are(tmp_path):
    labels = shutil.copytree(DATA / "labels", tmp_path / "labels")
    same(FOLDERS["labels"], folders.of_labels(labels, tmp_path / "music"))


def test_an_index_gives_the_answers_it_gave(tmp_path):
    index = shutil.copytree(DATA / "index", tmp_path / "index")
    same(FOLDERS["index"], folders.of_index(index))


def test_a_checkpoint_is_resumed_from_the_middle(tmp_path):
    golden = json.loads((resuming.FOLDER / "rows.json").read_text("utf-8"))
    same(golden, resuming.resume(tmp_path), relative=5e-3)


def test_no_experiment_file_is_lost():
    gone = set(EXPERIMENTS) - set(FILES)
    assert not gone, f"gone: {', '.join(sorted(gone))}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_builds_and_trains_what_it_did(name):
    same(EXPERIMENTS[name], experiments.describe(name, FILES[name]), absolute=1e-9)


def test_published_results_are_those_that_were_published():
    assert results.digests() == read("results.json")


def test_differences_are_found():
    """Values, lengths, missing keys and types; not what is close, and not new keys."""
    golden = {"a": [1.0, {"b": "x"}], "c": None, "d": True}
    assert not differences(golden, {**golden, "new": 1, "a": [1.0005, {"b": "x"}]})
    for change in (
        {"a": [1.1, {"b": "x"}]},
        {"a": [1.0]},
        {"a": [1.0, {"b": "y"}]},
        {"c": 0},
        {"d": "True"},
    ):
        assert len(differences(golden, {**golden, **change})) == 1
    assert differences(golden, {"a": golden["a"], "c": None}) == [".d is missing"]
