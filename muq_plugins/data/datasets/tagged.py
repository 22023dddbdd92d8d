"""Published data sets of tagged recordings: their files and their manifests."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechbrain.utils.logger import get_logger

from muq_plugins.data.audio import AudioError, AudioInfo, audio_info
from muq_plugins.data.clips import keyed_integer
from muq_plugins.data.manifest import PARTS, clip_ids, manifest_entry
from muq_plugins.errors import UserError
from muq_plugins.files import write_json

logger = get_logger(__name__)

# The order of the tags: scores without it cannot be told apart.
TAGS_FILE = "tags.json"
LEFT_OUT_FILE = "left_out.json"
NAMED = 20  # of what is missing, an error names so many


class MissingAudio(UserError):
    """Recordings without a file."""

    def __init__(self, paths: list[str], words: str):
        super().__init__(words)
        self.paths = paths


@dataclass(frozen=True)
class TaggedClip:
    """A recording as the annotations list it."""

    path: str  # its file, relative to the folder of the audio, with "/"
    part: str  # "train", "valid" or "test"
    tags: list[str]  # its tags, in the order of all tags
    labels: dict = field(default_factory=dict)  # what else is known, such as "artist"


@dataclass(frozen=True)
class TaggedData:
    """The manifests of a data set."""

    name: str  # the data set with its split: numbers without it cannot be compared
    manifests: dict[str, Path]  # by part
    audio_folder: Path  # the data root of the manifests
    tags: list[str]  # all tags, in the order of `tags.json`
    # clips that are not in the manifests: "path", "reason" and "detail"
    left_out: list[dict]


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
        """The recordings with their files, and those that are left out."""
        folder, unreadable = self.audio_folder, set(self.known_unreadable)
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}.")
        _check_apart(self.clips)
        try:
            args = folder, self.clips, self.endings, unreadable, leave_out_missing
            files, left_out = _find_audio(*args)
        except MissingAudio as error:
            words = f"{len(error.paths)} of {len(self.clips)} recordings are missing: "
            some = ", ".join(error.paths[:NAMED])
            more = f" and {len(error.paths) - NAMED} more"
            words += some + more * (len(error.paths) > NAMED)
            words += f" (in {folder}). Set leave_out_missing to go on without them."
            raise UserError(words) from error
        found = [
            (clip, folder / files[clip.path][0], files[clip.path][1])
            for clip in self.clips
            if clip.path in files
        ]
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


def write_manifests(
    name: str,
    manifest_folder: str | Path,
    audio_folder: str | Path,
    clips: Iterable[TaggedClip],
    tags: Sequence[str],
    endings: Sequence[str] = ("",),
    known_unreadable: Iterable[str] = (),
    parts: Sequence[str] = PARTS,
    leave_out_missing: bool = False,
) -> TaggedData:
    """Find the audio of clips and write their manifests."""
    audio_folder = Path(audio_folder)
    folder = Path(manifest_folder) / re.sub(r"[^a-z0-9]+", "-", name.lower())
    parts, tags = list(parts), list(tags)
    if not parts or set(parts) - set(PARTS):
        raise UserError(f"parts must be some of {', '.join(PARTS)}, got {parts}.")
    if not audio_folder.is_dir():
        raise UserError(
            f"The folder of the audio, {audio_folder}, does not exist. Give the folder "
            "that the paths in the annotations start from."
        )
    chosen = [clip for clip in clips if clip.part in parts]
    _check_clips(chosen, tags)
    found, left_out = _find_audio(
        audio_folder, chosen, endings, set(known_unreadable), leave_out_missing
    )
    entries: dict[str, dict] = {part: {} for part in parts}
    ids = clip_ids([clip.path for clip in chosen])
    for clip, clip_id in zip(chosen, ids, strict=True):
        if clip.path in found:
            path, info = found[clip.path]
            labels = {"tags": clip.tags, **clip.labels}
            entries[clip.part][clip_id] = manifest_entry(path, info, **labels)
    manifests = {part: folder / f"{part}.json" for part in parts}
    for part, manifest in manifests.items():
        if not entries[part]:
            raise UserError(
                f"No clip of the part {part!r} has audio in {audio_folder}: check the "
                "folder, or do not list this part in parts."
            )
        write_json(manifest, entries[part])
    write_json(folder / TAGS_FILE, tags)
    write_json(folder / LEFT_OUT_FILE, left_out)
    if left_out:
        logger.warning(
            f"{len(left_out)} of {len(chosen)} clips are left out: see "
            f"{folder / LEFT_OUT_FILE}."
        )
    return TaggedData(name, manifests, audio_folder, tags, left_out)


def check_choice(name: str, given: Any, known: Iterable[Any]) -> None:
    """Refuses what a data set does not have."""
    if given not in known:
        wanted = " or ".join(map(repr, known))
        raise UserError(f"{name} must be {wanted}, got {given!r}.")


def _check_clips(clips: list[TaggedClip], tags: list[str]) -> None:
    """Raises UserError for what no data set may have."""
    twice = [tag for i, tag in enumerate(tags) if tag in tags[:i]]
    if twice:
        raise UserError(f"The tag {twice[0]!r} comes twice in the list of tags.")
    _check_apart(clips)
    known = set(tags)
    for clip in clips:
        unknown = [tag for tag in clip.tags if tag not in known]
        if unknown:
            raise UserError(
                f"{clip.path} has the tag {unknown[0]!r}, which is none of the "
                f"{len(tags)} tags of this data set: are the files of one version?"
            )


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


def _find_audio(
    folder: Path,
    clips: list[TaggedClip],
    endings: Sequence[str],
    known_unreadable: set[str],
    leave_out_missing: bool,
) -> tuple[dict[str, tuple[str, AudioInfo]], list[dict[str, str]]]:
    """Path and header of every clip that has audio, by its path; the others listed."""
    found, left_out, missing = {}, [], []
    for clip in clips:
        names = [
            clip.path if not end else str(Path(clip.path).with_suffix(end).as_posix())
            for end in endings
        ]
        here = [name for name in names if (folder / name).is_file()]
        try:
            if here:
                found[clip.path] = here[0], audio_info(folder / here[0])
                continue
            problem = AudioError(folder / names[0], "missing", "no such file")
        except AudioError as error:
            problem = error
        if problem.reason == "missing" and not leave_out_missing:
            missing.append(clip.path)
        elif problem.reason != "missing" and clip.path not in known_unreadable:
            raise UserError(
                f"{problem} No such fault of this data set is known."
            ) from problem
        left_out.append(
            {"path": clip.path, "reason": problem.reason, "detail": problem.detail}
        )
    # Broken files are often removed: no fault if only those are gone.
    missing = [path for path in missing if path not in known_unreadable]
    if missing:
        raise MissingAudio(
            missing,
            f"{len(missing)} of {len(clips)} clips have no file in {folder}, the first "
            f"is {missing[0]}. Give the folder that this path starts from, get the "
            "files, or set leave_out_missing to list them and go on without.",
        )
    return found, left_out


def read_tag_order(manifest_folder: str | Path) -> list[str]:
    """The order of the tags that `write_manifests` has kept."""
    path = Path(manifest_folder) / TAGS_FILE
    return json.loads(read_text(path, "the prepare function of the data set"))


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
