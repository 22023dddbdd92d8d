"""``muq-plugins serve``: a page to search an index and to listen to what is found."""

from __future__ import annotations

import socket
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from muq_plugins.inference.commands.mulan import (
    add_index_arguments,
    load_model_of,
    open_index,
    parse_count,
)
from muq_plugins.inference.commands.options import (
    CommandError,
    add_device_argument,
    check_installation,
)

DESCRIPTION = """\
Serves a web page to search an index, by a text or by one of its files, and to listen to
what is found. Only indexed files are given out. The page needs no network; by default
only this machine can open it."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    add_index_arguments(parser)
    parser.add_argument(
        "--top",
        metavar="N",
        type=parse_count,
        default=10,
        help="results on a page (default: 10)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines listen to the music "
        "too (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=parse_port,
        default=8000,
        help="port to listen on; 0 for any that is free (default: %(default)s)",
    )
    add_device_argument(parser)


def run(arguments: Namespace) -> int:
    """Serves the page until Ctrl-C."""
    check_installation()
    try:
        import uvicorn

        from muq_plugins.inference.web.page import make_app
    except ImportError as error:
        raise CommandError(
            f"The page needs FastAPI and uvicorn ({error}): run `pip install "
            f"'muq-plugins[web]'` (or `pip install fastapi uvicorn`)."
        ) from error
    listening = listen(arguments.host, arguments.port)
    with listening:
        index = open_index(arguments.index, arguments.exact)
        model = load_model_of(index, arguments.model, arguments.device)
        app = make_app(index, model, top=arguments.top, host=arguments.host)
        port = listening.getsockname()[1]
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(
            f"Serving {len(index)} files of {arguments.index} on http://{host}:{port} "
            f"- Ctrl-C ends it.",
            flush=True,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            http="h11",
            # Queries are part of the address, and may be long.
            h11_max_incomplete_event_size=1 << 20,
            # A browser that is playing does not keep Ctrl-C from ending it.
            timeout_graceful_shutdown=1,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # which is how it ends
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Takes a port, before anything slow is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}): choose "
            f"another --port or --host."
        ) from error


def parse_port(text: str) -> int:
    """Reads --port."""
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise ArgumentTypeError(f"must be a port, 0 to 65535, got {text!r}")
    return int(text)
