"""What others have stored: WebDataset's tars where they are, Lhotse's cuts."""

import gzip
import io
import json
import os
import shutil
import tarfile

import fsspec
import pytest
import torch

from muq_plugins.data.audio import AudioCheck, read_audio
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.data.shards import others
from muq_plugins.data.shards.others import from_webdataset, jobs_of_cuts
from muq_plugins.errors import UserError
from muq_plugins.inference.cli.main import main
from tests.unit.data.recordings import write_noise

KINDS = [
    {"suffix": ".wav"},
    {"suffix": ".flac", "rate": 44100, "channels": 2},
    {"suffix": ".mp3", "rate": 44100},
    {"suffix": ".ogg", "rate": 48000},
    {"suffix": ".opus", "rate": 48000, "format": "OGG", "subtype": "OPUS"},
]


def prepare(folder, tmp_path):
    return prepare_manifests(folder, tmp_path / "corpus", 1.0, 1)


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_tars(tmp_path):
    """Two tars with ten samples in five formats; gives the file of each."""
    files = {}
    for number in (0, 1):
        (tmp_path / "tars").mkdir(exist_ok=True)
        name = f"music-{number}.tar"
        with tarfile.open(tmp_path / "tars" / name, "w") as tar:
            for place, kind in enumerate(KINDS):
                kind = dict(kind)
                suffix = kind.pop("suffix")
                path = tmp_path / "files" / f"{number}-{place}{suffix}"
                write_noise(path, 2.0, seed=10 * number + place, **kind)
                # Long enough for a header before the header.
                key = f"{'Ü' * 60}/{place:06d}"
                known = {"genre": "{jazz}", "duration": 3, "wav": "else"}
                known["more"] = {"words": ["{curly}"]}
                add(tar, f"{'Ü' * 60}/._{place:06d}{suffix}", b"of macOS")
                add(tar, f"{key}.json", json.dumps(known).encode())
                add(tar, f"{key}{suffix}", path.read_bytes())
                add(tar, f"{key}.txt", b"A song.\n")
                add(tar, f"{key}.jpg", b"no audio")
                files[f"{name}/{key}"] = path
    return files


def test_webdataset_tars_are_heard_where_they_are(tmp_path, capsys):
    files = write_tars(tmp_path)
    out = tmp_path / "index"
    given = ["shard", "--index-only", str(tmp_path / "tars"), "--out", str(out)]
    assert main(given) == 0
    assert "10 clips" in capsys.readouterr().err
    assert not list(out.rglob("*.tar"))
    manifests = prepare(out, tmp_path)
    entries = {e["path"]: e for part in manifests.parts.values() for e in part.values()}
    assert set(entries) == set(files)
    for key, path in files.items():
        entry = entries[key]
        assert (entry["genre"], entry["caption"]) == ("{jazz}", "A song.")
        assert entry["more"] == {"words": ["{curly}"]}
        assert entry["wav"].startswith(str(tmp_path / "tars" / "music-"))
        assert entry["duration"] == pytest.approx(2.0, abs=0.1)
        for window in ((), (0.5, 0.7)):
            assert torch.equal(
                read_audio(entry["wav"], *window), read_audio(path, *window)
            )
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(given) == 0 and main(["shard", "--check", str(out)]) == 0
    assert (out / "done/000000.json").stat().st_mtime_ns in before.values()
    tar = tmp_path / "tars" / "music-1.tar"
    changed = tar.stat().st_mtime_ns + 1  # other music: tars are padded to a length
    os.utime(tar, ns=(changed, changed))
    assert main(given) == 2
    assert f"{tar} has changed" in capsys.readouterr().err
    tar.write_bytes(tar.read_bytes() + bytes(512))
    with pytest.raises(UserError, match=r"music-1.tar has [\d,]+ bytes, .*.json sa"):
        prepare(out, tmp_path)
    assert main(given) == 2
    assert "is the index of other tars" in capsys.readouterr().err


