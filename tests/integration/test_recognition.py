"""Recognising classes with MuQ: frozen and then trained, and used afterwards."""

import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from muq_plugins import MuQ
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import ROOT, run_command

SETTINGS = (
    "--seconds 0.8 --number_of_epochs 8 --frozen_epochs 5 --loader.batch_size 4 "
    "--lr 0.03 --encoder_lr 0.001"
).split()


def recognition(*options, **kwargs):
    """Runs the recipe as a user does."""
    script = ROOT / "recipes" / "Recognition" / "train.py"
    options = (*options, "--device", "cpu", "--noprogressbar")
    return run_command(
        sys.executable, script, "hparams/recognition.yaml", *options, **kwargs
    )


def make_sounds(folder, kinds, number=20):
    """A folder of one-second sounds whose subfolders say what they are."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for index in range(number):
            rng = np.random.default_rng(index)
            tone = np.sin(2 * np.pi * rng.uniform(200, 400) * np.arange(24000) / 24000)
            wav = tone if kind == "tone" else rng.normal(size=24000).clip(-3, 3)
            soundfile.write(folder / kind / f"{index}.wav", 0.2 * wav, 24000)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Tones and noises, and an encoder; both in one folder."""
    folder = tmp_path_factory.mktemp("recognition")
    make_sounds(folder / "sounds", ["tone", "noise"])
    torch.manual_seed(0)
    encoder = MuQEncoder(16, num_layers=2, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(folder / "encoder", encoder)
    return folder


def given(folder, output):
    """Options that name the data and the model."""
    return [
        *("--data_folder", folder / "sounds", "--source", folder / "encoder"),
        *("--data.corpus_folder", folder / "corpus"),
        *("--output_folder", folder / output, *SETTINGS),
    ]


@pytest.fixture(scope="module")
def run(sounds):
    """A finished run, and what it printed."""
    return sounds / "run", recognition(*given(sounds, "run")).stdout


def test_it_learns_and_says_what_that_is_worth(run):
    folder, printed = run
    (line,) = [line for line in printed.splitlines() if "Accuracy" in line]
    accuracy = float(line.split()[1])
    assert accuracy > 0.9, line
    assert "on 8 recordings of 8 pieces that training never heard" in line
    assert "Chance: 0.500; always" in line
    report = (folder / "test.txt").read_text()
    assert line in report and "Confusion" in report


def test_the_encoder_is_frozen_and_then_trained_by_a_run_that_goes_on(sounds):
    folder, shorter = sounds / "shorter", given(sounds, "shorter")
    shorter[shorter.index("--number_of_epochs") + 1] = "2"
    recognition(*shorter)
    before, frozen = weights(sounds / "encoder"), weights(folder)
    assert all(torch.equal(before[name], frozen[name]) for name in before)
    log = (folder / "train_log.txt").read_text().splitlines()
    assert [line.split(" - ")[0] for line in log] == ["epoch: 1", "epoch: 2"]

    recognition(*given(sounds, "shorter"))
    longer = (folder / "train_log.txt").read_text().splitlines()
    assert longer[:2] == log and len(longer) == 8
    assert longer[2].startswith("epoch: 3 ")
    trained = weights(folder)
    changed = {name for name in before if not torch.equal(before[name], trained[name])}
    assert any("layers.0" in name for name in changed)


def weights(folder):
    """The tensors of a saved encoder."""
    return MuQ.from_pretrained(folder).mods.encoder.state_dict()


def test_other_music_is_refused_in_a_run(sounds, run):
    more = sounds / "more" / "sounds"
    shutil.copytree(sounds / "sounds", more)
    shutil.copy(more / "tone" / "0.wav", more / "tone" / "new.wav")
    options = ["--data_folder", more, *given(sounds, "run")[2:]]
    result = recognition(*options, check=False)
    assert result.returncode == 2 and "data_folder" in result.stderr


def test_what_was_trained_is_used_by_speechbrain(sounds, run):
    folder, _ = run
    classifier = EncoderClassifier.from_hparams(
        source=str(folder / "classifier"), savedir=str(sounds / "loaded")
    )
    for kind in ("tone", "noise"):
        file = sounds / "sounds" / kind / "0.wav"
        *_, names = classifier.classify_file(str(file))
        assert names == [kind]


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["tone"], "has only one class, 'tone'"),
        ([], "No audio in"),
    ],
)
def test_bad_folders_are_one_message(sounds, tmp_path, kinds, words):
    folder = make_sounds(tmp_path / "sounds", kinds, number=3)
    folder.mkdir(exist_ok=True)
    result = recognition(
        *("--data_folder", folder, "--source", sounds / "encoder"),
        *("--output_folder", tmp_path / "run"),
        *("--data.corpus_folder", tmp_path / "corpus"),
        check=False,
    )
    assert result.returncode == 2
    assert "error: " in result.stderr and words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "save").exists()


def test_without_a_model_the_message_names_the_command(tmp_path):
    result = recognition("--source", tmp_path / "none", check=False)
    assert result.returncode == 2
    assert "python recipes/MuQ/train.py hparams/muq.yaml" in result.stderr
