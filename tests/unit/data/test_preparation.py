"""From a folder, or none, to loaders; and the log-mel statistics."""

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data import preparation, scan, shares
from muq_plugins.data.clips import evaluation_loader, training_loader
from muq_plugins.data.corpus import build_notes
from muq_plugins.data.manifest import split_files
from muq_plugins.data.mel_statistics import mel_statistics, normalise
from muq_plugins.data.preparation import Manifests, prepare_manifests, prepare_notes
from muq_plugins.data.scan import usual_fraction
from muq_plugins.experiment import load_experiment, run_script
from muq_plugins.files import read_json, write_json
from muq_plugins.lobes import LogMel, RandomProjection, StackedFrames
from tests.forks import in_two_processes
from tests.unit.data.recordings import noise_manifest


def write_music(folder, count, seconds=2.0):
    noise_manifest(folder, [seconds] * count, subtype="FLOAT")
    return folder


def write_corpus(folder):
    """One recording in each part."""
    write_music(folder, 1)
    entry = {"wav": "{data_root}/0.wav", "duration": 2.0}
    for part in ("train", "valid", "test"):
        (folder / f"{part}.json").write_text(json.dumps({part: entry}))


def prepare(data_folder, tmp_path):
    return prepare_manifests(data_folder, tmp_path / "results" / "corpus", 1.0, 1)


