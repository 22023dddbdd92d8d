"""Embedding: what is stored, batches and streams, resuming, and files that are bad."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins import MuQ, MuQEncoder
from muq_plugins.data.audio import read_audio
from muq_plugins.inference.cli import encoder
from muq_plugins.inference.cli.encoder import Embedding
from muq_plugins.inference.cli.main import main
from muq_plugins.inference.cli.outputs import read_facts
from muq_plugins.inference.muq import save_muq
from tests.unit.inference.cli.records import read_record
from tests.unit.inference.edits import edit_config
from tests.unit.meter import needs_meter
from tests.unit.processor import needs_int8
from tests.unit.tiny_encoders import TINY, tiny_encoder


@pytest.fixture
def embed(model_folder, music, tmp_path):
    """Runs the command on the music: ``embed("--pool", "frames")``."""

    def run(*options, inputs=(str(music),), out="out", model=model_folder):
        folder = str(tmp_path / out)
        return main(["embed", model, *inputs, "--out", folder, *options])

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def hidden(model_folder, path, layer=-1):
    """Hidden states (frames, width) of one file on its own."""
    model = MuQ.from_pretrained(model_folder)
    return model(read_audio(path)[None]).hidden_states[layer][0]


def test_mean_embeddings_of_a_folder(embed, out, music, model_folder):
    """Files of unequal lengths in one batch equal those on their own."""
    assert embed("--pool", "mean") == 0
    for name in ("a.wav", "deep/b.flac", "deep/c.wav"):
        record = read_record(out / f"{name}.npz")
        expected = hidden(model_folder, music / name).mean(0)
        assert record.arrays["embedding"].shape == (1, 32)
        assert record.arrays["embedding"].dtype == np.float32
        difference = record.arrays["embedding"][0] - expected.numpy()
        assert abs(difference).max() < 1e-4
        assert record.arrays["layers"].tolist() == [2]
    facts = read_facts(out / "a.wav.npz")
    assert (
        facts.items()
        >= {
            "path": str(music / "a.wav"),
            "duration": 1.5,
            "model": model_folder,
            "sample_rate": 24000,
            "frame_rate": 25.0,
            "pool": "mean",
            "dtype": "float32",
            "context": "the whole file",
        }.items()
    )


def test_processes_make_a_share_of_the_outputs_each(embed, out, monkeypatch):
    """As torchrun starts them; a restart with another number of them makes the rest."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in "21":
        monkeypatch.setenv("RANK", rank)
        assert embed() == 0
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert 0 < len(made) < 3
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        assert embed() == 0
    assert len(list(out.rglob("*.npz"))) == 3
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_a_bad_file_does_not_end_the_other_processes(embed, music, monkeypatch, capsys):
    """torchrun kills them all as soon as one ends with another code."""
    (music / "bad.wav").write_text("no audio")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert embed() == 0
    assert "1 file could not be used" in capsys.readouterr().err
    monkeypatch.undo()
    assert embed() == 1


@pytest.mark.parametrize("name", TINY)
def test_all_layers_and_frames_of_every_encoder(name, embed, out, music, tmp_path):
    folder = str(save_muq(tmp_path / "model", tiny_encoder(name)))
    assert embed("--layer", "all", "--pool", "frames", model=folder) == 0
    model = MuQ.from_pretrained(folder)
    for file in ("a.wav", "deep/b.flac", "deep/c.wav"):
        found = read_record(out / f"{file}.npz")
        expected = model(read_audio(music / file)[None]).hidden_states
        assert found.arrays["layers"].tolist() == [0, 1, 2]
        for layer, state in zip(found.arrays["embedding"], expected, strict=True):
            assert np.abs(layer - state[0].numpy()).max() < 1e-4
        assert found.facts["frame_rate"] == model.frame_rate


