"""The command that serves the page: how it starts, and what it needs."""

import socket
import sys

import pytest
import uvicorn

from muq_plugins.inference.cli.main import main
from tests.unit.inference.tones import make_model, use_tones, write_tone


@pytest.fixture
def index(tmp_path, monkeypatch):
    use_tones(monkeypatch)
    write_tone(tmp_path / "music" / "a.wav", 220)
    model, index = make_model(tmp_path / "model"), str(tmp_path / "index")
    music = str(tmp_path / "music")
    assert main(["index", music, "--model", model, "--out", index]) == 0
    return index


@pytest.fixture
def served(monkeypatch):
    """What uvicorn, which would not end, is asked to serve."""
    calls = []

    def run(server, sockets):
        calls.append((server.config, sockets[0].getsockname()))
        raise KeyboardInterrupt  # Ctrl-C

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return calls


def test_it_serves_until_ctrl_c(index, served, capsys):
    assert main(["serve", "--index", index, "--port", "0"]) == 0
    [(config, (host, port))] = served
    assert host == "127.0.0.1" and config.h11_max_incomplete_event_size > 10_000 * 12
    assert f"Serving 1 files of {index} on http://127.0.0.1:{port} " in (
        capsys.readouterr().out
    )


def test_a_port_in_use(index, served, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", "--index", index, "--port", port]) == 2
    assert f"port {port} (Address already in use" in capsys.readouterr().err
    assert served == []


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_without_the_packages(index, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "muq_plugins.inference.web", raising=False)
    assert main(["serve", "--index", index]) == 2
    assert "pip install 'muq-plugins[web]'" in capsys.readouterr().err


def test_mistakes_are_explained(index, tmp_path, capsys):
    other = make_model(tmp_path / "other", "0ff0")
    options = ["--port", "0", "--model", other]
    assert main(["serve", "--index", index, *options]) == 2
    assert "70e5 there, 0ff0 here" in capsys.readouterr().err
    assert main(["serve", "--index", str(tmp_path / "x"), "--port", "0"]) == 2
    assert "is not an index of music" in capsys.readouterr().err
    for port in ("65536", "http"):
        assert main(["serve", "--index", index, "--port", port]) == 2
        assert "Invalid value for '--port'" in capsys.readouterr().err