def test_a_folder_is_scanned_beside_the_corpus(tmp_path):
    manifests = prepare(write_music(tmp_path / "music", 6), tmp_path)
    assert manifests.folder.parent == tmp_path / "results" / "manifests"
    assert manifests.folder.name.startswith("music-")
    parts = [set(part) for part in (manifests.train, manifests.valid, manifests.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6
    # Another folder of the same name has manifests of its own.
    other = prepare(write_music(tmp_path / "other" / "music", 3), tmp_path)
    assert other.folder != manifests.folder


def test_runs_with_other_shares_do_not_divide_each_others_music(tmp_path, monkeypatch):
    """The second is divided before the first has read how its music is."""
    music = write_music(tmp_path / "music", 20, seconds=1.0)
    arguments = (music, tmp_path / "corpus", 1.0, 1)
    load, others = preparation.load_manifest, {}

    def load_late(path, data_root):
        if not others:
            others["other"] = None
            others["other"] = prepare_manifests(*arguments, valid_fraction=0.5)
        return load(path, data_root)

    monkeypatch.setattr(preparation, "load_manifest", load_late)
    one = prepare_manifests(*arguments, valid_fraction=0.1, test_fraction=0.1)
    assert len(one.valid) < len(others["other"].valid)
    usual = prepare_manifests(*arguments)
    assert usual.folder == one.folder.parent, "where it was before"
    decoded = json.loads((usual.folder / "scan.json").read_text())["decoded"]
    assert decoded == 0, "the division is another, the files are the same"
    again = prepare_manifests(*arguments, valid_fraction=0.1, test_fraction=0.1)
    assert again == one


def test_two_files_are_enough_and_one_is_not(tmp_path):
    two = prepare(write_music(tmp_path / "two", 2), tmp_path)
    assert len(two.train) == 1 and two.test == two.valid
    with pytest.raises(ValueError, match="only one usable file.*at least two"):
        prepare(write_music(tmp_path / "one", 1), tmp_path)


def test_without_a_folder_the_corpus_is_built(tmp_path, monkeypatch):
    asked = {}

    def build(folder, minutes, seed):
        asked.update(folder=folder, minutes=minutes, seed=seed)
        write_corpus(folder)

    monkeypatch.setattr(preparation, "build_corpus", build)
    manifests = prepare_manifests(None, tmp_path / "corpus", 12.0, 34)
    assert asked == {"folder": tmp_path / "corpus", "minutes": 12.0, "seed": 34}
    assert manifests.train["train"]["wav"] == f"{tmp_path / 'corpus'}/0.wav"


def test_collections_have_a_folder_of_their_own(tmp_path, monkeypatch):
    asked = []

    def build(folder, **settings):
        asked.append((folder.name, settings.get("collections")))
        write_corpus(folder)

    monkeypatch.setattr(preparation, "build_corpus", build)
    for collections in (None, ["fiddle tunes"], ["classical", "chorales"]):
        arguments = (None, tmp_path / "corpus-9min", 9, 1)
        manifests = prepare_manifests(*arguments, collections=collections)
        assert manifests.folder == tmp_path / asked[-1][0]
    assert asked == [
        ("corpus-9min", None),
        ("corpus-9min-fiddle_tunes", ["fiddle tunes"]),
        ("corpus-9min-chorales-classical", ["chorales", "classical"]),
    ]
    with pytest.raises(ValueError, match="'jazz'.*one or more of chorales"):
        prepare_manifests(*arguments, collections=["jazz"])
    with pytest.raises(
        ValueError, match="chooses from the embedded corpus, but data_f"
    ):
        prepare_manifests("music", *arguments[1:], collections=["chorales"])


@pytest.mark.parametrize("name", ["muq", "mel_rvq", "probe"])
def test_collections_of_an_experiment_reach_its_data(name):
    path = Path(__file__).parents[3] / "hparams" / f"{name}.yaml"
    options = ["--collections", "[fiddle tunes]", "--encoder", "none"]
    hparams = load_experiment([str(path), *options[: 4 if name == "probe" else 2]])
    hparams = hparams.hparams
    assert hparams["data"]["collections"] == ["fiddle tunes"]
    if name == "probe":
        music = hparams["corpora"][0]
        assert music.keywords["collections"] == ["fiddle tunes"]


def test_shares_of_the_evaluation_add_up(tmp_path):
    manifest = prepare(write_music(tmp_path / "music", 9), tmp_path).train
    whole = [b.ids for b in evaluation_loader(manifest, 1.0, 2, 2, max_windows=7)]
    assert sum(map(len, whole)) == 7
    shares = [
        [b.ids for b in evaluation_loader(manifest, 1.0, 2, 2, 7, rank=r, world_size=2)]
        for r in (0, 1)
    ]
    assert shares[0] == whole[0::2] and shares[1] == whole[1::2]


def test_training_crops_have_their_size(tmp_path):
    manifest = prepare(write_music(tmp_path / "music", 4), tmp_path).train
    batch = next(iter(training_loader(manifest, 0.5, 3, seed=1)))
    assert batch.wavs.shape == (3, 12000) and batch.audio_seconds == 1.5


def test_statistics_are_those_of_all_values_and_measured_once(tmp_path):
    manifests = prepare(write_music(tmp_path / "music", 6, seconds=5.0), tmp_path)
    log_mel = LogMel()
    mean, std = mel_statistics(
        log_mel, manifests.train, manifests.folder, progress=False
    )
    values = torch.cat(
        [
            log_mel.decibels(
                torch.from_numpy(soundfile.read(e["wav"])[0])[None].float()
            )
            for e in manifests.train.values()
        ]
    ).double()
    assert mean == pytest.approx(values.mean().item(), rel=1e-6)
    assert std == pytest.approx(values.std().item(), rel=1e-5)
    for path in (tmp_path / "music").iterdir():
        path.unlink()
    assert mel_statistics(log_mel, manifests.train, manifests.folder) == (mean, std)


def test_normalise_reaches_every_spectrogram_and_accepts_given_values():
    features = StackedFrames(LogMel())
    normalise(features, Manifests(None, {}, {}, {}), [1.0, 2.0])
    assert (features.features.mean, features.features.std) == (1.0, 2.0)
    normalise(RandomProjection(4, 1, 2), None, None)  # nothing to normalise


def test_unreadable_audio_cannot_be_measured(tmp_path):
    manifest = {"a": {"wav": str(tmp_path / "gone.wav"), "duration": 5.0}}
    with pytest.raises(ValueError, match="No audio.*scan the data folder again"):
        mel_statistics(LogMel(), manifest, tmp_path, progress=False)


def build_notes_in(folder):
    """What one of several runs does."""
    assert len(prepare_notes(folder, step=24, seed=1).test) > 0


def test_runs_that_begin_together_make_the_data_once(tmp_path, monkeypatch):
    made = tmp_path / "made"

    def build(folder, **settings):
        with open(made, "a") as file:
            file.write("begin\n")
        time.sleep(0.3)
        build_notes(folder, **settings)
        with open(made, "a") as file:
            file.write("end\n")

    monkeypatch.setattr(preparation, "build_notes", build)
    context = multiprocessing.get_context("fork")
    runs = [
        context.Process(target=build_notes_in, args=(tmp_path / "notes",))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert made.read_text().split() == ["begin", "end"] * 2


def test_a_data_folder_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    def main(argv):
        prepare_manifests(argv[0], str(tmp_path / "corpus"), 1, 0)

    monkeypatch.setattr("sys.argv", ["train.py", "/nonexistent"])
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message == "error: The data folder /nonexistent does not exist.\n"


def test_a_corpus_that_may_only_be_read_is_enough(tmp_path, monkeypatch):
    """No lock can be made there, and none is needed."""
    folder = build_notes(tmp_path / "notes", step=24, seed=1)
    monkeypatch.setattr(preparation.os, "access", lambda path, mode: False)
    assert prepare_notes(folder, step=24, seed=1).train
    assert not (folder / ".lock").exists()
    monkeypatch.undo()
    assert prepare_notes(folder, step=24, seed=1).train
    assert (folder / ".lock").exists()


def test_small_folders_keep_enough_to_test_on(tmp_path):
    assert split_of(61) == pytest.approx((9, 9), abs=1)
    assert split_of(1000) == pytest.approx((50, 50), abs=3)
    music = write_music(tmp_path / "music", 8)
    manifests = prepare_manifests(
        music, tmp_path / "corpus", 1.0, 1, valid_fraction=0.5, test_fraction=0.0
    )
    assert manifests.test == manifests.valid and len(manifests.valid) > 1
    settings = json.loads((manifests.folder / "scan.json").read_text())["settings"]
    assert (settings["valid_fraction"], settings["test_fraction"]) == (0.5, 0.0)
    size = f"{len(manifests.train)} files, {len(manifests.train) / 30:.1f} minutes"
    assert manifests.heard() == f"the folder music ({size})"


def split_of(files):
    """Files to validate on and to test on, on average over seeds."""
    share, names = usual_fraction(files), [f"{index}.wav" for index in range(files)]
    sizes = [
        [
            len(split_files(names, seed, share, share)[part])
            for part in ("valid", "test")
        ]
        for seed in range(200)
    ]
    return tuple(np.mean(sizes, axis=0))


def scan_in_one_of_two(rank, folder, music):
    """A process of a training: which files it decodes, and what it gets."""
    shares.MEET_SECONDS = 0.0
    names, check_audio = [], scan.check_audio
    scan.check_audio = lambda path: names.append(path.name) or check_audio(path)
    manifests = prepare_manifests(music, folder / "corpus", 1.0, 1)
    files = [list(part) for part in manifests.parts.values()]
    write_json(folder / f"{rank}.json", [names, files])


def test_processes_of_a_training_decode_a_share_each(tmp_path):
    """And meet in between: nobody waits for hours for the first of them."""
    music = write_music(tmp_path / "music", 8)
    in_two_processes(scan_in_one_of_two, tmp_path, music)
    (first, mine), (second, other) = (
        read_json(tmp_path / f"{rank}.json") for rank in (0, 1)
    )
    assert first and second
    assert sorted(first + second) == sorted(path.name for path in music.rglob("*.*"))
    assert mine == other == [list(part) for part in prepared(music, tmp_path)]


def prepared(music, folder):
    """The parts of a folder, by one process."""
    return prepare_manifests(music, folder / "alone" / "corpus", 1.0, 1).parts.values()