def test_a_vector_of_a_track_does_not_depend_on_the_batch(
    embed, out, music, write_wav, model_folder
):
    """It is that of Python and of an index, and says in which space it is."""
    write_wav(music / "long.wav", 33.0)
    assert embed("--batch-seconds", "50", "--layer", "1,2") == 0
    assert embed("--batch-seconds", "1", "--layer", "1", out="other") == 0
    model = MuQ.from_pretrained(model_folder)
    for name in ("a.wav", "deep/b.flac", "long.wav"):
        expected = torch.stack([model.embed_track(music / name, n) for n in (1, 2)])
        first, other = (
            read_record(folder / f"{name}.npz")
            for folder in (out, out.with_name("other"))
        )
        assert expected.norm(dim=1) == pytest.approx(1)
        assert np.abs(first.arrays["embedding"] - expected.numpy()).max() < 1e-5
        assert np.abs(other.arrays["embedding"][0] - expected[0].numpy()).max() < 1e-5
        assert other.facts["space"] == model.space(1).name
        assert first.facts["space"] not in (model.space(1).name, model.space(2).name)


@needs_meter
def test_loudness_takes_the_level_away(embed, out, music, model_folder, tmp_path):
    wav, rate = soundfile.read(music / "a.wav")
    soundfile.write(music / "quiet.wav", wav / 10, rate, "FLOAT")
    soundfile.write(music / "long.wav", np.tile(wav, 21), rate)
    assert embed() == 0
    assert embed("--loudness", "-20", out="same") == 0

    def similarity(folder):
        loud, quiet = (
            read_record(folder / f"{name}.wav.npz").arrays["embedding"][0]
            for name in ("a", "quiet")
        )
        return float(loud @ quiet)

    assert similarity(out) < 0.99 and similarity(tmp_path / "same") > 1 - 1e-5
    model = MuQ.from_pretrained(model_folder)
    for name in ("quiet.wav", "long.wav"):
        record = read_record(tmp_path / "same" / f"{name}.npz")
        expected = model.embed_track(music / name, loudness=-20.0).numpy()
        assert np.abs(record.arrays["embedding"][0] - expected).max() < 1e-5
        assert record.facts["space"] == model.space(loudness=-20.0).name


@needs_meter
@pytest.mark.parametrize("seconds", [20, 40])  # in a batch, and streamed
def test_a_click_in_quiet_music_can_be_brought_to_a_loudness(
    embed, out, music, seconds
):
    wav = 0.005 * np.sin(np.arange(seconds * 24000) / 4)
    wav[24000] = 1.03
    soundfile.write(music / "click.wav", wav, 24000, "FLOAT")
    assert embed("--loudness", "-16") == 0
    assert (out / "click.wav.npz").exists()


def test_an_output_opens_without_this_package(embed, out):
    embed()
    with np.load(out / "a.wav.npz") as file:
        assert sorted(file) == ["embedding", "facts", "layers"]
        assert json.loads(str(file["facts"]))["pool"] == "track"


def test_every_frame_of_several_layers(embed, out, music, model_folder):
    assert embed("--pool", "frames", "--layer", "-2,0", "--format", "safetensors") == 0
    arrays = read_record(out / "deep" / "b.flac.safetensors").arrays
    assert arrays["layers"].tolist() == [1, 0]
    for index, layer in enumerate([1, 0]):
        expected = hidden(model_folder, music / "deep" / "b.flac", layer).numpy()
        assert arrays["embedding"][index].shape == expected.shape
        assert abs(arrays["embedding"][index] - expected).max() < 1e-4
    assert arrays["times"] == pytest.approx(np.arange(len(expected)) / 25)


@pytest.mark.parametrize("pool", ["mean", "frames"])
def test_long_files_are_streamed(embed, out, music, write_wav, model_folder, pool):
    path = write_wav(music / "long.wav", 7.03)
    assert embed("--batch-seconds", "3", "--pool", pool, "--layer", "1,2") == 0
    record = read_record(out / "long.wav.npz")
    for index, layer in enumerate([1, 2]):
        model = MuQ.from_pretrained(model_folder)
        chunks = list(model.embed_long(path, window=3.0, overlap=0.5, layer=layer))
        expected = torch.cat([chunk.hidden for chunk in chunks])
        if pool == "mean":
            expected = expected.mean(0)
        else:
            times = torch.cat([chunk.times for chunk in chunks])
            assert record.arrays["times"] == pytest.approx(times.numpy())
        difference = record.arrays["embedding"][index] - expected.numpy()
        assert abs(difference).max() < 1e-5
    assert record.facts["context"] == "windows of 3 s, edges dropped"
    assert read_facts(out / "a.wav.npz")["context"] == "the whole file"


