"""What is done already is not done again.

Authors
 * The MuQ for SpeechBrain team 2026
"""

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
    """An output that has to be made.

    Arguments
    ---------
    input : AudioInput
        The audio.
    output : Path
        Where its output goes.
    duration : float
        Seconds.
    facts : dict
        What the output will say about the audio.

    Example
    -------
    >>> Job(AudioInput("a.wav", "a.wav"), Path("out/a.wav.npz"), 3.0, {}).duration
    3.0
    """

    input: AudioInput
    output: Path
    duration: float
    facts: dict[str, Any]


@dataclass
class Plan:
    """What there is to do.

    Arguments
    ---------
    todo : list of Job
        Outputs to make.
    num_done : int
        Outputs that are there already.
    seconds_done : float
        Their audio.
    problems : list of str
        Files that cannot be opened.

    Example
    -------
    >>> Plan().num_done
    0
    """

    todo: list[Job] = field(default_factory=list)
    num_done: int = 0
    seconds_done: float = 0.0
    problems: list[str] = field(default_factory=list)


def plan_jobs(
    settings: Callable[[float], dict[str, Any]],
    inputs: list[AudioInput],
    arguments: Namespace,
) -> Plan:
    """Compares the inputs with the outputs that are there.

    An output is done if it can be read, was made with the same settings, and its audio
    file has the size and the time of change that it had then.

    Arguments
    ---------
    settings : callable
        From the duration of a file, all that decides about its output.
    inputs : list of AudioInput
        The audio files.
    arguments : Namespace
        With ``out``, ``format`` and ``overwrite``.

    Returns
    -------
    Plan
        What there is to do.

    Raises
    ------
    CommandError
        If outputs were made with other settings, naming the difference.
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
