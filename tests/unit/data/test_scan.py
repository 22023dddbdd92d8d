"""Tests of scanning a folder of music."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile

from muq_plugins.data import scan as scan_files
from muq_plugins.data.audio import AudioCheck
from muq_plugins.data.manifest import PARTS, load_manifest
from muq_plugins.data.scan import LARGEST_FRACTION, scan_folder
from muq_plugins.errors import UserError
from muq_plugins.inference.cli.main import main
from tests.unit.data.recordings import encode, write_noise


def write(path, seconds=2.0, level=0.5, **kinds):
    return write_noise(path, seconds, level=level, **kinds)


def scan(music, **kwargs):
    return scan_folder(music, music.parent / "out", progress=False, **kwargs)


def load(music, name):
    return json.loads((music.parent / "out" / name).read_text(encoding="utf-8"))


@pytest.fixture
def music(tmp_path):
    """A folder of six good files."""
    folder = tmp_path / "music"
    for number in range(4):
        write(folder / "album" / f"{number}.wav")
    write(folder / "LOUD.FLAC", rate=44100, channels=2, format="FLAC")
    write(folder / "album" / "deep" / "x.ogg", rate=48000)
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded from now on."""
    names = []
    check_audio = scan_files.check_audio

    def counted(path):
        names.append(path.name)
        return check_audio(path)

    monkeypatch.setattr(scan_files, "check_audio", counted)
    return names


def test_manifests_and_report(music):
    report = scan(music)
    assert (report.files, report.usable, report.decoded) == (6, 6, 6)
    assert report.hours == pytest.approx(12 / 3600)
    assert report.sample_rates == {"24000": 4, "44100": 1, "48000": 1}
    assert report.channels == {"1": 5, "2": 1}
    assert report.formats["FLAC PCM_16"] == 1
    assert report.quarantined == {} and load(music, "quarantine.json") == []
    assert load(music, "scan.json")["usable"] == 6
    assert "6 of 6 audio files usable" in report.summary()
    clips = {}
    for name in ("train", "valid", "test"):
        split = load_manifest(music.parent / "out" / f"{name}.json", music)
        assert len(split) == report.splits[name]["files"] >= 1
        clips.update(split)
    assert set(clips) == {f"album__{i}" for i in range(4)} | {"LOUD", "album__deep__x"}
    assert clips["LOUD"] == {
        "wav": str(music / "LOUD.FLAC"),
        "duration": 2.0,
        "sample_rate": 44100,
        "channels": 2,
    }


def test_every_reason_for_quarantine(music):
    (music / "text.wav").write_text("no audio " * 100)
    (music / "empty.wav").touch()
    write(music / "short.wav", seconds=0.01)
    write(music / "silent.wav", level=1e-5, subtype="FLOAT")
    truncated = write(music / "truncated.flac", seconds=4.0)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    wav = np.full(48000, 0.5)
    wav[30000] = np.nan
    soundfile.write(music / "nan.wav", wav, 24000, subtype="FLOAT")
    opposite = np.full((48000, 2), 0.5) * [1, -1]
    soundfile.write(music / "opposite.wav", opposite, 24000)
    soundfile.write(music / "slow.wav", wav[:20000], 24)
    scaled = np.full(48000, 0.5 * 32768)
    soundfile.write(music / "scaled.wav", scaled, 24000, subtype="FLOAT")
    (music / "link.wav").symlink_to(music / "nowhere.wav")
    os.mkfifo(music / "pipe.wav")
    report = scan(music)
    quarantine = load(music, "quarantine.json")
    assert {entry["path"]: entry["reason"] for entry in quarantine} == {
        "text.wav": "undecodable",
        "empty.wav": "empty",
        "short.wav": "too short",
        "silent.wav": "silent",
        "truncated.flac": "truncated",
        "nan.wav": "non-finite",
        "scaled.wav": "out of range",
        "opposite.wav": "cancelling",
        "slow.wav": "implausible",
        "link.wav": "missing",
        "pipe.wav": "undecodable",
    }
    assert all(entry["detail"] for entry in quarantine)
    assert report.usable == 6 and report.files == 17
    assert report.quarantined["undecodable"] == 2
    assert "left out: undecodable: 2" in report.summary()