def test_bfloat16(embed, out, music, model_folder):
    assert embed("--dtype", "bfloat16", "--pool", "mean") == 0
    record = read_record(out / "a.wav.npz")
    expected = hidden(model_folder, music / "a.wav").mean(0).numpy()
    difference = abs(record.arrays["embedding"][0] - expected).max()
    assert record.facts["dtype"] == "bfloat16"
    assert record.arrays["embedding"].dtype == np.float32
    assert 1e-4 < difference < 0.05


@needs_int8
def test_int8(embed, out, model_folder):
    """Near float32, and in a space that says so."""
    assert embed("--device", "cpu", "--pool", "mean") == 0
    before = read_record(out / "a.wav.npz")
    again = ("--dtype", "int8", "--device", "cpu", "--pool", "mean", "--overwrite")
    assert embed(*again) == 0
    record = read_record(out / "a.wav.npz")
    assert record.facts["dtype"] == "int8"
    assert record.facts["fingerprint"] == before.facts["fingerprint"]
    assert record.facts["space"] != before.facts["space"]
    rounded, expected = record.arrays["embedding"], before.arrays["embedding"]
    assert 1e-4 < np.linalg.norm(rounded - expected) < 0.05 * np.linalg.norm(expected)
    model = MuQ.from_pretrained(model_folder, "cpu").int8()
    assert embed("--dtype", "int8", "--device", "cpu", "--overwrite") == 0
    assert read_facts(out / "a.wav.npz")["space"] == model.space().name
    assert model.int8() is model


def test_int8_is_for_the_cpu(embed, out, monkeypatch, capsys):
    monkeypatch.setattr(encoder, "pick_device", lambda name: "cuda:0")
    assert embed("--dtype", "int8") == 2
    assert (
        "--dtype int8 is for the CPU, and the device is cuda:0: give --device cpu"
        in capsys.readouterr().err
    )
    assert not out.exists()


def test_on_the_device_under_test(embed, out, music, write_wav, model_folder, device):
    """--dtype auto may be bfloat16 there."""
    path = write_wav(music / "long.wav", 4.0)
    assert embed("--device", device, "--batch-seconds", "3", "--pool", "mean") == 0
    for name in ("a.wav", "long.wav"):
        record = read_record(out / f"{name}.npz")
        expected = hidden(model_folder, music / name).mean(0).numpy()
        assert abs(record.arrays["embedding"][0] - expected).max() < 0.2
    assert record.facts["path"] == str(path)


def test_a_batch_has_the_seconds_that_are_given(embed, monkeypatch):
    sizes, forward = [], MuQEncoder.forward

    def noted(self, wavs, *args):
        sizes.append(wavs.numel() / 24000)
        return forward(self, wavs, *args)

    monkeypatch.setattr(MuQEncoder, "forward", noted)
    assert embed("--batch-seconds", "3", "--pool", "mean") == 0
    assert sizes == [2 * 1.5, 0.4]


def test_what_is_done_is_not_done_again(embed, out, music, monkeypatch, capsys):
    assert embed() == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    (out / "deep" / "c.wav.npz").unlink()
    calls, forward = [], MuQEncoder.forward

    def noted(self, wavs, *args):
        calls.append(wavs.shape)
        return forward(self, wavs, *args)

    monkeypatch.setattr(MuQEncoder, "forward", noted)
    assert embed() == 0
    assert calls == [(1, 0.4 * 24000)]
    assert "1 file made" in capsys.readouterr().err
    assert embed("--layer", "2") == 0
    assert len(calls) == 1
    words = r"0 files made in [\d.]+ s \(0 s of audio\), 3 were there already"
    assert re.search(words, capsys.readouterr().err)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    changed = [path.name for path in after if after[path] != before[path]]
    assert changed == ["c.wav.npz"]


def test_incomplete_outputs_are_made_again(embed, out):
    embed()
    whole = (out / "a.wav.npz").read_bytes()
    (out / "a.wav.npz").write_bytes(whole[:-5])
    assert embed() == 0
    read_record(out / "a.wav.npz")


