"""Open corpora from a server with archives in the layout of their authors."""

import csv
import errno
import http.server
import io
import json
import tarfile
import threading
import zipfile
from unittest import mock

import pytest

from muq_plugins.data import downloads, open_corpora
from muq_plugins.data.downloads import checksum
from muq_plugins.data.manifest import load_manifest
from muq_plugins.data.open_corpora import licence_of
from muq_plugins.inference.cli.main import main
from tests.unit.data.recordings import write_noise

BY = "http://creativecommons.org/licenses/by/3.0/"
NC = "http://creativecommons.org/licenses/by-nc-sa/3.0/"


class Server(http.server.SimpleHTTPRequestHandler):
    """Closes the connection after so many bytes, as often as it is told to."""

    protocol_version = "HTTP/1.1"
    breaks = 0
    most = 3000
    asked: list = []

    def do_GET(self):
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        type(self).asked.append((self.path, begin))
        try:
            content = open(self.translate_path(self.path), "rb").read()
        except OSError:
            self.send_error(404)
            return
        if begin >= len(content) and begin:
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.breaks and len(content) - begin > self.most:
            type(self).breaks -= 1
            self.wfile.write(content[begin : begin + self.most])
            self.close_connection = True
            return
        self.wfile.write(content[begin:])

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An address, and the server's manners; files are in the folder "web"."""
    monkeypatch.setattr(downloads, "PAUSE", 0.001)

    class Here(Server):
        asked = []

        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "web"))

    (tmp_path / "web").mkdir()
    here = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=here.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{here.server_port}", Here
    here.shutdown()
    here.server_close()


