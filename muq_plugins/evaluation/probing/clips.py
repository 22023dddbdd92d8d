"""Labelled clips to probe on: the embedded corpus, or any folder with a CSV of
labels.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor

from muq_plugins.data.audio import AudioError, audio_info
from muq_plugins.data.corpus.notes import NOTE_LABELS
from muq_plugins.data.corpus.takes import TAKE_LABELS
from muq_plugins.data.preparation import (
    Manifests,
    check_data,
    prepare_manifests,
    prepare_notes,
)
from muq_plugins.data.windows import spread_windows
from muq_plugins.errors import UserError, nearest
from muq_plugins.evaluation.probing.frame_labels import MIDI

logger = get_logger(__name__)

PARTS = ("train", "valid", "test")
# How many of the missing files an error names.
NAMED = 5


class ProbeError(UserError):
    """The clips do not allow this probe: too few of them, or of one class only."""


@dataclass(frozen=True)
class Clip:
    """One recording with its labels."""

    name: str  # what messages call it
    wav: str  # the file
    duration: float  # seconds
    part: str | None = None  # "train", "valid" or "test"; None if it is not decided yet
    # everything that is known about it: a text or number, or a list of them
    labels: dict[str, Any] = field(default_factory=dict)


def corpus_clips(manifests: Manifests) -> list[Clip]:
    """The clips of three manifests."""
    return [
        Clip(name, entry["wav"], entry["duration"], part, entry)
        for part in PARTS
        for name, entry in sorted(getattr(manifests, part).items())
    ]


def folder_clips(manifests: Manifests, folder: str | Path) -> list[Clip]:
    """The clips of a folder whose subfolders are named after what is in them.

    The label is ``class``; in which part a clip is, is not decided.
    """
    clips = []
    for _, wav, duration, _, labels in map(astuple, corpus_clips(manifests)):
        name = labels.get("path") or Path(wav).relative_to(folder).as_posix()
        subfolder, _, below = name.partition("/")
        known = {**labels, "class": subfolder if below else None}
        clips.append(Clip(name, wav, duration, None, known))
    classes = {clip.labels["class"] for clip in clips} - {None}
    if len(classes) < 2:
        found = f"only one class, {min(classes)!r}" if classes else "no subfolder"
        raise ProbeError(
            f"{folder} has {found} with audio that can be used: put the recordings of "
            f"each class into a subfolder of its name, and give at least two."
        )
    if loose := [clip.name for clip in clips if clip.labels["class"] is None]:
        logger.warning(
            f"{folder}: left out, since they are in no subfolder: {len(loose)} "
            f"recordings, the first is {loose[0]}."
        )
    return clips


def corpus_of(label: str, corpora: Sequence[list[Clip]]) -> int:
    """Which of several corpora a label is probed for on."""
    for index, clips in enumerate(corpora):
        if any(label in clip.labels for clip in clips):
            return index
    known = {key for clips in corpora for clip in clips for key in clip.labels}
    raise no_clip_has(label, known)


def no_clip_has(label: str, known: Iterable[str]) -> ProbeError:
    """A label that the clips do not have, beside those that they have."""
    rather = or_rather(label, sorted(known))
    return ProbeError(f"No clip has the label {label!r}{rather}")


def check_labels(labels: Iterable[str], corpora: Sequence[Callable]) -> None:
    """Refuses labels that no corpus will have, and music that is not there."""
    known: set[str] | None = set()
    for prepare in corpora:
        made = getattr(prepare, "func", prepare)
        given = getattr(prepare, "keywords", {})
        if made is prepare_manifests:
            check_data({"data_folder": None, **given})
        if made is prepare_notes:
            found = NOTE_LABELS
        elif made is prepare_manifests and given.get("data_folder") is None:
            found = TAKE_LABELS | {MIDI}
        else:
            found = None  # nobody knows before it is there
        known = None if found is None or known is None else known | found
    for label in labels if known is not None else ():
        if label not in known:
            raise no_clip_has(label, known)


def csv_clips(
    path: str | Path,
    audio_folder: str | Path | None = None,
    path_column: str = "path",
    split_column: str | None = None,
) -> list[Clip]:
    """The clips that a CSV file lists."""
    path = Path(path)
    columns, rows = _read_table(path)
    for column in filter(None, (path_column, split_column)):
        if column not in columns:
            instead = or_rather(column, columns)
            if len(columns) == 1 and (other := set(columns[0]) & set(";\t|")):
                instead = f": columns are not separated by ',' but by {min(other)!r}."
            raise ProbeError(f"{path} has no column {column!r}{instead}")
    if not rows:
        raise ProbeError(f"{path} lists no recordings below its header.")
    folder = path.parent if audio_folder is None else Path(audio_folder)
    _check_files(path, folder, [row[path_column] for row in rows.values()])
    clips = []
    for line, row in rows.items():
        part = row[split_column] if split_column else None
        if part is not None and part not in PARTS:
            raise ProbeError(
                f"{path}, line {line}: the split is {part!r}, but must be "
                f"{', '.join(PARTS)}."
            )
        wav = folder / row[path_column]
        try:
            duration = audio_info(wav).duration
        except AudioError as error:
            raise ProbeError(f"{path}, line {line}: {error}") from error
        labels = {name: cell for name, cell in row.items() if name and cell}
        if MIDI in labels:
            labels[MIDI] = str(folder / labels[MIDI])
            if not Path(labels[MIDI]).is_file():
                raise ProbeError(f"{path}, line {line}: there is no {labels[MIDI]}.")
        clips.append(Clip(row[path_column], str(wav), duration, part, labels))
    return clips


def check_seeds(seeds: Any, name: str = "seeds") -> None:
    """Refuses what is no list of seeds, before anything is computed."""
    is_list = isinstance(seeds, Sequence) and not isinstance(seeds, str)
    if not (is_list and seeds and all(type(x) is int and x >= 0 for x in seeds)) or len(
        set(seeds)
    ) < len(seeds):
        raise ProbeError(
            f"{name} must list different whole numbers from 0 on, such as [0, 1, 2], "
            f"got {seeds!r}."
        )


def window_batches(
    clips: Sequence[Clip],
    seconds: float,
    most: int,
    sample_rate: int,
    size: int,
    skipped: list[str],
    cut: Callable[..., list[Tensor]] = spread_windows,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batches of windows that are cut out of clips: whose they are, wavs and wav_lens.

    What says why a clip could not be read is added to ``skipped``, and logged.
    """

    def windows():
        for index, clip in enumerate(clips):
            try:
                read = cut(clip.wav, clip.duration, seconds, most, sample_rate)
            except AudioError as error:
                logger.warning(f"Left out: {error}")
                skipped.append(str(error))
                continue
            yield from ((index, wav) for wav in read)

    every = windows()
    while batch := list(itertools.islice(every, size)):
        places, wavs = zip(*batch, strict=True)
        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        lens = torch.tensor([len(wav) for wav in wavs]) / padded.shape[1]
        yield list(places), padded, lens


