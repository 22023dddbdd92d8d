"""`muq-plugins embed` with every encoder."""

import numpy as np
import pytest

from muq_plugins import MuQ
from muq_plugins.data.audio import read_audio
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.muq import save_muq
from tests.unit.inference.cli.records import read_record
from tests.unit.tiny_encoders import TINY, tiny_encoder


@pytest.mark.parametrize("name", TINY)
def test_embeddings_of_a_folder(name, music, tmp_path):
    folder = str(save_muq(tmp_path / "model", tiny_encoder(name)))
    out = tmp_path / "out"
    options = ["--out", str(out), "--layer", "all", "--pool", "frames"]
    assert main(["embed", folder, str(music), *options]) == 0
    model = MuQ.from_pretrained(folder)
    for file in ("a.wav", "deep/b.flac", "deep/c.wav"):
        found = read_record(out / f"{file}.npz").arrays
        expected = model(read_audio(music / file)[None]).hidden_states
        assert found["layers"].tolist() == [0, 1, 2]
        for layer, state in zip(found["embedding"], expected, strict=True):
            assert np.abs(layer - state[0].numpy()).max() < 1e-4
    facts = read_record(out / "a.wav.npz").facts
    assert facts["frame_rate"] == model.mods.encoder.frame_rate


def test_a_file_that_is_too_short_is_named(music, write_wav, tmp_path, capsys):
    write_wav(music / "click.wav", 0.03)
    folder = str(save_muq(tmp_path / "model", tiny_encoder("WaveformTransformer")))
    out = tmp_path / "out"
    assert main(["embed", folder, str(music), "--out", str(out)]) != 0
    assert "click.wav" in capsys.readouterr().err
    assert (out / "a.wav.npz").is_file()
