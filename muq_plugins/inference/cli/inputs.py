"""Which audio files a command is about, and where their outputs go."""

from __future__ import annotations

import glob
import os
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
    each output once, and words about folders that could not be read and about sound in
    formats that are not looked for.
    """
    inputs: list[AudioInput] = []
    problems: list[str] = []
    for source in sources:
        if os.path.isdir(source):
            found = _in_folder(source, "", problems)
        elif os.path.exists(source):
            found = [AudioInput(source, os.path.basename(source))]
        elif any(character in source for character in _MAGIC):
            found = _in_pattern(source, problems)
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
    return _each_once(inputs), list(dict.fromkeys(problems))


def _in_folder(folder: str, below: str, problems: list[str]) -> list[AudioInput]:
    """The audio files of a tree; `below` is the place of their outputs."""
    found = find_audio(folder)
    problems += found.problems(folder)
    return [
        AudioInput(os.path.join(folder, name), Path(below, name).as_posix())
        for name in found.paths
    ]


def _in_pattern(pattern: str, problems: list[str]) -> list[AudioInput]:
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
    reached: dict[tuple[int, int], str] = {}
    # Flattest first: `**` follows a link to a folder above it again and again.
    matches = glob.glob(pattern, recursive=True)
    for match in sorted(matches, key=lambda match: (match.count(os.sep), match)):
        name, is_folder = os.path.relpath(match, top), os.path.isdir(match)
        folder = match.rstrip(os.sep) if is_folder else os.path.dirname(match)
        status = os.stat(folder or os.curdir)
        if reached.setdefault((status.st_dev, status.st_ino), folder) != folder:
            continue  # a link to what was found already, as in a folder
        if is_folder:
            found += _in_folder(match, name, problems)
        elif match.lower().endswith(AUDIO_EXTENSIONS):
            found.append(AudioInput(match, Path(name).as_posix()))
        elif match.lower().endswith(OTHER_EXTENSIONS):
            problems.append(shown(str(left_out_error(match))))
    return found


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
