"""Tokenizing: pieces have the codes of the whole."""

import numpy as np
import pytest
import torch

from muq_plugins import MelRVQ
from muq_plugins.data.audio import read_audio
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.cli.tokenizer import Tokenizing
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import (
    FiniteScalarQuantization,
    KeptFrames,
    KMeans,
    LogMel,
    Mfcc,
    ResidualVQ,
    StackedFrames,
    Target,
)
from tests.unit.inference.cli.records import read_record


def test_codes_of_a_folder(tokenizer_folder, music, write_wav, tmp_path, capsys):
    """Of short files in one batch, and of a long one, which is read in pieces."""
    write_wav(music / "long.wav", 7.03)
    out = tmp_path / "out"
    command = ["tokenize", tokenizer_folder, str(music), "--out", str(out)]
    assert main([*command, "--batch-seconds", "3"]) == 0
    tokenizer = MelRVQ.from_pretrained(tokenizer_folder)
    for name in ("a.wav", "deep/b.flac", "deep/c.wav", "long.wav"):
        record = read_record(out / f"{name}.npz")
        expected = tokenizer(read_audio(music / name)[None])[0]
        assert record.arrays["codes"].dtype == np.int16
        assert np.array_equal(record.arrays["codes"], expected.numpy())
        assert record.facts["frame_rate"] == 25.0
        assert record.facts["num_codebooks"] == 2
        assert record.facts["codebook_size"] == 16
        assert record.facts["path"] == str(music / name)
    # Codes do not depend on the size of the pieces, so this is done already.
    assert main([*command, "--batch-seconds", "5"]) == 0
    assert "4 were there already" in capsys.readouterr().err


def test_on_the_device_under_test(tokenizer_folder, music, tmp_path, device):
    out = tmp_path / "out"
    command = ["tokenize", tokenizer_folder, str(music), "--out", str(out)]
    assert main([*command, "--device", device]) == 0
    tokenizer = MelRVQ.from_pretrained(tokenizer_folder)
    expected = tokenizer(read_audio(music / "a.wav")[None])[0].numpy()
    codes = read_record(out / "a.wav.npz").arrays["codes"]
    assert (codes == expected).mean() > 0.99  # other rounding on other devices


def test_large_codebooks_need_more_bits():
    quantizer = ResidualVQ(512, 1, 2**15 + 1)
    tokenizer = MelRVQ(StackedFrames(LogMel()), quantizer)
    work = Tokenizing(tokenizer, "large", "cpu", 60.0)
    arrays = work.batch(torch.randn(1, 24000), torch.ones(1))
    assert arrays[0]["codes"].dtype == np.int32


def tokenized(wav, tokenizer, piece, context, sizes):
    """The codes of a stream, and those of the whole; how much was computed at once."""
    work = Tokenizing(tokenizer, "x", "cpu", batch_seconds=piece / 25)
    codes, work.context = work._codes, context

    def noted(wavs, wav_lens):
        sizes.append(wavs.shape[1])
        return codes(wavs, wav_lens)

    work._codes = noted
    return work.stream(wav.split(7000))["codes"], tokenizer(wav[None])[0].numpy()


@pytest.mark.parametrize("piece", [25, 64, 300])
@pytest.mark.parametrize("samples", [960 * 100, 960 * 100 + 1, 960 * 101 - 1, 1025])
def test_pieces_have_the_codes_of_the_whole(piece, samples):
    torch.manual_seed(samples)
    tokenizer = MelRVQ(StackedFrames(LogMel()), ResidualVQ(512, 4, 64))
    wav, sizes = 0.1 * torch.randn(samples), []
    codes, expected = tokenized(wav, tokenizer, piece, 2, sizes)
    assert np.array_equal(codes, expected)
    assert max(sizes) <= (piece + 4) * 960 + 7000
    assert len(sizes) == 1 or piece < 100


def test_context_is_needed():
    """The test above can fail."""
    tokenizer = MelRVQ(StackedFrames(LogMel()), ResidualVQ(512, 4, 64))
    codes, expected = tokenized(torch.randn(960 * 100), tokenizer, 25, 0, [])
    assert not np.array_equal(codes, expected)


def make_kmeans():
    torch.manual_seed(0)
    features = KeptFrames(Mfcc(), every=4)
    quantizer = KMeans(features.output_size, 16)
    time = torch.arange(16 * 960) / 24000
    wav = 0.3 * torch.sin(2 * torch.pi * 220 * time) + 0.01 * torch.randn(len(time))
    quantizer.centres.copy_(features(wav[None])[0][0])
    return Target(features, quantizer)


TOKENIZERS = {
    "kmeans": make_kmeans,
    "fsq": lambda: Target(
        StackedFrames(LogMel()), FiniteScalarQuantization(512, 2, [8, 5])
    ),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_other_tokenizers(kind, music, write_wav, tmp_path, capsys):
    """Whatever `inspect-tokenizer` reads; deltas of MFCC reach into other pieces."""
    target = TOKENIZERS[kind]()
    folder = str(save_tokenizer(tmp_path / "tokenizer", target, ""))
    write_wav(music / "long.wav", 7.03)
    out = tmp_path / "out"
    command = ["tokenize", folder, str(music), "--out", str(out)]
    assert main([*command, "--batch-seconds", "3"]) == 0
    for name in ("a.wav", "deep/b.flac", "long.wav"):
        codes = read_record(out / f"{name}.npz").arrays["codes"]
        expected = target(read_audio(music / name)[None])[0].numpy()
        assert np.array_equal(codes, expected)
        assert len(np.unique(codes)) > 3
    assert main(["inspect-tokenizer", folder, str(music), "--out", str(out / "x")]) == 0


def test_another_tokenizer_into_the_same_folder_is_refused(
    tokenizer_folder, music, tmp_path, capsys
):
    out = ["--out", str(tmp_path / "out")]
    assert main(["tokenize", tokenizer_folder, str(music), *out]) == 0
    other = str(save_tokenizer(tmp_path / "other", TOKENIZERS["fsq"](), ""))
    for inputs in (music, music / "deep"):
        assert main(["tokenize", other, str(inputs), *out]) == 2
        assert "fingerprint is" in capsys.readouterr().err


def test_embeddings_and_codes_do_not_mix(
    model_folder, tokenizer_folder, music, tmp_path, capsys
):
    rest = [str(music), "--out", str(tmp_path / "out")]
    assert main(["embed", model_folder, *rest]) == 0
    assert main(["tokenize", tokenizer_folder, *rest]) == 2
    assert "a.wav.npz was made by `muq-plugins embed`." in capsys.readouterr().err


def test_a_model_is_not_a_tokenizer(model_folder, music, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main(["tokenize", model_folder, str(music), *out]) == 2
    assert "holds a muq_encoder, not a tokenizer" in capsys.readouterr().err
