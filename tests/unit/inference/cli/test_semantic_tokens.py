"""Tokens of latents: made with their teacher, flattened, and back to latents."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from muq_plugins import MuQ
from muq_plugins.data.labels.windows import LabelWindows
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.cli.outputs import read_arrays, read_facts
from muq_plugins.inference.muq import teacher_features
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import ResidualVQ, Target
from tests.unit.inference.cli.records import read_record

PAGE = Path(__file__).parents[4] / "docs" / "tokens.md"
WINDOWS = ("--window", "0.4", "--context", "0.2")


@pytest.fixture(scope="module")
def semantic(tmp_path_factory, model_folder):
    """A latent RVQ of the tiny model, as the tokenizer of an iteration is."""
    torch.manual_seed(3)
    target = Target(teacher_features(model_folder, 1), ResidualVQ(32, 3, 16))
    folder = tmp_path_factory.mktemp("semantic") / "inference"
    return str(save_tokenizer(folder, target, "")), target


def test_codes_are_the_labels_of_a_training(semantic, model_folder, music, tmp_path):
    folder, target = semantic
    command = ["tokenize", folder, str(music), "--teacher", model_folder, *WINDOWS]
    assert main([*command, "--out", str(tmp_path / "codes")]) == 0
    flat = ["--flatten", "--format", "parquet"]
    assert main([*command, "--out", str(tmp_path / "flat"), *flat]) == 0
    windows = LabelWindows.in_seconds(target, 0.4, 0.2)
    for name, samples in (("a.wav", 36000), ("deep/c.wav", 9600)):
        record = read_record(tmp_path / "codes" / f"{name}.npz")
        labels = [
            windows.labels(str(music / name), samples, span)[0]
            for span in windows.spans(samples)
        ]
        expected = torch.cat(labels).numpy()
        assert np.array_equal(record.arrays["codes"], expected)
        path = tmp_path / "flat" / f"{name}.parquet"
        tokens = read_arrays(path)["tokens"]
        assert np.array_equal(tokens, (expected + [0, 16, 32]).ravel())
        facts = read_facts(path)
        wanted = {"vocabulary_size": 48, "offsets": [0, 16, 32], "flattened": True}
        wanted |= {"tokens_per_second": 75.0, "bits_per_second": 300.0}
        wanted |= {"window_frames": 10, "context_frames": 5}
        assert facts.items() >= wanted.items()


def test_latents_come_back_without_the_teacher(
    semantic, model_folder, other_model_folder, music, tmp_path, capsys
):
    folder, target = semantic
    command = ["tokenize", folder, str(music / "a.wav"), *WINDOWS]
    given = [*command, "--teacher", model_folder]
    for kind in ("npz", "safetensors", "parquet"):
        for flat in ([], ["--flatten"]):
            codes = str(tmp_path / f"{kind}{len(flat)}")
            assert main([*given, *flat, "--format", kind, "--out", codes]) == 0
            out = tmp_path / f"back {kind}{len(flat)}"
            assert main(["detokenize", folder, codes, "--out", str(out)]) == 0
            ending = "npz" if kind == "parquet" else kind
            latents = read_arrays(out / f"a.wav.{ending}")["latents"]
            assert latents.shape == (37, 32)
    plain = tmp_path / "npz0" / "a.wav.npz"
    codes = torch.from_numpy(read_arrays(plain)["codes"]).long()[None]
    expected = target.quantizer.decode(codes)[0].detach().numpy()
    assert np.abs(latents - expected).max() < 1e-5
    first = ["--codebooks", "1", "--out", str(tmp_path / "first")]
    assert main(["detokenize", folder, str(plain), *first]) == 0
    latents = read_arrays(tmp_path / "first" / "a.wav.npz")["latents"]
    expected = target.quantizer.decode(codes[..., :1])[0].detach().numpy()
    assert np.abs(latents - expected).max() < 1e-5
    assert main(["detokenize", folder, str(plain), *first]) == 0  # the same again
    capsys.readouterr()
    before = shutil.copy(plain, plain.with_name("0.wav.npz"))
    assert main(["detokenize", folder, str(before), str(plain), *first[2:]]) == 2
    assert not (tmp_path / "first" / "0.wav.npz").exists()
    assert "a.wav.npz was made of other codes" in capsys.readouterr().err
    assert np.array_equal(
        read_arrays(tmp_path / "first" / "a.wav.npz")["latents"], latents
    )
    (tmp_path / "junk.npz").write_text("junk")
    assert main(["detokenize", folder, str(tmp_path / "junk.npz"), *first]) == 2
    assert capsys.readouterr().err.endswith("junk.npz is damaged.\n")

    rest = ["--out", str(tmp_path / "x")]
    assert main([*command, *rest]) == 2
    assert "quantizes layer 1 of a teacher" in capsys.readouterr().err
    assert main([*command, "--teacher", other_model_folder, *rest]) == 2
    other = MuQ.from_pretrained(other_model_folder).fingerprint
    assert f"is {other}: codes of another model" in capsys.readouterr().err
    assert main(["detokenize", "small", str(plain), *rest]) == 2
    assert "give the tokenizer that made them" in capsys.readouterr().err
    assert main(["detokenize", folder, str(plain), "--codebooks", "4", *rest]) == 2
    assert "--codebooks 4" in capsys.readouterr().err
    whole = plain.read_bytes()
    assert main(["detokenize", folder, str(plain), "--out", str(plain.parent)]) == 2
    assert "a.wav.npz would be lost" in capsys.readouterr().err
    assert plain.read_bytes() == whole
    assert main(["detokenize", folder, str(music / "a.wav"), *rest]) == 2
    assert "no outputs of `muq-plugins tokenize`" in capsys.readouterr().err
    given = ["tokenize", "small", str(music), "--teacher", model_folder]
    assert main([*given, *rest]) == 2
    assert "leave --teacher" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_language_model_learns_from_them(
    tokenizer_folder, write_wav, tmp_path, monkeypatch, capsys
):
    """The page, with a decoder of a tenth of the size."""
    for number in range(3):
        write_wav(tmp_path / "music" / f"{number}.wav", 2.0, 110 * 2**number)
    monkeypatch.chdir(tmp_path)
    command = ["tokenize", tokenizer_folder, "music", "--flatten", "--out", "tokens"]
    assert main(command) == 0
    capsys.readouterr()
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    code = re.sub(r"range\(100\)", "range(20)", code)
    code = code.replace("size=128", "size=16").replace("size=256", "size=32")
    found = {}
    exec(compile(code, str(PAGE), "exec"), found)
    words = capsys.readouterr().out
    before, after = map(float, re.findall(r"\d+\.\d+", words))
    assert after < before
    assert found["codes"].shape == (20, 2)
    assert 0 <= int(found["codes"].min()) <= int(found["codes"].max()) < 16
    assert json.loads(str(np.load("tokens/0.wav.npz")["facts"]))["frame_rate"] == 25
