"""Which audio files a command is about, and where their outputs go."""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from muq_plugins.data.audio import AUDIO_EXTENSIONS, OTHER_EXTENSIONS
from muq_plugins.data.scan import find_audio, left_out_error
from muq_plugins.errors import UserError, shown

_MAGIC = "*?["


@dataclass(frozen=True)
class AudioInput:
    """An audio file, and the place of its output in the tree of outputs."""

    path: str
    name: str


def find_inputs(sources: list[str]) -> tuple[list[AudioInput], list[str]]:
    """Finds the audio files that files, folders and glob patterns stand for.

    A file's output is named like the file; one from a folder keeps its path below
    that folder, one from a pattern its path below the part without wildcards. Gives
    each output once, and words about folders that could not be read, about sound in
    formats that are not looked for, and about what is not a regular file.
    """
    inputs: list[AudioInput] = []
    problems: list[str] = []
    for source in sources:
        found: list[AudioInput] = []
        if os.path.isdir(source):
            found, unreadable = _in_folder(source, "")
            problems += unreadable
        elif os.path.exists(source):
            found = [AudioInput(source, os.path.basename(source))]
        elif any(character in source for character in _MAGIC):
            found, unreadable = _in_pattern(source)
            problems += unreadable
        else:
            raise UserError(
                f"{shown(source)} does not exist: give audio files, folders, or "
                f"patterns such as 'music/**/*.flac'."
            )
        if not found:
            words = (
                f"There are no audio files in {shown(source)}: no name there ends in "
                f"{', '.join(AUDIO_EXTENSIONS)}."
            )
            raise UserError("\n  ".join([words, *problems]))
        inputs += found
    usable: list[AudioInput] = []
    for item in _each_once(inputs):
        if _is_irregular(item.path):
            problems.append(f"{shown(item.path)}: not a regular file. Leave it out.")
        else:
            usable.append(item)
    if not usable:
        raise UserError("\n  ".join(["No input can be used:", *problems]))
    return usable, problems


def _in_folder(folder: str, below: str) -> tuple[list[AudioInput], list[str]]:
    """The audio files of a tree; `below` is the place of their outputs."""
    names, unreadable, left_out, _ = find_audio(folder)
    found = [
        AudioInput(os.path.join(folder, name), Path(below, name).as_posix())
        for name in names
    ]
    problems = [
        f"{shown(Path(folder, name))}: cannot be listed ({reason}). Check the "
        f"permissions."
        for name, reason in unreadable
    ]
    problems += [
        shown(str(left_out_error(os.path.join(folder, name)))) for name in left_out
    ]
    return found, problems


def _in_pattern(pattern: str) -> tuple[list[AudioInput], list[str]]:
    """The audio files that a glob pattern matches, or that folders it matches hold."""
    parts, fixed = Path(pattern).parts, 0
    # A folder whose name has brackets is a folder.
    while not any(character in parts[fixed] for character in _MAGIC) or (
        os.path.exists(os.path.join(*parts[: fixed + 1]))
    ):
        fixed += 1
    top = Path(*parts[:fixed])
    pattern = os.path.join(*map(glob.escape, parts[:fixed]), *parts[fixed:])
    found: list[AudioInput] = []
    problems: list[str] = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        name = os.path.relpath(match, top)
        if os.path.isdir(match):
            inside, unreadable = _in_folder(match, name)
            found += inside
            problems += unreadable
        elif match.lower().endswith(AUDIO_EXTENSIONS):
            found.append(AudioInput(match, Path(name).as_posix()))
        elif match.lower().endswith(OTHER_EXTENSIONS):
            problems.append(shown(str(left_out_error(match))))
    return found, list(dict.fromkeys(problems))


def _is_irregular(path: str) -> bool:
    """Whether this is a pipe or the like; opening one may take forever."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False  # the command says what is wrong with it


def _each_once(inputs: list[AudioInput]) -> list[AudioInput]:
    """Drops what was given twice, refuses two files with one output."""
    by_name: dict[str, AudioInput] = {}
    for item in inputs:
        first = by_name.setdefault(item.name, item)
        if first is not item and not os.path.samefile(first.path, item.path):
            raise UserError(
                f"{shown(first.path)} and {shown(item.path)} would have the same "
                f"output, {shown(item.name)}: give the folder above both (or a quoted "
                f"pattern), so that outputs keep its tree, or run the command for "
                f"each with its own --out."
            )
    return list(by_name.values())