def test_webdataset_tars_of_a_store(tmp_path):
    files = write_tars(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "tars"), "/wds", recursive=True)
    from_webdataset("memory://wds", tmp_path / "index", progress=False)
    manifests = prepare(tmp_path / "index", tmp_path)
    for entry in manifests.train.values():
        assert entry["wav"].startswith("memory:///wds/music-")
        assert torch.equal(read_audio(entry["wav"]), read_audio(files[entry["path"]]))
    from_webdataset("memory://wds", tmp_path / "index", progress=False)
    memory.pipe("/wds/music-1.tar", memory.cat("/wds/music-1.tar"))
    with pytest.raises(UserError, match="music-1.tar has changed"):
        from_webdataset("memory://wds", tmp_path / "index", progress=False)


def test_samples_whose_names_are_alike(tmp_path):
    """Each has an id and the labels of its own name."""
    sound = write_noise(tmp_path / "a.flac", 1.5).read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("rock/a0", "rock__a0", "track.v2"):
            add(tar, f"{name}.flac", sound)
            add(tar, f"{name}.json", json.dumps({"name": name}).encode())
        add(tar, "track.lyrics.txt", b"Not what it sounds like.")
    from_webdataset(tmp_path / "a.tar", tmp_path / "index", progress=False)
    parts = prepare(tmp_path / "index", tmp_path).parts.values()
    entries = [entry for part in parts for entry in part.values()]
    assert {e["name"] for e in entries} == {"rock/a0", "rock__a0", "track.v2"}
    assert not any("caption" in entry for entry in entries)


def test_an_index_with_an_id_twice_is_refused(tmp_path, monkeypatch):
    write_tars(tmp_path)
    monkeypatch.setattr(others, "clip_ids", lambda paths: ["one"] * len(paths))
    from_webdataset(tmp_path / "tars", tmp_path / "index", progress=False)
    with pytest.raises(UserError, match="music-0.tar/.* have the id one: .*another"):
        prepare(tmp_path / "index", tmp_path)


def test_what_could_not_be_heard_for_now_is_tried_again(tmp_path, monkeypatch):
    write_tars(tmp_path)
    given = tmp_path / "tars", tmp_path / "index"
    with monkeypatch.context() as patch:
        failing = AudioCheck(reason="unreadable", detail="System error.")
        check = others.check_audio
        patch.setattr(
            others,
            "check_audio",
            lambda path: failing if "000003" in path else check(path),
        )
        content, left_out = from_webdataset(*given, progress=False)
        assert content["clips"] == 8 and len(left_out) == 2
    content, left_out = from_webdataset(*given, progress=False)
    assert content["clips"] == 10 and not left_out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--index-only", "--hours", "10"], "--index-only takes no --hours"),
        (["--index-only", "--encoding", "flac"], "--index-only takes no --encoding"),
        (["--index-only", "--data-root", "."], "--index-only takes no --data-root"),
        (["--index-only", "a.json"], "--index-only takes one MUSIC, not 2"),
        (["--check", "--out", "o"], "--check takes no --out"),
        (["--check", "--index-only"], "--check takes no --index-only"),
        (["--check", "--workers", "2"], "--check takes no --workers"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, capsys, given, words):
    out = [] if "--check" in given else ["--out", str(tmp_path / "index")]
    assert main(["shard", "train.json", *given, *out]) == 2
    assert words in capsys.readouterr().err


