"""The console command ``muq-plugins`` and its sub-commands."""

from __future__ import annotations

import argparse
import re
import sys

from muq_plugins.inference.commands import (
    doctor,
    embed,
    export,
    index,
    inspect_tokenizer,
    search,
    serve,
    similar,
    tag,
    tokenize,
)
from muq_plugins.inference.commands.options import CommandError

COMMANDS = {
    "embed": (embed, "hidden states of audio files"),
    "tokenize": (tokenize, "codes of audio files"),
    "similar": (similar, "which of the embedded files are closest to one"),
    "tag": (tag, "which tags of a list describe audio files"),
    "index": (index, "an index of music, for search and serve"),
    "search": (search, "indexed files that a text or an example describes"),
    "serve": (serve, "a web page to search an index and to listen"),
    "inspect-tokenizer": (inspect_tokenizer, "how a tokenizer does on any audio"),
    "export": (export, "a model for other runtimes"),
    "doctor": (doctor, "what is installed, and whether it works"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        return arguments.run(arguments)
    except CommandError as error:
        print(f"muq-plugins {arguments.command}: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on.", file=sys.stderr)
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads a command without carrying it out."""
    return _parser().parse_args(_join_layers(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "muq-plugins", description="Music representations from the command line."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=module.DESCRIPTION
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _join_layers(argv: list[str]) -> list[str]:
    """Lets --layer -2,-1 be a value, which argparse would take for an option."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] == "--layer" and re.match(r"-\d", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


if __name__ == "__main__":
    sys.exit(main())