def test_outputs_of_changed_audio_are_made_again(embed, out, music, write_wav, capsys):
    embed()
    write_wav(music / "a.wav", 1.2)
    assert embed() == 0
    assert read_facts(out / "a.wav.npz")["duration"] == 1.2
    os.utime(music / "a.wav", (1, 1))
    assert embed() == 0
    assert capsys.readouterr().err.count("1 file made") == 2


def test_outputs_of_another_folder_are_not_replaced(
    embed, out, music, tmp_path, capsys
):
    """Names and times may be the same; those of a collection that has moved stay."""
    assert embed() == 0
    shutil.copytree(music, tmp_path / "copy")  # with the times
    before = (out / "a.wav.npz").read_bytes()
    inputs = [str(tmp_path / "copy")]
    assert embed(inputs=inputs) == 2
    assert "was made of" in (words := capsys.readouterr().err)
    assert "give the folder above both" in words
    assert (out / "a.wav.npz").read_bytes() == before
    shutil.rmtree(music)
    assert embed(inputs=inputs) == 0
    assert "3 were there already" in capsys.readouterr().err


def test_relative_paths_are_of_the_folder_that_they_were_given_in(
    embed, music, write_wav, tmp_path, monkeypatch, capsys
):
    write_wav(tmp_path / "other" / "a.wav", 1.5)
    for folder, code in ((music, 0), (tmp_path / "other", 2)):
        monkeypatch.chdir(folder)
        assert embed(inputs=["a.wav"]) == code
    assert "a.wav would take its place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--layer", "0"], "layers is [2] there, [0] now"),
        (["--pool", "frames"], "pool is mean there, frames now"),
        (["--dtype", "bfloat16"], "dtype is float32 there, bfloat16 now"),
        pytest.param(
            ["--loudness", "-20"],
            "loudness is None there, -20.0 now",
            marks=needs_meter,
        ),
        (
            ["--batch-seconds", "1"],
            "context is the whole file there, windows of 1 s, edges dropped now",
        ),
    ],
)
def test_other_settings_are_refused(embed, out, capsys, options, difference):
    options = ["--pool", "mean", *options]
    embed("--pool", "mean")
    before = (out / "a.wav.npz").read_bytes()
    assert embed(*options) == 2
    message = capsys.readouterr().err
    assert f"a.wav.npz was made with other settings: {difference}." in message
    assert "Give another --out, or --overwrite" in message
    assert (out / "a.wav.npz").read_bytes() == before
    assert embed(*options, "--overwrite") == 0
    assert (out / "a.wav.npz").read_bytes() != before


def test_another_model_is_refused(embed, other_model_folder, capsys):
    embed()
    assert embed(model=other_model_folder) == 2
    assert "a.wav.npz was made with other settings: fingerprint is" in (
        capsys.readouterr().err
    )


def copied(model_folder, folder):
    shutil.copytree(model_folder, folder)
    edit_config(folder, {"encoder.dropout": 0.3})  # matters in training only


def in_the_official_layout(model_folder, folder):
    MuQ.from_pretrained(model_folder).save_pretrained(folder)


@pytest.mark.parametrize("again", [copied, in_the_official_layout])
def test_a_copy_is_the_same_model(embed, model_folder, tmp_path, capsys, again):
    embed()
    again(model_folder, tmp_path / "copy")
    assert embed(model=str(tmp_path / "copy")) == 0
    assert "3 were there already" in capsys.readouterr().err


def test_files_of_something_else_are_not_overwritten(embed, out, capsys):
    out.mkdir()
    np.savez(out / "a.wav.npz", mine=np.zeros(3))
    assert embed() == 2
    assert "a.wav.npz is a file of something else." in capsys.readouterr().err
    assert np.load(out / "a.wav.npz").files == ["mine"]