def or_rather(name: str, known: Iterable[str]) -> str:
    """The end of a message about a label or column that does not exist."""
    known = [str(candidate) for candidate in known]
    if not known:
        return ": there are none."
    near = nearest(name, known, 0.5)
    likely = f"; the nearest one is {near!r}" if near else ""
    return f"{likely}. There are: {', '.join(known)}."


def _read_table(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """The columns of a CSV file, and its rows by the line in which they end.

    Blanks around a cell are no part of it. Whatever could be read in two ways, such as
    a quotation mark that never ends, is refused: it may swallow rows.
    """
    if not path.is_file():
        raise ProbeError(f"There is no file {path}: check labels_csv.")
    lines = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            for row in reader:
                lines[reader.line_num] = [cell.strip() for cell in row]
    except (csv.Error, UnicodeDecodeError) as error:
        line = f", line {reader.line_num}" if isinstance(error, csv.Error) else ""
        raise ProbeError(
            f"{path}{line} cannot be read ({error}): save it as CSV in UTF-8."
        ) from error
    lines = {line: row for line, row in lines.items() if any(row)}
    columns = lines.pop(min(lines)) if lines else []
    counts = Counter(filter(None, columns))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ProbeError(f"{path} has the column {twice[0]!r} more than once.")
    rows = {}
    for line, row in lines.items():
        if len(row) > len(columns):
            raise ProbeError(
                f"{path}, line {line}: {len(row)} cells below {len(columns)} columns. "
                f"Put a cell that has a comma in it between quotation marks."
            )
        if broken := [cell for cell in row if "\n" in cell]:
            raise ProbeError(
                f"{path}, line {line}: a cell that begins with "
                f"{broken[0].splitlines()[0]!r} goes on over several lines. Is there "
                f"a quotation mark too many?"
            )
        rows[line] = dict(itertools.zip_longest(columns, row, fillvalue=""))
    return columns, rows


def _check_files(path: Path, folder: Path, names: list[str]) -> None:
    """Raises ProbeError if a recording is listed twice or is not there."""
    seen: dict[str, str] = {}
    for name in names:
        place = os.path.realpath(folder / name)
        if place in seen:
            other = f" as {seen[place]!r}" if seen[place] != name else ""
            raise ProbeError(
                f"{path} lists {name!r} more than once{other}: keep one line for each "
                "recording, or it may be in the training and the test part."
            )
        seen[place] = name
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ProbeError(
            f"{path} lists recordings that are not in {folder}: "
            f"{', '.join(map(repr, missing[:NAMED]))}{more}. Give the folder that the "
            "paths start from as audio_folder, or remove the lines."
        )
