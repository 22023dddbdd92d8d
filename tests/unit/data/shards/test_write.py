"""Shards hold what their recordings hold, whatever happens on the way."""

import dataclasses
import gzip
import itertools
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.data.audio import audio_info, read_audio
from muq_plugins.data.manifest import load_manifest, manifest_entry
from muq_plugins.data.preparation import add_captions, prepare_manifests
from muq_plugins.data.shards import write
from muq_plugins.data.shards.index import check_shards, is_sharded
from muq_plugins.data.shards.write import (
    jobs_of_folder,
    jobs_of_manifests,
    planned,
    write_shards,
)
from muq_plugins.data.sources import Place, member
from muq_plugins.errors import UserError
from muq_plugins.files import locked, write_json
from muq_plugins.inference.cli.main import main
from tests.unit.data.recordings import encode, write_noise


@pytest.fixture
def music(tmp_path):
    """Twelve files of 16 bits at 24 kHz in two folders, with awkward names."""
    folder = tmp_path / "music"
    for number in range(12):
        name = f"{number % 2} Ünder/{number:02d}. song{{x}}.wav"
        write_noise(folder / name, 1 + number / 10, seed=number)
    return folder


def prepare(folder, tmp_path, **shares):
    return prepare_manifests(folder, tmp_path / "results" / "corpus", 1.0, 1, **shares)


def shard(music, out, *options):
    return main(["shard", str(music), "--out", str(out), "--workers", "2", *options])


def test_shards_are_their_recordings(music, tmp_path, capsys):
    out = tmp_path / "shards"
    assert shard(music, out, "--hours", "0.0015") == 0
    assert "12 clips, 0.01 h" in capsys.readouterr().err
    names = sorted(path.name for path in (out / "audio").iterdir())
    assert names[0] == "cuts.000000.jsonl.gz" and len(names) == 2 * len(names[::2]) == 8
    for shares in ({}, {"valid_fraction": 0.3, "test_fraction": 0.2}):
        files = prepare(music, tmp_path, **shares)
        shards = prepare(out, tmp_path, **shares)
        assert shards.facts() == files.facts()
        for part, entries in files.parts.items():
            assert list(shards.parts[part]) == list(entries)
            for clip, entry in entries.items():
                other = shards.parts[part][clip]
                assert ".tar?o=" in other["wav"] and music.name not in other["wav"]
                assert other["path"] == os.path.relpath(entry["wav"], music)
                for window in ((), (0.2, 0.5), (0.5,)):
                    one = read_audio(entry["wav"], *window)
                    assert torch.equal(read_audio(other["wav"], *window), one)
    (shards.folder / "valid.json").unlink()
    assert prepare(out, tmp_path, **shares) == shards
    assert main(["shard", "--check", str(out)]) == 0
    assert "clips, all as they were written" in capsys.readouterr().err


def test_tar_webdataset_and_lhotse_find_what_they_look_for(music, tmp_path):
    """WebDataset: members of one sample follow another. Lhotse: cuts in this order."""
    out = tmp_path / "shards"
    assert shard(music, out) == 0
    with tarfile.open(out / "audio" / "recording.000000.tar") as tar:
        members = tar.getmembers()
        cuts = gzip.open(out / "audio" / "cuts.000000.jsonl.gz").read().splitlines()
        for number, cut in enumerate(map(json.loads, cuts)):
            sound, note = members[2 * number : 2 * number + 2]
            assert (
                sound.name == f"{cut['id']}.flac" and note.name == f"{cut['id']}.json"
            )
            assert "." not in cut["id"] and "/" not in cut["id"] and cut["id"].isascii()
            assert (cut["custom"]["begin"], sound.offset_data) == (
                sound.offset_data,
            ) * 2
            known = json.load(tar.extractfile(note))
            assert known == cut["recording"] and cut["type"] == "MonoCut"
            info = soundfile.info(tar.extractfile(sound))
            assert (info.samplerate, info.channels) == (24000, 1)
            assert info.frames == known["num_samples"]
            assert known["sources"][0]["type"] == "shar"


