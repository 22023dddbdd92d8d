"""Published data sets of tagged recordings: their annotations and their audio."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muq_plugins.data.audio import AudioError, AudioInfo, audio_info
from muq_plugins.data.clips import keyed_integer
from muq_plugins.data.manifest import PARTS
from muq_plugins.errors import UserError

NAMED = 20  # of what is missing, an error names so many


@dataclass(frozen=True)
class TaggedClip:
    """A recording as the annotations list it."""

    path: str  # its file, relative to the folder of the audio, with "/"
    part: str  # "train", "valid" or "test"
    tags: list[str]  # its tags, in the order of all tags
    labels: dict = field(default_factory=dict)  # what else is known, such as "artist"


@dataclass(frozen=True)
class Sheet:
    """What a person has to know to get a data set."""

    name: str  # as a folder of data sets calls it
    source: str  # where it comes from
    licence: str
    layout: str  # what its folder holds

    def lacks(self, folder: str | Path, what: str) -> UserError:
        """The error for a folder that does not hold all of it."""
        return UserError(
            f"{self.name} in {folder}: {what} The folder must hold {self.layout}. It "
            f"comes from {self.source}; {self.licence}."
        )


@dataclass(frozen=True)
class Labelled:
    """Recordings of a data set with the label of one task."""

    name: str  # the data set with its split: numbers without it cannot be compared
    audio_folder: Path  # that the paths start from
    clips: list[TaggedClip]
    # all classes, in the order in which they are scored and stored; of numbers to
    # predict, what they measure
    classes: list[str]
    endings: Sequence[str] = ("",)
    known_unreadable: Sequence[str] = ()
    notes: Sequence[str] = ()  # what a reader of a score should know
    group: str | None = "artist"  # the label that intervals are over, where it is known

    def found(
        self, leave_out_missing: bool = False
    ) -> tuple[list[tuple[TaggedClip, Path, AudioInfo]], list[dict[str, str]]]:
        """The recordings with their files, and those that are left out.

        Of each of these, "path", "reason" and "detail" are known.
        """
        folder, found, left_out, missing = self.audio_folder, [], [], []
        if not folder.is_dir():
            raise UserError(
                f"There is no folder {folder}: give the folder that holds it, or put "
                "the recordings there."
            )
        _check_apart(self.clips)
        for clip in self.clips:
            names = [
                str(Path(clip.path).with_suffix(end).as_posix()) if end else clip.path
                for end in self.endings
            ]
            here = [name for name in names if (folder / name).is_file()]
            try:
                if here:
                    path = folder / here[0]
                    found.append((clip, path, audio_info(path)))
                    continue
                problem = AudioError(folder / names[0], "missing", "no such file")
            except AudioError as error:
                problem = error
            # Broken files are often removed: no fault if only those are gone.
            known = clip.path in self.known_unreadable
            if problem.reason != "missing" and not known:
                raise UserError(
                    f"{problem} No such fault of this data set is known."
                ) from problem
            if not known and not leave_out_missing:
                missing.append(clip.path)
            left_out.append(
                {"path": clip.path, "reason": problem.reason, "detail": problem.detail}
            )
        if missing:
            some = ", ".join(missing[:NAMED])
            more = f" and {len(missing) - NAMED} more" * (len(missing) > NAMED)
            raise UserError(
                f"{len(missing)} of {len(self.clips)} recordings are missing: {some}"
                f"{more} (in {folder}). Set leave_out_missing to go on without them."
            )
        return found, left_out


def one_of(folder: str | Path, places: Iterable[str], holds: str = "") -> Path:
    """The first of some subfolders that holds a name; the first of all if none does."""
    every = [Path(folder) / place for place in places]
    return next((place for place in every if (place / holds).exists()), every[0])


def visible(folder: str | Path, pattern: str) -> list[Path]:
    """Paths of a pattern, sorted, without hidden ones, as macOS puts beside files."""
    found = Path(folder).glob(pattern)
    return sorted(path for path in found if not path.name.startswith("."))


def drawn_parts(groups: Iterable[str]) -> dict[str, str]:
    """The part of each group where no split is published, always the same.

    Three of five rows train, one validates and one tests, as near as groups allow.
    """
    rows = Counter(groups)
    shares = zip(PARTS, (0.6, 0.2, 0.2), strict=True)
    lacks = {part: share * rows.total() for part, share in shares}
    order = sorted(rows, key=lambda group: keyed_integer(2**64, "part", group))
    parts: dict[str, str] = {}
    for number, group in enumerate(order):
        empty = [part for part in PARTS if part not in parts.values()]
        # Of few groups, each part gets one.
        may = empty if len(order) - number <= len(empty) else PARTS
        parts[group] = max(may, key=lacks.__getitem__)
        lacks[parts[group]] -= rows[group]
    return parts


def check_choice(name: str, given: Any, known: Iterable[Any]) -> None:
    """Refuses what a data set does not have."""
    if given not in known:
        wanted = " or ".join(map(repr, known))
        raise UserError(f"{name} must be {wanted}, got {given!r}.")


def _check_apart(clips: Iterable[TaggedClip]) -> None:
    """Refuses a recording that comes twice."""
    seen: dict[str, str] = {}
    for clip in clips:
        if clip.path in seen:
            raise UserError(
                f"{clip.path} is listed in {seen[clip.path]} and in {clip.part}: keep "
                "one of them, or training and test are not apart."
            )
        seen[clip.path] = clip.part


def read_text(path: str | Path, source: str) -> str:
    """The text of an annotation file."""
    try:
        return read_bytes(path, source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: it is no text in UTF-8 ({error}). Save it as UTF-8, or get it "
            f"again from {source}."
        ) from error


def read_lines(path: str | Path, source: str) -> list[str]:
    """Lines of an annotation file; U+2028 and others in a text of JSON end none."""
    text = io.StringIO(read_text(path, source), newline=None)
    return [line.rstrip("\n") for line in text]


def read_bytes(path: str | Path, source: str) -> bytes:
    """The content of an annotation file."""
    if not Path(path).is_file():
        raise UserError(
            f"{path} does not exist. Get it from {source}, or give the folder that "
            "holds it."
        )
    return Path(path).read_bytes()


def damaged(path: str | Path, words: str, source: str) -> UserError:
    """What is wrong with an annotation file, and where it is published."""
    return UserError(f"{path}: {words}. Get it again from {source}.")


def read_gzipped_json(path: str | Path, source: str) -> dict:
    """The object of a JSON file, compressed or not."""
    content = read_bytes(path, source)
    try:
        found = json.loads(
            gzip.decompress(content) if content[:1] == b"\x1f" else content
        )
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged(path, f"it is no JSON file ({error})", source) from error
    if not isinstance(found, dict):
        raise damaged(path, "it holds no JSON object", source)
    return found
