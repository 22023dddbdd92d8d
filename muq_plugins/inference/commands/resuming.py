"""What is done already is not done again."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muq_plugins.data.audio import AudioError, audio_info
from muq_plugins.inference.commands.inputs import AudioInput
from muq_plugins.inference.commands.options import CommandError
from muq_plugins.inference.commands.records import RecordError, read_facts
from muq_plugins.inference.printing import shown

# Several headers at once: on a network drive each one is a wait.
READERS = 8


@dataclass
class Job:
    """An output that has to be made."""

    input: AudioInput  # the audio
    output: Path  # where its output goes
    duration: float  # seconds
    facts: dict[str, Any]  # what the output will say about the audio


@dataclass
class Plan:
    """What there is to do."""

    todo: list[Job] = field(default_factory=list)  # outputs to make
    num_done: int = 0  # outputs that are there already
    seconds_done: float = 0.0  # their audio
    problems: list[str] = field(default_factory=list)  # files that cannot be opened


def plan_jobs(
    settings: Callable[[float], dict[str, Any]],
    inputs: list[AudioInput],
    arguments: Namespace,
) -> Plan:
    """Compares the inputs with the outputs that are there.

    An output is done if it can be read, was made with the same settings, and its audio
    file has the size and the time of change that it had then.
    """
    plan, conflicts = Plan(), []

    def look(item: AudioInput) -> Job | float | str | AudioError:
        """A job, the seconds of what is done, a conflict, or a file that is bad."""
        output = Path(arguments.out, f"{item.name}.{arguments.format}")
        facts = None if arguments.overwrite else _facts_of(output)
        if facts is not None:
            if difference := _difference(facts, settings):
                return f"{shown(output)} {difference}."
            if facts["source"] == _source(item):
                return facts["duration"]
        try:
            duration = audio_info(item.path).duration
        except AudioError as error:
            return error
        about = {"path": item.path, "duration": duration, "source": _source(item)}
        return Job(item, output, duration, about)

    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(look, inputs):
            if isinstance(found, Job):
                plan.todo.append(found)
            elif isinstance(found, AudioError):
                plan.problems.append(shown(str(found)))
            elif isinstance(found, str):
                conflicts.append(found)
            else:
                plan.num_done += 1
                plan.seconds_done += found
    if conflicts:
        more = f" The same holds for {len(conflicts) - 1} more." * (len(conflicts) > 1)
        raise CommandError(
            f"{conflicts[0]}{more} Give another --out, or --overwrite to make it again."
        )
    return plan


def _facts_of(output: Path) -> dict[str, Any] | None:
    """The facts of an output; None if it is not there or not complete."""
    if not output.exists():
        return None
    try:
        return read_facts(output)
    except RecordError:
        return None


def _difference(
    facts: dict[str, Any], settings: Callable[[float], dict[str, Any]]
) -> str:
    """Words for how an output differs from what would be made now."""
    if "duration" not in facts or "source" not in facts:
        return "is a file of something else"
    now = settings(facts["duration"])
    if facts.get("command") != now["command"]:
        return f"was made by `muq-plugins {facts.get('command')}`"
    differences = [
        f"{key} is {facts.get(key)} there, {value} now"
        for key, value in now.items()
        if facts.get(key) != value
    ]
    if not differences:
        return ""
    return f"was made with other settings: {'; '.join(differences)}"


def _source(item: AudioInput) -> dict[str, int]:
    """What tells a changed audio file from the one of before."""
    try:
        status = os.stat(item.path)
    except OSError:
        return {}
    # Whole seconds: copies and archives lose the rest.
    return {"bytes": status.st_size, "modified": int(status.st_mtime)}
