"""The embedded corpus as a whole: labels, audio, determinism, resuming, errors."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from muq_plugins.data.captions import full_caption
from muq_plugins.data.corpus import (
    FAMILIES,
    SPLITS,
    build,
    build_corpus,
    rendered,
)
from muq_plugins.data.corpus.pieces import find_pieces
from muq_plugins.data.corpus.scores import key_name, read_score
from muq_plugins.data.corpus.takes import TAKE_LABELS
from muq_plugins.errors import UserError

SETTINGS = {"minutes": 3.0, "seed": 7}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of three minutes, made in this process."""
    folder = tmp_path_factory.mktemp("corpus") / "one_worker"
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    build_corpus(folder, **SETTINGS, workers=1, progress=False)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    return folder


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def entries_of(folder):
    return {
        clip_id: entry
        for split in SPLITS
        for clip_id, entry in read_json(folder / f"{split}.json").items()
    }


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def copy_of(folder, target):
    for name, content in contents(folder).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return target


def test_speechbrain_reads_the_manifests(corpus):
    for split in SPLITS:
        dataset = DynamicItemDataset.from_json(
            str(corpus / f"{split}.json"), replacements={"data_root": str(corpus)}
        )
        dataset.set_output_keys(["id", "wav", "duration"])
        assert len(dataset) > 0
        for item in dataset:
            info = soundfile.info(item["wav"])
            assert item["duration"] == info.frames / info.samplerate
            assert (info.samplerate, info.channels) == (24000, 1)
            assert (info.format, info.subtype) == ("FLAC", "PCM_16")


def test_size_is_what_was_asked_for(corpus):
    record = read_json(corpus / "corpus.json")
    minutes = sum(entry["duration"] for entry in entries_of(corpus).values()) / 60.0
    assert SETTINGS["minutes"] <= minutes < SETTINGS["minutes"] + 2.0
    assert record["settings"] == SETTINGS
    assert record["complete"] is True
    counted = sum(split["minutes"] for split in record["splits"].values())
    assert counted == pytest.approx(minutes, abs=0.01)
    assert sorted(record["versions"]) == ["music21", "pretty_midi"]


def test_clips_are_in_the_split_of_their_piece(corpus):
    splits = {piece.work: piece.split for piece in find_pieces()}
    for split in SPLITS:
        for entry in read_json(corpus / f"{split}.json").values():
            assert splits[entry["piece"]] == split


def test_audio_is_levelled_and_starts_at_once(corpus):
    for entry in entries_of(corpus).values():
        audio, _ = soundfile.read(entry["wav"].format(data_root=corpus))
        rms, peak = np.sqrt(np.mean(audio**2)), np.abs(audio).max()
        assert peak <= 0.951
        assert rms == pytest.approx(0.1, rel=0.02) or peak == pytest.approx(
            0.95, abs=1e-3
        )
        assert np.abs(audio[:12000]).max() > 0.01
        assert np.abs(audio[-2400:]).max() > 1e-4
        assert 19.0 < entry["duration"] < 62.0


def test_notes_beside_the_audio_are_those_that_sound(corpus):
    """At the time of a note, its frequency is louder than those beside it."""
    louder = []
    for entry in entries_of(corpus).values():
        midi = pretty_midi.PrettyMIDI(entry["midi"].format(data_root=corpus))
        parts = [part for part in midi.instruments if not part.is_drum]
        assert sorted({int(part.program) for part in parts}) == entry["programs"]
        notes = [note for part in parts for note in part.notes]
        assert min(note.start for note in notes) == 0.0
        assert abs(max(note.end for note in notes) - entry["duration"]) < 3.0
        audio, _ = soundfile.read(entry["wav"].format(data_root=corpus))
        for note in notes:
            start = round(note.start * 24000)
            frame = audio[start : start + 4096] * np.hanning(4096)[: len(audio) - start]
            spectrum = np.abs(np.fft.rfft(frame, 24000))  # by Hz
            own, *others = (
                spectrum[round(440.0 * 2.0 ** ((note.pitch + step - 69) / 12))]
                for step in (0, -1, 1)
            )
            louder.append(own > max(others))
    assert np.mean(louder) > 0.75


def test_labels_are_in_their_vocabularies(corpus):
    keys = {key_name(tonic, mode) for tonic in range(12) for mode in ("major", "minor")}
    audio = {"wav", "midi", "duration", "sample_rate", "channels"}
    for entry in entries_of(corpus).values():
        stated = {"key", "mode", "time_signature"}
        assert TAKE_LABELS - stated <= entry.keys() - audio <= TAKE_LABELS
        assert ("key" in entry) == ("mode" in entry)
        if "key" in entry:
            assert entry["key"] in keys
            assert entry["key"].endswith(entry["mode"])
        else:
            assert "major" not in entry["caption"] and "minor" not in entry["caption"]
        assert -5 <= entry["transposition"] <= 6
        assert 40.0 < entry["tempo_bpm"] < 220.0
        assert entry["programs"] == sorted(set(entry["programs"]))
        assert len(entry["instruments"]) == len(entry["programs"])
        assert set(entry["families"]) <= set(FAMILIES)
        if entry["family"] == "mixed":
            assert len(entry["families"]) > 1
        else:
            assert entry["families"] == [entry["family"]]
        assert entry["caption"] == full_caption(entry, "en")