def write_fma(web, folder, monkeypatch):
    """fma_small with twelve tracks of six artists, one of them known to be broken."""
    head = [
        [
            "",
            "album",
            "artist",
            "artist",
            "set",
            "set",
            "track",
            "track",
            "track",
            "track",
        ],
        ["", "title", "id", "name", "split", "subset", "genre_top", "genres", "license"]
        + ["title"],
        ["track_id"] + [""] * 9,
    ]
    rows = []
    for number in range(12):
        track = [2, 5, 10, 140, 1486, 2001, 2002, 3000, 3001, 134000, 134001, 155000][
            number
        ]
        words = [
            "Attribution",
            "Attribution-Noncommercial-Share Alike 3.0 United States",
        ]
        artist = number // 2
        rows.append(
            [track, "An album", artist, f'The "{artist}"', "training", "small", "Rock"]
            + ["[21, 12]", words[number % 3 > 0], "A {song}, or two"]
        )
    rows.append(
        [9, "A", 77, "B", "training", "large", "", "[]", "Attribution", "Other"]
    )
    quoted = io.StringIO()

    csv.writer(quoted).writerows(head + rows)
    genres = (
        "genre_id,#tracks,parent,title,top_level\n12,9,0,Rock,12\n21,4,0,Hip-Hop,21\n"
    )
    with zipfile.ZipFile(web / "fma_metadata.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("fma_metadata/tracks.csv", quoted.getvalue())
        archive.writestr("fma_metadata/genres.csv", genres)
    with zipfile.ZipFile(web / "fma_small.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("fma_small/README.txt", "")
        archive.writestr("fma_small/checksums", "")
        for row in rows[:-1]:
            name = f"{row[0]:06d}"
            path = write_noise(folder / f"{name}.mp3", 1.5, 44100, seed=row[0])
            archive.write(path, f"fma_small/{name[:3]}/{name}.mp3")
    sums = {path.name: checksum(path, "sha1") for path in web.glob("*.zip")}
    monkeypatch.setattr(open_corpora, "FMA_SHA1", sums)


def write_jamendo(web, folder, monkeypatch):
    """Two archives of eight tracks each."""
    table, meta, licences = [], [], []
    table.append("TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS")
    meta.append(
        "TRACK_ID\tARTIST_ID\tALBUM_ID\tTRACK_NAME\tARTIST_NAME\tALBUM_NAME\tURL"
    )
    sums = []
    (web / "audio-low").mkdir()
    for number in (0, 1):
        name = f"raw_30s_audio-low-{number:02d}.tar"
        with tarfile.open(web / "audio-low" / name, "w") as tar:
            info = tarfile.TarInfo(f"{number:02d}")
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
            for track in range(8):
                track = 100 * track + number
                place = f"{number:02d}/{track}"
                path = write_noise(folder / f"{track}.mp3", 1.5, 44100, seed=track)
                tar.add(path, f"{place}.low.mp3")
                start = (
                    f"track_{track:07d}\tartist_{track // 100 % 5:06d}\talbum_000001"
                )
                tags = "genre---rock\tgenre---pop\tmood/theme---happy"
                table.append(f"{start}\t{place}.mp3\t1.5\t{tags}")
                meta.append(f'{start}\tA "song\tSomebody\tAn album\thttp://x')
                licences += [
                    f"{place}.mp3",
                    f"A by Somebody from Jamendo: http://www.jamendo.com/track/{track}",
                    f"Available under a Creative Commons Attribution license: "
                    f"{BY if track % 200 < 2 else NC}",
                    "",
                ]
        sums.append(f"{checksum(web / 'audio-low' / name, 'sha256')} {name}")
    texts = {
        "data/raw_30s.tsv": table,
        "data/raw.meta.tsv": meta,
        "audio_licenses.txt": licences,
        "data/download/raw_30s_audio-low_sha256_tars.txt": sums,
    }
    for name, lines in texts.items():
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_text("\n".join(lines) + "\n")
    blobs = {name: checksum(web / name, "blob") for name in texts}
    monkeypatch.setattr(open_corpora, "JAMENDO_BLOBS", blobs)


def read(out):
    return {
        p: json.loads((out / f"{p}.json").read_text())
        for p in ("train", "valid", "test")
    }


def divided_by_artist(parts):
    artists = [{e["artist_id"] for e in entries.values()} for entries in parts.values()]
    assert all(artists) and sum(map(len, artists)) == len(set.union(*artists))


def test_fma_with_what_is_known_about_it(server, tmp_path, monkeypatch, capsys):
    address, _ = server
    write_fma(tmp_path / "web", tmp_path / "files", monkeypatch)
    out = tmp_path / "data"
    given = ["data", "fma-small", "--out", str(out), "--mirror", address]
    assert main(given) == 0
    words = capsys.readouterr().err
    assert "Cannot be used: 1, listed" in words and "With other licences: 0." in words
    assert not (out / "fma_small.zip").exists()
    left_out = json.loads((out / "left_out.json").read_text())
    assert [clip["path"] for clip in left_out] == ["fma_small/001/001486.mp3"]
    parts = read(out)
    divided_by_artist(parts)
    entries = {k: v for part in parts.values() for k, v in part.items()}
    assert len(entries) == 11 and "fma_small__000__000009" not in entries
    assert not (out / "fma_small/001/001486.mp3").exists()
    manifest = {}
    for part in parts:
        manifest |= load_manifest(out / f"{part}.json", out)
    one = manifest["fma_small__000__000002"]
    assert one["wav"] == str(out / "fma_small/000/000002.mp3")
    assert (one["title"], one["artist"], one["album"]) == (
        *("A {song}, or two", 'The "0"', "An album"),
    )
    assert (one["genre"], one["genres"]) == ("Rock", ["Hip-Hop", "Rock"])
    assert (one["licence"], one["licence_text"]) == ("by", "Attribution")


def test_only_open_licences_of_jamendo(server, tmp_path, monkeypatch, capsys):
    address, here = server
    write_jamendo(tmp_path / "web", tmp_path / "files", monkeypatch)
    out = tmp_path / "data"
    given = ["data", "mtg-jamendo-low", "--out", str(out), "--mirror", address]
    assert main([*given, "--licence", "open"]) == 0
    assert "With other licences: 8." in capsys.readouterr().err
    parts = read(out)
    divided_by_artist(parts)
    entries = [entry for part in parts.values() for entry in part.values()]
    assert {entry["licence"] for entry in entries} == {"by"} and len(entries) == 8
    assert len(list(out.rglob("*.mp3"))) == 8, "what is not asked for is not unpacked"
    assert entries[0]["title"] == 'A "song'
    assert entries[0]["tags"] == ["rock", "pop", "happy"]
    # Nothing is downloaded again, but for what was not unpacked.
    here.asked.clear()
    assert main([*given, "--licence", "by"]) == 0 and not here.asked
    assert main(given) == 0
    assert [path for path, _ in here.asked] == [
        f"/audio-low/raw_30s_audio-low-0{number}.tar" for number in (0, 1)
    ]
    assert sum(map(len, read(out).values())) == 16
    shards = ["shard", *(str(out / f"{part}.json") for part in parts)]
    assert main([*shards, "--out", str(tmp_path / "shards")]) == 0


def test_a_download_goes_on_where_it_broke(server, tmp_path, monkeypatch, capsys):
    address, here = server
    write_fma(tmp_path / "web", tmp_path / "files", monkeypatch)
    out = tmp_path / "data"
    given = ["data", "fma-small", "--out", str(out), "--mirror", address]
    here.breaks = 4
    assert main(given) == 0
    begins = [begin for path, begin in here.asked if path == "/fma_small.zip"]
    assert begins[:4] == [0, 3000, 6000, 9000]
    # A line that never gives anything ends, and the next run has what has arrived.
    out, given[3] = tmp_path / "other", str(tmp_path / "other")
    here.breaks, here.most = 1, 3000
    monkeypatch.setattr(downloads, "TRIES", 1)
    assert main(given) == 2
    words = capsys.readouterr().err
    assert "broke off after 3,000 bytes" in words and "goes on from there" in words
    here.asked.clear()
    assert main(given) == 0
    assert here.asked[0][1] in (0, 3000) and (("/fma_small.zip", 3000) in here.asked)


def test_what_was_not_published_is_refused(server, tmp_path, monkeypatch, capsys):
    address, _ = server
    web = tmp_path / "web"
    given = ["data", "fma-small", "--out", str(tmp_path / "data"), "--mirror", address]

    def refused(words, given=given):
        assert main(given) == 2
        assert words in capsys.readouterr().err

    refused("fma_metadata.zip is not served (404")
    write_fma(web, tmp_path / "files", monkeypatch)
    whole = (web / "fma_small.zip").read_bytes()
    (web / "fma_small.zip").write_bytes(whole[:-1] + b"X")
    refused("fma_small.zip is not what its authors published: sha1 ")
    assert not list((tmp_path / "data").rglob("fma_small.zip*"))
    (web / "fma_small.zip").write_bytes(whole)
    refused("no recordings with the licences cc0; it", [*given, "--licence", "cc0"])
    refused("has fma-small: give another folder", ["data", "fma-large", *given[2:]])
    (tmp_path / "data" / "fma_small.zip").write_bytes(b"of somebody else")
    refused("fma_small.zip is not what its authors published: sha1 ")
    (tmp_path / "data" / "fma_small.zip").unlink()
    with zipfile.ZipFile(web / "fma_small.zip", "w") as archive:
        archive.writestr("other/000002.mp3", "")
    sums = {path.name: checksum(path, "sha1") for path in web.glob("*.zip")}
    monkeypatch.setattr(open_corpora, "FMA_SHA1", sums)
    refused("laid out in another way than we know. It was kept")
    assert (tmp_path / "data" / "fma_small.zip").exists()
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(downloads, "_continue", mock.Mock(side_effect=full))
    refused("No space left on device: make room", [*given[:3], str(tmp_path / "full")])
    refused("--licence gpl: give one of cc0, pd, by", [*given, "--licence", "gpl"])
    refused("no corpus fma-smal. There are fma-small, fma-medium", ["data", "fma-smal"])
    refused("Give --out", ["data", "fma-small"])
    assert main(["data"]) == 0
    assert "fma-large" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Attribution", "by"),
        ("Attribution 4.0 International", "by"),
        ("CC0 1.0 Universal", "cc0"),
        ("Public Domain Mark 1.0", "pd"),
        ("Attribution-ShareAlike", "by-sa"),
        ("Attribution-NoDerivatives 4.0 International", "by-nd"),
        ("Attribution-Noncommercial 3.0 United States", "by-nc"),
        ("Attribution-Noncommercial-Share Alike 3.0 United States", "by-nc-sa"),
        ("Attribution-Noncommercial-No Derivative Works 3.0 Germany", "by-nc-nd"),
        ("Attribution-NonCommercial-NoDerivatives (aka Music Sharing) 3.0", "by-nc-nd"),
        ("Noncommercial Sampling Plus", "other"),
        ("FMA-Limited: Download Only", "other"),
        ("", "other"),
        (BY, "by"),
        (NC, "by-nc-sa"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "other"),
    ],
)
def test_licences_are_told_apart(words, code):
    assert licence_of(words) == code