def test_nothing_is_done_twice(music, decoded):
    scan(music)
    assert len(decoded) == 6
    decoded.clear()
    report = scan(music)
    assert decoded == [] and report.decoded == 0 and report.usable == 6
    write(music / "new.wav")
    write(music / "album" / "1.wav", seconds=3.0)
    report = scan(music)
    assert sorted(decoded) == ["1.wav", "new.wav"]
    assert report.hours == pytest.approx(15 / 3600)


def test_a_cache_of_other_checks_is_not_believed(music, decoded):
    scan(music)
    cache = music.parent / "out" / "scan_cache.jsonl"
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    for line in lines:
        if line["path"] == "album/1.wav":
            del line["checks"]
    cache.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (music.parent / "out" / "scan.json").unlink()
    decoded.clear()
    assert scan(music).usable == 6
    assert decoded == ["1.wav"]


def test_sound_that_is_left_out_is_listed(music):
    """In the quarantine, with what to do."""
    (music / "album" / "film.MP4").touch()
    (music / "cover.jpg").touch()
    report = scan(music)
    assert report.quarantined == {"other format": 1} and report.ignored == {".jpg": 1}
    [entry] = load(music, "quarantine.json")
    assert entry["path"] == "album/film.MP4"
    assert entry["detail"] == ".mp4 is not looked for in folders"


def test_thresholds_need_no_new_decoding(music, decoded):
    write(music / "short.wav", seconds=0.5)
    assert scan(music).quarantined == {"too short": 1}
    decoded.clear()
    assert scan(music, min_duration=0.4).quarantined == {}
    assert decoded == []


def test_an_interrupted_scan_goes_on(music, monkeypatch, decoded):
    check_audio = scan_files.check_audio

    def killed(path):
        if path.name == "3.wav":
            raise RuntimeError("killed")
        return check_audio(path)

    monkeypatch.setattr(scan_files, "check_audio", killed)
    with pytest.raises(RuntimeError, match="killed"):
        scan(music, workers=1)
    monkeypatch.setattr(scan_files, "check_audio", check_audio)
    done = len((music.parent / "out" / "scan_cache.jsonl").read_text().splitlines())
    assert 1 <= done < 6
    # A kill in the middle of a line costs that file only.
    cache = music.parent / "out" / "scan_cache.jsonl"
    cache.write_text(cache.read_text()[:-10])
    decoded.clear()
    assert scan(music).decoded == len(decoded) == 6 - done + 1
    assert scan(music).decoded == 0


def test_what_may_heal_is_not_remembered(music, monkeypatch):
    (music / "link.wav").symlink_to(music.parent / "late.wav")
    assert scan(music).quarantined == {"missing": 1}
    write(music.parent / "late.wav")
    with monkeypatch.context() as patch:
        failing = AudioCheck(reason="unreadable", detail="System error.")
        patch.setattr(scan_files, "check_audio", lambda path: failing)
        assert scan(music).quarantined == {"unreadable": 1}
    assert scan(music).quarantined == {}
    tone = np.sin(np.arange(48000)[:, None] / 9)
    encode(music / "a.m4a", 0.1 * tone, 24000, "ipod", "aac")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        assert scan(music).quarantined == {"needs FFmpeg": 1}
    assert scan(music).quarantined == {}


def test_hidden_files_links_and_loops(music, tmp_path):
    write(music / ".hidden" / "a.wav")
    write(music / "._0.wav")
    write(tmp_path / "elsewhere" / "b.wav")
    (music / "linked").symlink_to(tmp_path / "elsewhere")
    (music / "album" / "loop").symlink_to(music)
    (music / "album" / "again").symlink_to(tmp_path / "elsewhere")
    report = scan(music)
    assert report.files == 7


def test_links_to_files_of_the_folder_count_once(music):
    (music / "playlist").mkdir()
    for number in range(3):
        target = music / "album" / f"{number}.wav"
        (music / "playlist" / f"{number}.wav").symlink_to(target)
    os.link(music / "album" / "3.wav", music / "again.wav")
    assert scan(music).files == 6


