"""Recognising classes with MuQ: frozen and then trained, and used afterwards."""

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.core import Stage
from speechbrain.inference.classifiers import EncoderClassifier

from muq_plugins import MuQ
from muq_plugins.errors import UserError
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.integration.commands import ROOT, Fork

SETTINGS = (
    "--seconds 0.8 --number_of_epochs 8 --frozen_epochs 5 --loader.batch_size 4 "
    "--lr 0.03 --encoder_lr 0.001"
).split()


SCRIPT = ROOT / "recipes" / "Recognition" / "train.py"


def arguments(*options):
    """The command line of a run."""
    experiment = ROOT / "hparams" / "recognition.yaml"
    return [str(each) for each in (experiment, *options, "--noprogressbar")]


def recognise(*options):
    """Runs the recipe in this process, and gives the first line of what it says."""
    options = arguments(*options, "--device", "cpu")
    runpy.run_path(str(SCRIPT))["main"](options)
    folder = Path(options[options.index("--output_folder") + 1])
    return (folder / "test.txt").read_text().splitlines()[0]


def refused(*options):
    """Runs the recipe by itself, and gives the one line that it ends with."""
    result = Fork(SCRIPT, *arguments(*options)).result()
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


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


def given(folder, output, **other):
    """Options that name the data and the model, and some other values."""
    options = [
        *("--data_folder", folder / "sounds", "--source", folder / "encoder"),
        *("--data.corpus_folder", folder / "corpus"),
        *("--output_folder", folder / output, *SETTINGS),
    ]
    for name, value in other.items():
        options[options.index(f"--{name}") + 1] = value
    return options


@pytest.fixture(scope="module")
def run(sounds):
    """A finished run, and what it ended with."""
    return sounds / "run", recognise(*given(sounds, "run"))


def test_it_learns_and_says_what_that_is_worth(run):
    folder, line = run
    assert float(line.split()[1]) > 0.9, line
    sure = (
        r"Accuracy: (\S+) \(95% interval (\S+) to (\S+)\) on 8 recordings of 8 pieces "
    )
    value, low, high = map(float, re.match(sure, line).groups())
    assert low <= value <= high and "that training never heard" in line
    assert "Chance: 0.500; always" in line
    assert "Confusion" in (folder / "test.txt").read_text()


def test_the_encoder_is_frozen_and_then_trained_by_a_run_that_goes_on(sounds):
    folder = sounds / "shorter"
    recognise(*given(sounds, "shorter", number_of_epochs=2))
    before, frozen = weights(sounds / "encoder"), weights(folder)
    assert all(torch.equal(before[name], frozen[name]) for name in before)
    log = (folder / "train_log.txt").read_text().splitlines()
    assert [line.split(" - ")[0] for line in log] == ["epoch: 1", "epoch: 2"]

    recognise(*given(sounds, "shorter"))
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
    with pytest.raises(UserError, match="data_folder"):
        recognise("--data_folder", more, *given(sounds, "run")[2:])


def test_what_was_trained_is_used_by_speechbrain(sounds, run, tmp_path):
    moved = shutil.copytree(run[0], tmp_path / "moved")
    shutil.rmtree(moved / "save")
    for folder, overrides in ((run[0], {}), (moved, {"run": str(moved)})):
        classifier = EncoderClassifier.from_hparams(
            source=str(folder / "classifier"),
            savedir=str(tmp_path / f"loaded {folder.name}"),
            overrides=overrides,
        )
        for kind in ("tone", "noise"):
            file = sounds / "sounds" / kind / "0.wav"
            *_, names = classifier.classify_file(str(file))
            assert names == [kind]
    # Each of a padded batch as if it were alone, whatever is in the padding.
    wavs, lens = 0.1 * torch.randn(2, 24000), torch.tensor([1.0, 0.4])
    scores = classifier.classify_batch(wavs, lens)[0]
    alone = classifier.classify_batch(wavs[1:, :9600])[0]
    torch.testing.assert_close(scores[1:], alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"lora": "{r: 4}"},
        {
            "output_weighted_sum": True,
            "output_norm": True,
            "output_frame_rate": 50,
            "input_sample_rate": 16000,
            "pad_short_clips": True,
        },
    ],
)
def test_what_is_left_is_what_was_tested(sounds, tmp_path, options):
    space, heard = runpy.run_path(str(SCRIPT)), []
    compute = space["Recognition"].compute_forward

    def noted(brain, batch, stage):
        scores = compute(brain, batch, stage)
        if stage == Stage.TEST:
            heard.append((*batch.wav, scores))
        return scores

    space["Recognition"].compute_forward = noted
    fewer = {"8": "2", "5": "1", "0.001": "0.1"}  # the layers' weights move, too
    line = [fewer.get(each, each) for each in given(sounds, tmp_path / "run")]
    line += [x for key, value in options.items() for x in (f"--muq.{key}", value)]
    space["main"](arguments(*line, "--device", "cpu"))

    MuQ.from_pretrained(tmp_path / "run")
    classifier = EncoderClassifier.from_hparams(
        source=str(tmp_path / "run" / "classifier"), savedir=str(tmp_path / "loaded")
    )
    rate = options.get("input_sample_rate", 24000)
    assert classifier.hparams.audio_normalizer.sample_rate == rate
    for wavs, lens, scores in heard:
        assert wavs.shape[1] == 0.8 * rate
        found = classifier.classify_batch(wavs, lens)[0]
        torch.testing.assert_close(found, scores, rtol=0, atol=2e-3)


def test_a_class_that_is_left_out_is_told(sounds, tmp_path, capsys):
    folder = make_sounds(tmp_path / "sounds", ["tone", "noise"])
    make_sounds(folder, ["harp"], number=1)
    recognise(*given(sounds, tmp_path / "run", data_folder=folder, number_of_epochs=1))
    for words in (capsys.readouterr().out, (tmp_path / "run/test.txt").read_text()):
        assert "not in the training part 2 times: harp (" in words


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
    line = refused(
        *("--data_folder", folder, "--source", sounds / "encoder"),
        *("--output_folder", tmp_path / "run"),
        *("--data.corpus_folder", tmp_path / "corpus"),
    )
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "run" / "save").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--muq.output_all_hiddens", "True"], "have muq.output_all_hiddens: True"),
        (["--muq.dtype", "bfloat16"], "have weights of torch.bfloat16"),
        (["--modules.pooling", "!new:torch.nn.Identity"], "PretrainedMuQ and a Iden"),
    ],
)
def test_what_could_not_be_left_as_it_was_is_refused(sounds, tmp_path, option, words):
    with pytest.raises(UserError, match=f"{words}.*output_weighted_sum: True"):
        recognise(*given(sounds, tmp_path / "run"), *option)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seconds": 0.02}, r"seconds is 0\.02: a crop must last 0\.04. s"),
        ({"seconds": 0}, "seconds is 0: give a number above 0"),
        ({"number_of_epochs": 0}, "number_of_epochs is 0: give a number above 0"),
    ],
)
def test_what_nothing_can_be_learned_with_is_refused(sounds, tmp_path, values, words):
    with pytest.raises(UserError, match=words):
        recognise(*given(sounds, tmp_path / "run", **values))
    assert not (tmp_path / "run").exists()


def test_without_a_model_the_message_names_the_command(tmp_path):
    line = refused("--source", tmp_path / "none")
    assert "`muq-plugins train muq.yaml`" in line
