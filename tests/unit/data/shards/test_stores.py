"""Shards in a store: what they teach, and what is told when the store fails."""

import http.server
import re
import threading
import time

import fsspec
import pytest
import torch

from muq_plugins.data import sources
from muq_plugins.data.audio import check_audio, read_audio
from muq_plugins.data.clips import training_loader
from muq_plugins.data.preparation import check_data, prepare_manifests
from muq_plugins.data.shards.write import jobs_of_folder, write_shards
from muq_plugins.data.sources import Place
from muq_plugins.errors import UserError
from tests.unit.data.recordings import write_noise


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A folder of shards with four clips."""
    folder = tmp_path_factory.mktemp("store")
    for number in range(4):
        write_noise(folder / "music" / f"{number}.wav", 2 + number / 2, seed=number)
    jobs = jobs_of_folder(folder / "music", folder / "scan", 2)
    write_shards(jobs, folder / "shards", hours=0.001, progress=False)
    return folder / "shards"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sources, "PAUSE", 0.001)


def prepare(folder, tmp_path):
    return prepare_manifests(folder, tmp_path / "corpus", 1.0, 1)


class Store(http.server.SimpleHTTPRequestHandler):
    """A server that knows ranges, and fails as it is told to."""

    protocol_version = "HTTP/1.1"
    failures = 0  # answers that are 503 from now on
    ranges = True
    lengths = True
    delay = 0.0
    asked: list = []

    def do_HEAD(self):
        super().do_HEAD() if self.lengths else self.send_error(405)

    def do_GET(self):
        type(self).asked.append(self.path)
        time.sleep(self.delay)
        if self.failures:
            type(self).failures -= 1
            self.send_error(503)
            return
        try:
            content = open(self.translate_path(self.path), "rb").read()
        except OSError:
            self.send_error(404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status = 200
        if wanted and self.ranges:
            content, status = content[int(wanted[1]) : int(wanted[2]) + 1], 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        if self.lengths:
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@pytest.fixture
def store(shards):
    """The address of the shards on a server, and the server's manners."""

    class Here(Store):
        asked = []

        def __init__(self, *args):
            super().__init__(*args, directory=str(shards))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Here
    server.shutdown()
    server.server_close()


def test_a_store_teaches_what_its_files_teach(shards, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/bucket/shards", recursive=True)
    check_data({"data_folder": "memory://bucket/shards"})
    here = prepare(shards, tmp_path)
    for address in ("memory://bucket/shards", "memory://bucket/shards/"):
        there = prepare(address, tmp_path)
        assert there.facts() == here.facts() and there.source == "the folder shards"
        entry = next(iter(there.train.values()))
        assert entry["wav"].startswith("memory://bucket/shards/audio/recording.0")
        loaders = [training_loader(m.train, 0.5, 3, seed=1) for m in (here, there)]
        for _, one, other in zip(range(4), *loaders, strict=False):
            assert one.crops == other.crops and torch.equal(one.wavs, other.wavs)


def test_ranges_over_http_read_what_is_asked_for(store, shards, tmp_path, monkeypatch):
    address, server = store
    there, here = prepare(address, tmp_path), prepare(shards, tmp_path)
    monkeypatch.setattr(sources, "BLOCK", 10_000)  # a member has about 100,000
    for name, entry in there.train.items():
        server.asked.clear()
        one = read_audio(entry["wav"], 1.5, 0.1)
        assert torch.equal(one, read_audio(here.train[name]["wav"], 1.5, 0.1))
        assert 2 <= len(server.asked) <= 8


def test_a_store_that_fails_now_and_then_is_asked_again(store, tmp_path):
    address, server = store
    server.failures = 3
    wav = next(iter(prepare(address, tmp_path).train.values()))["wav"]
    server.failures = sources.TRIES - 1
    assert len(read_audio(wav, 0.0, 0.5)) == 12000
    server.failures = 1000
    with pytest.raises(UserError) as caught:
        read_audio(wav)
    words = str(caught.value)
    assert f"{address}/audio/recording.0" in words and "503" in words
    assert f"tried {sources.TRIES} times" in words and "same command again" in words


def test_a_store_that_stops_inside_a_clip(store, tmp_path, monkeypatch, capfd):
    """libsndfile would take it for the end of the file."""
    address, server = store
    wav = next(iter(prepare(address, tmp_path).train.values()))["wav"]
    monkeypatch.setattr(sources, "BLOCK", 10_000)
    for good in range(1, 4):

        def failing(url, begin, end, good=good, read=sources.read_object):
            server.failures = 1000 * (begin >= Place.of(wav).begin + 10_000 * good)
            return read(url, begin, end)

        with monkeypatch.context() as patch:
            patch.setattr(sources, "read_object", failing)
            for read in (read_audio, check_audio):
                with pytest.raises(UserError, match=r"recording.*cannot be read"):
                    read(wav)
        server.failures = 0
    assert "Traceback" not in capfd.readouterr().err


def test_training_stops_where_a_store_stops(store, tmp_path):
    """A file that cannot be decoded gives way to another; this one is not skipped."""
    address, server = store
    batches = iter(training_loader(prepare(address, tmp_path).train, 0.5, 2, seed=1))
    assert len(next(batches)) == 2
    server.failures = 1000
    with pytest.raises(UserError, match="recording.*cannot be read"):
        next(batches)


def test_what_a_store_cannot_do_is_told(store, shards, tmp_path, monkeypatch):
    address, server = store
    wav = next(iter(prepare(address, tmp_path).train.values()))["wav"]

    def refused(words, path=wav):
        with pytest.raises(UserError, match=words):
            read_audio(path)

    server.ranges = False
    refused(
        "gave .* bytes: it is shorter than that, or the server does not know ranges"
    )
    server.ranges, server.delay = True, 0.5
    monkeypatch.setattr(sources, "TIMEOUT", 0.05)
    monkeypatch.setattr(sources, "TRIES", 2)
    refused(r"recording.*cannot be read \(FSTimeoutError; tried 2 times\)")
    server.delay = 0.0
    server.lengths = False
    with pytest.raises(UserError, match="0.tar: .*does not say how many bytes it has"):
        sources.object_size(f"{address}/audio/recording.000000.tar")
    server.lengths = True
    refused("x.tar does not exist: check", wav.replace("recording.000000", "x"))
    with pytest.raises(
        UserError, match="shards.json does not exist: check the address"
    ):
        prepare(f"{address}/audio", tmp_path)
    with pytest.raises(
        UserError, match="nothing://x/shards.json cannot be read: Proto"
    ):
        prepare("nothing://x", tmp_path)
    with pytest.raises(UserError, match="oss://b/shards.json cannot be read: .*ossfs"):
        prepare("oss://b", tmp_path)
    with pytest.raises(UserError, match="written to a disk of this machine"):
        write_shards([], "memory://x")