def test_other_rates_and_formats_are_what_was_heard(tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    tone = np.sin(np.arange(2 * 44100)[:, None] * [0.05, 0.07])
    wav = 0.3 * tone
    soundfile.write(music / "44.flac", wav, 44100)
    soundfile.write(music / "loud.wav", 1.5 * tone[:48000, 0], 24000, subtype="FLOAT")
    encode(music / "aac.m4a", wav, 44100, "ipod", "aac")
    before = [read_audio(music / name) for name in ("44.flac", "aac.m4a", "loud.wav")]
    for encoding in ("flac", "opus"):
        jobs = jobs_of_folder(music, tmp_path / "scan", 1)
        write_shards(jobs, tmp_path / encoding, encoding, progress=False)
        shards = prepare(tmp_path / encoding, tmp_path)
        entries = {
            entry["path"]: entry
            for part in shards.parts.values()
            for entry in part.values()
        }
        for name, one in zip(("44.flac", "aac.m4a", "loud.wav"), before, strict=True):
            other = read_audio(entries[name]["wav"])
            assert other.shape == one.shape
            if encoding == "flac":
                one = one.clamp(-1, 1 - 2**-15)
                assert float((other - one).abs().max()) <= 1.01 / 65536
            elif name != "loud.wav":
                lost = (other - one)[2400:-2400].square().mean() / one.square().mean()
                assert float(lost) < 0.01


def test_what_was_killed_goes_on_with_the_rest(music, tmp_path, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    jobs = jobs_of_folder(music, tmp_path / "scan", 2)
    write_shards(jobs, whole, hours=0.001, progress=False)
    encoded, add = [], write._add

    def killed(*arguments):
        if len(encoded) == 9:
            os._exit(9)
        encoded.append(arguments)
        add(*arguments)

    child = os.fork()
    if not child:
        monkeypatch.setattr(write, "_add", killed)
        write_shards(jobs, part, hours=0.001, workers=1, progress=False)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9
    assert not (part / "shards.json").exists()
    assert list((part / "audio").glob(".*.partial")), "it was in the middle of a file"
    with pytest.raises(UserError, match="are not complete: run `muq-plugins shard`"):
        is_sharded(part)
    first = (part / "audio" / "recording.000000.tar").stat()
    write_shards(jobs, part, hours=0.001, workers=1, progress=False)
    assert (part / "audio" / "recording.000000.tar").stat().st_ino == first.st_ino
    files = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert files == {p.relative_to(part) for p in part.rglob("*") if p.is_file()}
    for path in files:
        assert (part / path).read_bytes() == (whole / path).read_bytes()


def test_several_processes_write_what_one_writes(music, tmp_path, monkeypatch):
    jobs = jobs_of_folder(music, tmp_path / "scan", 2)
    write_shards(jobs, tmp_path / "one", hours=0.001, progress=False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    written = []
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        written.append(write_shards(jobs, tmp_path / "three", hours=0.001))
    assert written[:2] == [None, None] and written[2][0]["clips"] == 12
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file() and path.name != ".lock":
            other = tmp_path / "three" / path.relative_to(tmp_path / "one")
            assert other.read_bytes() == path.read_bytes()


def test_one_process_beside_several_leaves_what_they_write(music, tmp_path):
    jobs = jobs_of_folder(music, tmp_path / "scan", 2)
    theirs = tmp_path / "out" / "audio" / ".theirs.partial"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    with locked(tmp_path / "out", ".lock-1-of-2"):
        write_shards(jobs, tmp_path / "out", progress=False)
        assert theirs.exists()
    write_shards(jobs, tmp_path / "out", progress=False)
    assert not theirs.exists()


def test_other_music_is_not_mixed_in(music, tmp_path):
    out = tmp_path / "shards"
    jobs = jobs_of_folder(music, tmp_path / "scan", 2)
    write_shards(jobs, out, hours=0.001, progress=False)

    def refused(words, jobs=jobs, **settings):
        settings = {"hours": 0.001, "progress": False, **settings}
        with pytest.raises(UserError, match=words):
            write_shards(jobs, out, **settings)

    refused(
        "flac is in it, and opus was asked for. Give another --out", encoding="opus"
    )
    refused("was made of other music or with other settings", hours=1.0)
    other = dataclasses.replace(jobs[0], labels={"genre": "jazz"})
    refused("what is known about .* has changed since", jobs=[other, *jobs[1:]])
    path = music / jobs[0].path
    write_noise(path, 1.0, seed=99)
    refused(f"{path.name.replace('{', '.').replace('}', '.')} has changed since")


def test_a_recording_that_changes_while_it_is_read_is_told(
    music, tmp_path, monkeypatch
):
    jobs, times = jobs_of_folder(music, tmp_path / "scan", 2), itertools.count()
    monkeypatch.setattr(write, "size_and_time", lambda path: (1, next(times)))
    with pytest.raises(UserError, match="changes while it is read: run this again"):
        write_shards(jobs[:1], tmp_path / "out", progress=False)


def test_a_recording_that_fails_late_is_told_and_left_out(music, tmp_path, capsys):
    jobs = jobs_of_folder(music, tmp_path / "scan", 2)
    path = music / jobs[3].path
    path.write_bytes(path.read_bytes()[:1000])
    (music / jobs[5].path).unlink()
    content, left_out = write_shards(jobs, tmp_path / "out", progress=False)
    assert content["clips"] == 10
    assert {clip["reason"] for clip in left_out} == {"truncated", "missing"}
    again = write_shards(jobs, tmp_path / "out", progress=False)
    assert again == (content, left_out)
    write_noise(music / jobs[5].path, 1.0, seed=5)  # its disk is there again
    content, left_out = write_shards(jobs, tmp_path / "out", progress=False)
    assert content["clips"] == 11 and [c["reason"] for c in left_out] == ["truncated"]
    assert list(check_shards(tmp_path / "out"))
    write_noise(path, 1.0, seed=3)
    with pytest.raises(UserError, match="no recording to use then, and has changed"):
        write_shards(jobs, tmp_path / "out", progress=False)


def test_what_the_scan_leaves_out_is_told_too(music, tmp_path, capsys, monkeypatch):
    (music / "bad.wav").write_text("no audio")
    with monkeypatch.context() as patch:  # else torchrun would end the others
        for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
            patch.setenv(name, value)
        assert shard(music, tmp_path / "out") == 0
        patch.setenv("RANK", "0")
        assert shard(music, tmp_path / "out") == 0
    capsys.readouterr()
    assert shard(music, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "12 clips" in told and "bad.wav: undecodable" in told


def test_music_and_shards_are_not_mixed(music, tmp_path, capsys):
    there = sorted(music.rglob("*"))
    for out in (music, music / "shards"):
        assert shard(music, out) == 2
        assert "in the folder of the music" in capsys.readouterr().err
    assert sorted(music.rglob("*")) == there
    assert shard(music, tmp_path / "out") == 0
    assert main(["scan", str(tmp_path / "out"), "--out", str(tmp_path / "scan")]) == 2
    assert "holds shards, which need no scan" in capsys.readouterr().err
    assert main(["shard", "--check", str(music)]) == 2
    assert "holds no shards: shards.json is missing" in capsys.readouterr().err


def test_manifests_keep_their_parts_and_labels(music, tmp_path, capsys):
    files = sorted(music.rglob("*.wav"))
    for part, some in (("train", files[:8]), ("valid", files[8:]), ("test", files[:1])):
        entries = {
            f"{part}{number}": manifest_entry(
                path.relative_to(music).as_posix(),
                audio_info(path),
                artist=f"a {{{number}}}",
            )
            for number, path in enumerate(some)
        }
        write_json(tmp_path / f"{part}.json", entries)
    out = tmp_path / "shards"
    given = [str(tmp_path / f"{part}.json") for part in ("train", "valid")]
    assert shard(given[0], out, given[1], "--data-root", str(music)) == 0
    shards = prepare(out, tmp_path)
    assert [len(part) for part in shards.parts.values()] == [8, 4, 4]
    before = load_manifest(given[0], music)
    assert shards.train["train3"]["artist"] == before["train3"]["artist"] == "a {3}"
    captions = {entry["path"]: "noise" for entry in shards.train.values()}
    captions |= {entry["path"]: "noise" for entry in shards.valid.values()}
    write_json(tmp_path / "captions.json", captions)
    captioned = add_captions(shards, tmp_path / "captions.json", out)
    assert captioned.train["train3"]["caption"] == "noise"
    with pytest.raises(UserError, match="leave out valid_fraction"):
        prepare(out, tmp_path, valid_fraction=0.1)
    write_json(tmp_path / "empty" / "test.json", {})  # of a small corpus
    with_empty = [*given, str(tmp_path / "empty" / "test.json")]
    assert len(jobs_of_manifests(with_empty, music)) == 12
    some = jobs_of_manifests([given[1], str(tmp_path / "test.json")], music)
    write_shards(some, tmp_path / "some", progress=False)
    with pytest.raises(UserError, match="only the part .*make them of train.json and"):
        prepare(tmp_path / "some", tmp_path)
    assert main(["shard", *given, given[0], "--out", str(out)]) == 2
    assert "have to be called train.json, valid.json" in capsys.readouterr().err


@pytest.fixture
def shards(music, tmp_path):
    """Two sets of shards of other music, and the tar of the first."""
    write_noise(tmp_path / "other" / "a.wav", 1.5, seed=50)
    write_noise(tmp_path / "other" / "b.wav", 1.5, seed=51)
    for name in ("music", "other"):
        jobs = jobs_of_folder(tmp_path / name, tmp_path / f"scan {name}", 2)
        write_shards(jobs, tmp_path / f"shards {name}", progress=False)
    return tmp_path / "shards music"


TAR, INDEX = "audio/recording.000000.tar", "audio/cuts.000000.jsonl.gz"


def test_shards_that_are_not_whole_are_named(shards, tmp_path):
    other = tmp_path / "shards other"

    def refused(words):
        with pytest.raises(UserError, match=words):
            prepare(shards, tmp_path)

    tar = (shards / TAR).read_bytes()
    (shards / TAR).write_bytes(tar[:-1])
    refused(r"recording.000000.tar has [\d,]+ bytes, .*shards.json says [\d,]+: copy")
    (shards / TAR).unlink()
    refused("recording.000000.tar is missing, .*shards.json lists it: copy")
    (shards / TAR).write_bytes(tar)
    index = (shards / INDEX).read_bytes()
    shutil.copy(other / INDEX, shards / INDEX)
    refused("cuts.000000.jsonl.gz is not the index that .*of other shards, or damaged")
    (shards / INDEX).unlink()
    refused("cuts.000000.jsonl.gz is missing: copy")
    (shards / INDEX).write_bytes(index)
    whole = (shards / "shards.json").read_bytes()
    (shards / "shards.json").write_bytes(whole[:-9])
    refused("shards.json is damaged")
    (shards / "shards.json").write_text('{"format": 2}')
    refused("shards.json is not of format 1")
    (shards / "shards.json").write_bytes(whole)
    assert len(prepare(shards, tmp_path).train) == 9


def test_a_shard_that_changes_under_a_reader_is_named(shards, tmp_path):
    wav = next(iter(prepare(shards, tmp_path).train.values()))["wav"]
    place, tar = Place.of(wav), (shards / TAR).read_bytes()
    (shards / TAR).write_bytes(tar[: place.end - 1])
    with pytest.raises(UserError, match=r"tar was cut off: it ends at byte \d+, and"):
        read_audio(wav, 0.0, 0.1)
    (shards / TAR).unlink()
    with pytest.raises(UserError, match=f"tar is missing, which has {place.name}"):
        read_audio(wav)
    (shards / TAR).write_bytes(tar)
    for other in (
        member(place.file, place.begin + 512, place.end + 512, place.name),
        member(place.file, place.begin, place.end + 1, place.name),
        member(place.file, place.begin, place.end, "x.flac"),
    ):
        with pytest.raises(UserError, match="its index do not belong together"):
            read_audio(other)
    middle = (place.begin + place.end) // 2
    (shards / TAR).write_bytes(tar[:middle] + b"X" + tar[middle + 1 :])
    with pytest.raises(UserError, match=f"{place.name} .* has changed since"):
        list(check_shards(shards))


def test_a_plan_depends_on_the_music_alone(music, tmp_path):
    jobs = jobs_of_folder(music, tmp_path / "scan", 2)
    plan = planned(jobs, 0.001)
    assert planned(jobs[::-1], 0.001) == plan
    assert sorted(job.id for shard in plan for job in shard) == sorted(
        job.id for job in jobs
    )
    assert [job.id for job in jobs] != [job.id for shard in plan for job in shard]