def test_key_of_a_whole_piece_is_transposed(corpus):
    pieces = {piece.slug: piece for piece in find_pieces()}
    checked = 0
    for clip_id, entry in entries_of(corpus).items():
        score = read_score(pieces[clip_id.rsplit("-take", 1)[0]])
        if abs(score.end * 60.0 / entry["tempo_bpm"] - entry["duration"]) < 2.0:
            tonic, mode = score.key or (0, None)
            key = mode and key_name(tonic + entry["transposition"], mode)
            assert entry.get("key") == key
            checked += mode is not None and entry["transposition"] != 0
    assert checked > 0


def test_complete_corpus_is_returned_at_once(corpus, monkeypatch):
    """Nothing is rendered, and the packages that it was rendered with may be gone."""
    monkeypatch.setattr(build, "_render", lambda *_: pytest.fail("rendered again"))
    monkeypatch.setattr(rendered, "version", lambda _: pytest.fail("asked"))
    start = time.perf_counter()
    assert build_corpus(str(corpus), **SETTINGS) == corpus
    assert time.perf_counter() - start < 0.2


def test_missing_clip_alone_is_made_again(corpus, tmp_path):
    folder = copy_of(corpus, tmp_path / "copy")
    lost = folder / entries_of(folder).popitem()[1]["wav"].format(data_root=folder)
    kept = [path for path in (folder / "audio").glob("*.flac") if path != lost]
    before = [path.stat().st_mtime_ns for path in kept]
    lost.unlink()
    build_corpus(folder, **SETTINGS, workers=1, progress=False)
    assert contents(folder) == contents(corpus)
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_killed_build_leaves_no_process_and_goes_on(corpus, tmp_path):
    """Two workers begin, are killed, and one process ends with the same bytes."""
    folder = tmp_path / "killed"
    code = (
        "from muq_plugins.data.corpus import build_corpus\n"
        f"build_corpus({str(folder)!r}, **{SETTINGS!r}, workers=2, progress=False)"
    )
    root = str(Path(build.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True
    )
    while process.poll() is None and not list(folder.glob("audio/*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers outlive the build by ten seconds")
    assert list(folder.glob("audio/*.flac"))
    (folder / "audio" / "bach-bwv1.6-take00.flac.1.tmp").write_bytes(b"half")
    build_corpus(folder, **SETTINGS, workers=1, progress=False)
    assert contents(folder) == contents(corpus)


def test_a_collection_is_played_by_itself(tmp_path):
    """Tunes of one voice: each take has the family of its instrument."""
    settings = {"minutes": 0.5, "seed": 3, "collections": ["fiddle tunes"]}
    build_corpus(tmp_path / "tunes", **settings, workers=1, progress=False)
    record = read_json(tmp_path / "tunes" / "corpus.json")
    assert record["settings"] == settings
    for entry in entries_of(tmp_path / "tunes").values():
        assert entry["piece"].startswith("ryansMammoth/")
        assert [entry["family"]] == entry["families"]
        assert len(entry["programs"]) == 1
    with pytest.raises(ValueError, match="'collections': .'fiddle tunes'.*but wanted"):
        build_corpus(tmp_path / "tunes", minutes=0.5, seed=3)


def test_a_corpus_of_an_older_version_is_refused(corpus, tmp_path):
    record = {**read_json(corpus / "corpus.json"), "format": 1}
    (tmp_path / "corpus.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="format 1, now 3.*Delete the folder, and it"):
        build_corpus(tmp_path, **SETTINGS)


def test_other_settings_are_refused(corpus):
    with pytest.raises(ValueError, match="'seed': 7.*'seed': 8.*another folder or del"):
        build_corpus(corpus, minutes=3.0, seed=8)
    with pytest.raises(ValueError, match="'minutes': 3.0.*'minutes': 4.0"):
        build_corpus(corpus, minutes=4.0, seed=7)


def test_folder_of_other_data_is_refused(corpus, tmp_path):
    (tmp_path / "audio").mkdir()
    song = tmp_path / "audio" / "song-take1.flac"
    song.write_bytes(b"mine")
    with pytest.raises(ValueError, match="has audio but no corpus.json"):
        build_corpus(tmp_path)
    assert song.read_bytes() == b"mine"
    record = tmp_path / "corpus.json"
    record.write_text("{}")
    with pytest.raises(ValueError, match="corpus.json is not the record of the embedd"):
        build_corpus(tmp_path)
    begun = {**read_json(corpus / "corpus.json"), "complete": False}
    begun["versions"] = {"music21": "1.0", "pretty_midi": "0.1"}
    record.write_text(json.dumps(begun))
    with pytest.raises(ValueError, match="a part of the embedded corpus, made.*'1.0'"):
        build_corpus(tmp_path, **SETTINGS)


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written to .*file/corpus: "):
        build_corpus(tmp_path / "file" / "corpus")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "minutes is 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"workers": 0}, "workers is 0"),
        ({"collections": ["jazz"]}, "collections is .'jazz'"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        build_corpus(tmp_path / "new", **{"workers": 1, **settings}, progress=False)
    assert not (tmp_path / "new" / "audio").exists()