def test_bad_files_are_reported_and_the_others_done(
    embed, out, music, write_wav, capsys
):
    (music / "bad.wav").write_text("no audio")
    write_wav(music / "tiny.wav", 0.04)
    for name, seconds, kept in (
        ("cut.flac", 1.2, 0.5),
        ("half.wav", 1.2, 0.5),
        ("long.flac", 4.0, 0.75),  # which is streamed
    ):
        whole = write_wav(music / name, seconds).read_bytes()
        (music / name).write_bytes(whole[: int(kept * len(whole))])
    write_wav(music / "slow.wav", 40000, sample_rate=1)
    (music / "film.mp4").touch()
    os.mkfifo(music / "pipe.wav")  # to open it would wait for a writer
    assert embed("--batch-seconds", "3") == 1
    made = sorted(path.name for path in out.rglob("*.*"))
    assert made == ["a.wav.npz", "b.flac.npz", "c.wav.npz"]
    message = capsys.readouterr().err
    for words in (
        "3 files made",
        "8 files could not be used:",
        "pipe.wav: undecodable (not a regular file)",
        "bad.wav: undecodable",
        "cut.flac: truncated",
        "long.flac: truncated",
        "half.wav: truncated",
        "slow.wav: implausible (1 Hz, music has 4000 to 768000 Hz)",
        "film.mp4: other format",
        "tiny.wav: too short (0.040 s, a frame needs 0.043 s)",
    ):
        assert words in message


def test_a_batch_that_is_all_bad_does_not_reach_the_model(embed, out, music, capsys):
    for path in music.rglob("*.*"):
        path.write_bytes(path.read_bytes()[:2000])
    assert embed() == 1
    assert "3 files could not be used" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode")
def test_names_that_are_not_utf8(embed, out, music, write_wav, capsys):
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        os.rename(music / "a.wav", music / name)
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    (music / os.fsdecode(b"b\xe4d.wav")).write_text("no audio")
    assert embed() == 1
    assert read_facts(out / f"{name}.npz")["path"] == str(music / name)
    assert "b\ufffdd.wav: undecodable" in capsys.readouterr().err


def test_nothing_is_done_if_two_inputs_have_one_output(embed, out, music, capsys):
    (music / "deep" / "a.wav").write_bytes((music / "a.wav").read_bytes())
    inputs = [str(music / "a.wav"), str(music / "deep")]
    assert embed(inputs=inputs) == 2
    assert "would have the same output, a.wav" in capsys.readouterr().err
    assert not out.exists()


def test_memory_that_is_too_small_is_explained(embed, out, monkeypatch, capsys):
    def fail(self, wavs, wav_lens):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Embedding, "batch", fail)
    assert embed() == 2
    message = capsys.readouterr().err
    assert "3 s of audio do not fit into the memory of cpu: lower --batch-seconds" in (
        message
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "3"], "has 3 hidden states, 0 (front end) to 2"),
        (["--layer", "-4"], "There is no layer -4: "),
        (["--layer", "last"], "must be an index, several such as 3,6,-1"),
        (["--device", "cuda:99"], "device cuda:99: there is no such device here"),
        (["--device", "gpu"], "device gpu: there is no such device"),
        (["--device", "meta"], "only cpu, cuda and mps are supported"),
        (["--batch-seconds", "0.5"], "at least 1, got '0.5'"),
        (["--batch-seconds", "inf"], "at least 1, got 'inf'"),
        (["--batch-seconds", "nan"], "at least 1, got 'nan'"),
        pytest.param(
            ["--loudness", "3"],
            "in LUFS between -40 and -5, such as -16, got 3",
            marks=needs_meter,
        ),
        (["--format", "csv"], "'csv' is not one of"),
        (["--modell", "x"], "--modell"),
    ],
)
def test_mistakes_are_explained(embed, out, capsys, options, message):
    assert embed(*options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("options", [["--layer", "0"], ["--format", "safetensors"]])
def test_a_folder_holds_one_kind_of_output(embed, out, music, capsys, options):
    """Other files of another layer beside them could not be told apart."""
    assert embed(inputs=[str(music / "deep")]) == 0
    before = sorted(out.rglob("*"))
    for more in ([], ["--overwrite"]):
        assert embed(*options, *more, inputs=[str(music / "a.wav")]) == 2
        assert "outputs of two kinds in one folder" in capsys.readouterr().err
        assert sorted(out.rglob("*")) == before
    assert embed(inputs=[str(music / "a.wav")]) == 0


def test_a_name_of_many_bytes_does_not_stop_the_others(embed, out, music, write_wav):
    """With its extension it is longer than a file system takes."""
    name = "長" * 83 + ".wav"
    write_wav(music / name, 1.6)
    for _ in range(2):
        assert embed() == 0
        assert len(list(out.rglob("*.npz"))) == 4
    assert str(music / name) in [read_facts(path)["path"] for path in out.glob("*.npz")]
