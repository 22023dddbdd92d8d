"""The command line of a training script.

The options are split here, by exact name, because SpeechBrain's own parser accepts
abbreviations (``--test 3`` skips the training) and loses "=" inside values.
"""

import contextlib
import dataclasses
import io
import re
from typing import Any

import speechbrain as sb
from speechbrain.utils.run_opts import RunOptions

from muq_plugins.errors import UserError
from muq_plugins.experiment.extends import (
    COMMAND_LINE_OPTIONS,
    FLAG_OPTIONS,
    LIST_OPTIONS,
    TRAINING_SETTINGS,
    parse_yaml,
    refuse_useless,
    tag_of,
)

# Options whose values are paths or names, whatever YAML would make of "2024", "on" or
# "Artist: Album".
NAMES = re.compile(r"(.*_)?(folder|file|csv)|teacher|source|model|encoder")


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """What the command line of a training script says."""

    path: str  # the experiment file
    run_opts: RunOptions  # speechBrain's run options
    # new values of keys of the experiment file, by dotted key. Run options that are
    # training settings (``TRAINING_SETTINGS``) are here too, so that the file saved
    # with the results says what was run
    overrides: dict[str, Any]


def parse_arguments(argv: list[str]) -> CommandLine:
    """Split the command line into experiment file, run options and overrides."""
    path, options = _split(argv)
    run_options = {k: v for k, v in options.items() if k in COMMAND_LINE_OPTIONS}
    run_opts = _parse_run_options(path, run_options)
    overrides = {
        name: _parse_value(name, text)
        for name, text in options.items()
        if name not in COMMAND_LINE_OPTIONS
    }
    for name in run_options:
        if name in TRAINING_SETTINGS:
            overrides[name] = run_opts[name]
    # SpeechBrain takes one of the two: that which is given, not that of the file.
    times = {"ckpt_interval_minutes", "ckpt_interval_steps"}
    given = times & overrides.keys()
    if len(given) == 1 and overrides[next(iter(given))] > 0:
        overrides |= dict.fromkeys(times - given, 0)
    return CommandLine(path, run_opts, overrides)


def _split(argv: list[str]) -> tuple[str, dict[str, Any]]:
    paths: list[str] = []
    options: dict[str, Any] = {}
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        if not token.startswith("--"):
            paths.append(token)
            continue
        name, equals, text = token[2:].partition("=")
        if not name:
            raise UserError(f"Cannot read {token!r}; options are --key value.")
        if name in options:
            raise UserError(f"--{name} is given twice; keep one of them.")
        refuse_useless(name, f"--{name}")
        if name in FLAG_OPTIONS:
            if equals:
                raise UserError(
                    f"--{name} is a switch and takes no value: write --{name} alone "
                    "to switch it on, leave it out otherwise."
                )
            options[name] = True
        elif name in LIST_OPTIONS:
            options[name] = [text] if equals else []
            while tokens and not tokens[0].startswith("--"):
                options[name].append(tokens.pop(0))
        elif equals and text:
            options[name] = text
        elif not equals and tokens and not tokens[0].startswith("--"):
            options[name] = tokens.pop(0)
        else:
            raise UserError(
                f"--{name} has no value; write --{name} VALUE (such as True), or "
                f"--{name}=VALUE if the value begins with '--', or --{name}=null for "
                f"none."
            )
    if not paths:
        raise UserError(
            "The experiment file is missing; give it first, such as muq.yaml. "
            "`muq-plugins recipes` lists those that come along."
        )
    if len(paths) > 1:
        raise UserError(
            f"Cannot place {paths[1]!r}: {paths[0]!r} is the experiment file, and "
            "everything else is --key value (values with spaces need quotes)."
        )
    return paths[0], options


def _parse_run_options(path: str, options: dict[str, Any]) -> RunOptions:
    arguments = [path]
    for name, value in options.items():
        if name in FLAG_OPTIONS:
            arguments.append(f"--{name}")
        elif name in LIST_OPTIONS:
            arguments += [f"--{name}", *value]
        else:
            arguments.append(f"--{name}={value}")
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            _, run_opts, _ = sb.parse_arguments(arguments)
        # SpeechBrain 1.1.2 leaves this one a string, which no number compares to.
        if run_opts.optimizer_step_limit is not None:
            given = run_opts.optimizer_step_limit
            run_opts = dataclasses.replace(run_opts, optimizer_step_limit=int(given))
    except SystemExit as error:
        complaint = messages.getvalue().rsplit("error: ", 1)[-1].strip()
        raise UserError(f"Run options: {complaint}") from error
    except ValueError as error:
        raise UserError(
            f"--optimizer_step_limit is {given}: give a whole number, such as 1000."
        ) from error
    return run_opts


def _parse_value(name: str, text: str) -> Any:
    try:
        value = parse_yaml(text, f"--{name}={text}")
    except UserError as error:
        raise UserError(
            f"{error}\nPut a text in quotes of its own: --{name} \"'...'\"."
        ) from error
    # An unquoted text is meant literally: YAML would cut a comment off "/music #1".
    is_plain_text = type(value) is str
    is_name = value is not None and not isinstance(value, str) and not tag_of(value)
    match = NAMES.fullmatch(name.rpartition(".")[2])
    # A part may be called so too, and {...} changes its keys; no folder has any.
    is_part = match and not match[2] and isinstance(value, dict) and text[0] == "{"
    is_name &= match is not None and not is_part
    is_only_comment = value is None and text not in ("null", "Null", "NULL", "~")
    return text if is_plain_text or is_name or is_only_comment else value