def test_tars_that_are_none(tmp_path):
    write_tars(tmp_path)
    tars = tmp_path / "tars"

    def refused(words, source=tars):
        with pytest.raises(UserError, match=words):
            from_webdataset(source, tmp_path / "out", progress=False)

    refused("There is no tar in", tmp_path / "files")
    refused("There is no tar in", tmp_path / "x.tar")
    (tars / "more").mkdir()
    shutil.copy(tars / "music-0.tar", tars / "more")
    refused("two tars of the name music-0.tar: rename one")
    shutil.rmtree(tars / "more")
    whole = (tars / "music-0.tar").read_bytes()
    (tars / "music-0.tar").write_bytes(gzip.compress(whole))
    refused("music-0.tar is no complete uncompressed tar")
    (tars / "music-0.tar").write_bytes(whole[: len(whole) // 2])
    refused("music-0.tar is no complete uncompressed tar")
    for name, words in (("x.json", "damaged"), ("x.flac", "two recordings of")):
        with tarfile.open(tars / "music-0.tar", "w") as tar:
            add(tar, name, b"{")
            add(tar, "x.wav", b"RIFF")
        refused(words)
    with tarfile.open(tmp_path / "texts.tar", "w") as tar:
        add(tar, "x.txt", b"no music")
    with pytest.raises(UserError, match="none of 0 recordings can be used"):
        from_webdataset(tmp_path / "texts.tar", tmp_path / "texts", progress=False)
    with tarfile.open(tars / "music-0.tar", "w") as tar:
        add(tar, "x.wav", b"RIFF")
    content, left_out = from_webdataset(tars, tmp_path / "out", progress=False)
    assert content["clips"] == 5 and [clip["reason"] for clip in left_out] == [
        "undecodable"
    ]


def cut(path, start=0.0, seconds=4.0, **other):
    recording = {
        "id": path.stem,
        "sources": [{"type": "file", "channels": [0], "source": path.name}],
        "sampling_rate": 24000,
        "num_samples": 96000,
        "duration": 4.0,
    }
    return {
        "id": f"{path.stem}-{start:g}",
        "start": start,
        "duration": seconds,
        "channel": 0,
        "supervisions": [{"id": "s", "text": "A song."}],
        "recording": recording,
        "custom": {"genre": "jazz"},
        "type": "MonoCut",
        **other,
    }


def write_cuts(path, cuts):
    path.write_bytes(
        gzip.compress("".join(json.dumps(c) + "\n" for c in cuts).encode())
    )
    return str(path)


def test_cuts_of_lhotse_become_shards(tmp_path):
    files = [write_noise(tmp_path / f"{n}.wav", 4.0, seed=n) for n in range(6)]
    cuts = [cut(path) for path in files[:3]]
    cuts += [cut(path, s, 1.3) for path in files[3:] for s in (0.25, 2.0)]
    given = write_cuts(tmp_path / "cuts.jsonl.gz", cuts)
    assert main(["shard", given, "--out", str(tmp_path / "shards")]) == 0
    manifests = prepare(tmp_path / "shards", tmp_path)
    entries = {n: e for part in manifests.parts.values() for n, e in part.items()}
    assert set(entries) == {c["id"] for c in cuts}
    for one in cuts:
        entry = entries[one["id"]]
        assert (entry["genre"], entry["caption"]) == ("jazz", "A song.")
        wav = read_audio(tmp_path / entry["path"], one["start"], one["duration"])
        assert torch.equal(read_audio(entry["wav"]), wav)
    # What comes from one recording is in one part.
    where = {
        (e["path"], part) for part, es in manifests.parts.items() for e in es.values()
    }
    assert len(where) == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "MixedCut"}, "1-0 is a MixedCut, which is mixed or padded"),
        ({"channel": [0, 1]}, r"1-0 hears channels \[0, 1\] of \[0\]"),
        ({"duration": None}, "line 1 is not a cut of Lhotse .TypeError"),
        ({"recording": {}}, "line 1 is not a cut of Lhotse .KeyError: 'sources'"),
        (
            {"recording": {"sources": [{"type": "command"}]}},
            "1-0 is not one file",
        ),
    ],
)
def test_cuts_that_cannot_be_heard_as_they_are(tmp_path, change, words):
    given = write_cuts(tmp_path / "cuts.jsonl.gz", [cut(tmp_path / "1.wav", **change)])
    with pytest.raises(UserError, match=words):
        jobs_of_cuts(given, tmp_path)


def test_files_that_hold_no_cuts(tmp_path):
    cuts = [cut(tmp_path / "1.wav")] * 2
    for name, content, words in (
        ("a.jsonl", None, "There is no file of cuts"),
        ("a.jsonl", "", "holds no cuts"),
        ("a.jsonl.gz", "no gzip", "cannot be read"),
        ("a.jsonl", "{", "line 1 is not a cut of Lhotse .JSONDecodeError"),
        (
            "a.jsonl",
            "\n".join(map(json.dumps, cuts)),
            "line 2: there is a cut 1-0",
        ),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=words):
            jobs_of_cuts(tmp_path / name, tmp_path)
