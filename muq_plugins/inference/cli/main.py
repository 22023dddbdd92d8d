"""The console command ``muq-plugins``: its sub-commands, and how each of them ends."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from muq_plugins import __version__
from muq_plugins.errors import UserError, refusal
from muq_plugins.inference.cli import (
    compare,
    data,
    doctor,
    encoder,
    index,
    recipes,
    release,
    runs,
    scan,
    shard,
    tag,
    tokenizer,
)
from muq_plugins.inference.cli.options import say

NAME = "muq-plugins"
COMMANDS = {
    "scan": scan.scan,
    "embed": encoder.embed,
    "tokenize": tokenizer.tokenize,
    "detokenize": tokenizer.detokenize,
    "tag": tag.tag,
    "index": index.index,
    "search": index.search,
    "serve": index.serve,
    "inspect-tokenizer": tokenizer.inspect,
    "data": data.data,
    "shard": shard.shard,
    "export": encoder.export,
    "release": release.release,
    "compare": compare.compare,
    "runs": runs.runs,
    "doctor": doctor.doctor,
}
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
PIPE_CLOSED = 141  # 128 and SIGPIPE, which Windows does not have

# Without rich: it would double the time that --help takes.
app = typer.Typer(
    help="Music representations from the command line.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; None takes it from the command line.

    Gives 0 for success, 1 if a part of the work failed, 2 for a mistake, 130 for
    Ctrl-C, 143 for SIGTERM.
    """
    if argv is None:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        app(sys.argv[1:] if argv is None else argv, prog_name=NAME)
    except SystemExit as end:
        return end.code or 0
    return 0


def _terminate(*received: object) -> None:
    """As an exception, so that what is half done is cleared away."""
    say("Ended: the same command does what is left.")
    sys.exit(TERMINATED)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(NAME, __version__)
        raise typer.Exit()


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    pass


def _ending(name: str, command: Callable[..., int | None]) -> Callable[..., None]:
    """A command that ends with one line and a code, unless it has a bug."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            code = command(*args, **options)
            sys.stdout.flush()
        except KeyboardInterrupt:
            say("Interrupted: the same command does what is left.")
            code = INTERRUPTED
        except BrokenPipeError:
            # Whoever reads has enough. What is left must not fail at the end again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = PIPE_CLOSED
        except Exception as error:
            words = str(error) if isinstance(error, UserError) else refusal(error)
            if words is None:
                raise
            say(f"{NAME} {name}: {words}")
            code = 2
        raise typer.Exit(code or 0)

    return run


def _recipe(name: str) -> Callable[..., None]:
    def run(rest: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        recipes.run_script(name, rest or [])

    return run


for _name, _command in COMMANDS.items():
    app.command(_name)(_ending(_name, _command))
# The scripts read what follows, --help too, and end themselves.
for _name, _script in recipes.SCRIPTS.items():
    app.command(
        _name,
        help=_script.help,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )(_recipe(_name))
_recipes = typer.Typer(rich_markup_mode=None)
_recipes.callback(invoke_without_command=True)(recipes.listed)
_recipes.command("copy")(_ending("recipes copy", recipes.copy))
app.add_typer(_recipes, name="recipes")


if __name__ == "__main__":
    sys.exit(main())
