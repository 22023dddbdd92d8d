"""The model that comes with the package, by its name and nothing else."""

import hashlib
import re

import numpy as np
import pytest
import torch

from muq_plugins import MelRVQ, MuQ, PretrainedMuQ
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.folders import PACKAGED
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes.parts import encoder_fingerprint
from tests.goldens.parts import ROOT, write_wav
from tests.unit.tiny_encoders import tiny_encoder

NAMES = sorted(path.name for path in PACKAGED.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_its_card_says_and_small(name):
    folder = PACKAGED / name
    card = (folder / "README.md").read_text(encoding="utf-8")
    # What people wrote is what stands in the documents today.
    words = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert words.rstrip() in card
    assert re.search("^Licence: ", words, flags=re.M)
    hashes = dict(re.findall(r"^\| `(\S+)` \|[^|]*\| `(\w{64})` \|$", card, flags=re.M))
    assert sorted(hashes) == ["model.safetensors", "tokenizer/model.safetensors"]
    for file, expected in hashes.items():
        found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        assert found == expected, file
    # Its numbers are of these weights, and to be measured again with others.
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"weights `{hashes['model.safetensors'][:16]}`" in results
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6


def test_each_front_door_knows_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no folder has that name
    wavs = torch.sin(torch.arange(24000) * 0.06)[None]
    model = MuQ.from_pretrained("small")
    assert "the embedded corpus" in model.trained_on
    states = model(wavs).hidden_states
    assert {state.shape for state in states} == {(1, 25, 256)}
    assert all(state.isfinite().all() and state.std() > 0.1 for state in states)
    assert states[0].dtype == torch.float32
    lobe = PretrainedMuQ("small", output_all_hiddens=True, freeze=True)
    assert torch.allclose(lobe(wavs), torch.stack(states), atol=1e-5)
    tokenizer = MelRVQ.from_pretrained("small")
    codes = tokenizer(wavs)
    assert codes.shape == (1, 25, 8) and len(codes.unique()) > 8
    # They are of one run, and hear alike.
    mean = model.mods.encoder.features.mean
    assert torch.equal(tokenizer.features.features.mean, mean)


def test_the_command_line_knows_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_wav(tmp_path / "music" / "song.wav", 1.0)
    assert main(["embed", "small", str(path), "--out", "out"]) == 0
    out = np.load(tmp_path / "out" / "song.wav.npz")
    assert out["embedding"].shape == (1, 256) and np.isfinite(out["embedding"]).all()
    assert main(["tokenize", "small", str(path), "--out", "codes"]) == 0
    assert np.load(tmp_path / "codes" / "song.wav.npz")["codes"].shape == (25, 8)
    assert main(["index", "music", "--model", "small", "--out", "index"]) == 0
    capsys.readouterr()
    copy = write_wav(tmp_path / "copy.wav", 1.0)
    assert main(["search", "--audio", str(copy), "--index", "index"]) == 0
    assert re.search(r"1 +1\.0000 +.*song\.wav", capsys.readouterr().out)


def test_a_folder_here_wins_and_says_so_where_it_holds_no_model(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    encoder = tiny_encoder("MuQEncoder")
    save_muq("small", encoder)
    found = MuQ.from_pretrained("small").mods.encoder
    assert encoder_fingerprint(found) == encoder_fingerprint(encoder)
    (tmp_path / "small" / "config.json").unlink()
    for load in (MuQ.from_pretrained, MelRVQ.from_pretrained):
        hides = "in small: .* this folder hides the small of the package"
        with pytest.raises(FileNotFoundError, match=hides):
            load("small")


def test_a_name_that_nobody_has_and_a_path_that_only_ends_like_one(tmp_path):
    for load in (MuQ.from_pretrained, MelRVQ.from_pretrained):
        for wrong in ("smal", f"{tmp_path}/small", "./small"):
            with pytest.raises(FileNotFoundError, match="or small, which comes with"):
                load(wrong)