def test_a_folder_that_grows_keeps_its_files_in_their_parts(music, caplog):
    def names(part):
        entries = load_manifest(music.parent / "out" / f"{part}.json", music)
        return {entry["wav"] for entry in entries.values()}

    for number in range(40):
        write(music / "album" / f"more {number}.wav")
    scan(music)
    before = {part: names(part) for part in PARTS}
    for number in range(80):  # of so many, 8 % are usual
        write(music / f"new {number}.wav")
    assert scan(music).settings["valid_fraction"] == LARGEST_FRACTION
    assert all(before[part] <= names(part) for part in PARTS)
    assert "change their parts" not in caplog.text
    scan(music, valid_fraction=0.2, test_fraction=0.2)
    assert "20% of the files are for valid, before 15%. Files change" in caplog.text


def test_names_with_braces_and_without_utf8(music):
    write(music / "a {b}.wav")
    names = {"a {b}.wav"}
    try:
        (music / "album" / "0.wav").rename(music / "caf\udce9.wav")
        names.add("caf\udce9.wav")
    except OSError:
        pass
    scan(music, valid_fraction=0.0, test_fraction=0.0)
    train = load_manifest(music.parent / "out" / "train.json", music)
    assert names <= {os.path.basename(entry["wav"]) for entry in train.values()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data folder .*music does not exist"),
        ("a file", "music is a file. Give the folder"),
        ({"a.mp4": b""}, r"No audio in .*\.flac.*\.mp4: 1.*convert"),
        (
            {"a.wav": b"no audio " * 99, "b.wav": b""},
            "None of the 2 .*undecodable: 1, empty: 1.*quarantine.json",
        ),
    ],
)
def test_folders_without_music(tmp_path, content, message):
    folder = tmp_path / "music"
    if isinstance(content, dict):
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    elif content:
        folder.write_text(content)
    with pytest.raises(UserError, match=message):
        scan(folder)
    if "b.wav" in (content or ()):
        assert len(load(folder, "quarantine.json")) == 2


def test_manifests_that_cannot_be_written(music, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scan_files, "write_json", full)
        with pytest.raises(UserError, match="Cannot write the manifests.*No space lef"):
            scan(music)
    (music.parent / "elsewhere").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="Cannot write .*elsewhere.*choose another"):
        scan_folder(music, music.parent / "elsewhere", progress=False)


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.5, 0.5)])
def test_bad_fractions(music, fractions):
    with pytest.raises(ValueError, match="sum to less than 1"):
        scan(music, valid_fraction=fractions[0], test_fraction=fractions[1])


def scan_as(monkeypatch, music, rank, world):
    """The command, as one of several processes."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    assert main(["scan", str(music), "--out", str(music.parent / "out")]) == 0
    return (music.parent / "out" / "scan.json").exists()


def test_processes_share_a_scan(music, monkeypatch, decoded, capsys):
    """A kill, then another number of them: nothing twice, nothing missing."""
    scan_folder(music, music.parent / "alone", progress=False)
    decoded.clear()
    assert not scan_as(monkeypatch, music, 1, 3)
    assert "Process 1 of 3 has done its share" in capsys.readouterr().err
    assert 0 < len(decoded) < 6
    look = scan_files.look_at(music)
    killed = scan_files.decode_share(look, music.parent / "out", 2, 3)
    next(killed)
    killed.close()
    assert not scan_as(monkeypatch, music, 1, 2)
    assert scan_as(monkeypatch, music, 0, 2)
    caches = (music.parent / "out").glob("scan_cache*.jsonl")
    lines = [json.loads(line) for cache in caches for line in open(cache)]
    written = sorted(line["path"] for line in lines if "path" in line)
    assert written == look.found.paths
    for name in ("train.json", "valid.json", "test.json", "quarantine.json"):
        assert load(music, name) == json.loads(
            (music.parent / "alone" / name).read_bytes()
        )
    decoded.clear()
    assert scan_as(monkeypatch, music, 0, 2) and decoded == []


def test_a_share_is_decoded_by_one_run_at_a_time(music, decoded):
    look = scan_files.look_at(music)
    first, second = (
        scan_files.decode_share(look, music.parent / "out", 0, 1) for _ in range(2)
    )
    next(first)
    next(second)
    assert len(list(first)) == 5
    assert list(second) == [] and len(decoded) == 6


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("x", "2")])
def test_a_process_without_a_number(music, monkeypatch, capsys, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert main(["scan", str(music), "--out", str(music.parent / "out")]) == 2
    assert f"RANK is {rank}".replace(" x", " 'x'") in capsys.readouterr().err
    assert not (music.parent / "out").exists()
