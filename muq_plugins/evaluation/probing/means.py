"""Means over the frames of successive clips: computed once, read by every task.

A folder for each encoder and way of cutting holds one file that grows, float16, and a
line for each recording that is in it. Whoever asks for recordings gets what is there
and computes the rest: tasks and protocols on the same audio share it, and what was
stopped goes on with the next recording. A recording is found by its file, size, time
and length: one that has changed is another one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor
from tqdm import tqdm

from muq_plugins.data.windows import successive_windows
from muq_plugins.evaluation.kept import digest, file_stamp
from muq_plugins.evaluation.probing.clips import Clip, ProbeError, window_batches
from muq_plugins.evaluation.probing.features import Extractor, moment_sums
from muq_plugins.files import (
    append_json_line,
    locked,
    open_json_lines,
    read_json_lines,
)

logger = get_logger(__name__)

# Raised whenever a change of the code changes the means.
FORMAT = 1
# Recordings after which the file is on the disk: what an interruption can cost.
CHUNK = 16
VALUES, INDEX = "means.f16", "recordings.jsonl"
# Of how many rows at a time moments are computed.
AT_ONCE = 1024


class Cutting(NamedTuple):
    """How a recording becomes clips."""

    seconds: float  # of a clip
    most: int = 10_000  # clips of a recording, from its start
    padded: bool = False  # whether a last, shorter one is heard with silence after it


@dataclass(frozen=True)
class Means:
    """Rows of a file of means: a batch is read when it is asked for."""

    values: np.ndarray  # all that there is (rows, layers, size), float16, on the disk
    rows: np.ndarray  # those that are meant, in their order
    key: str  # hash of all that these depend on

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self.values.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Some rows (rows, layers, size), float32."""
        # NumPy takes a tensor of one number for that number.
        chosen = self.rows[rows if isinstance(rows, slice) else rows.numpy()]
        found = self.values[chosen]
        return torch.from_numpy(np.asarray(found, dtype=np.float32))

    def at(self, places: np.ndarray) -> Means:
        """Only the rows at some places."""
        return Means(self.values, self.rows[places], self.key)

    def only(self, layers: Sequence[int]) -> Means:
        """Only some layers that follow each other; one alone is read at once."""
        values = self.values[:, layers[0] : layers[-1] + 1]
        if len(layers) > 1:
            return Means(values, self.rows, self.key)
        return Means(values[self.rows], np.arange(len(self.rows)), self.key)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (layers, size) over the rows."""
        mean = sum(part.double().sum(0) for part in self._parts()) / len(self)
        square = sum(((part - mean) ** 2).sum(0) for part in self._parts()) / len(self)
        std = square.sqrt().float()
        return mean.float(), torch.where(std > 1e-6, std, torch.ones_like(std))

    def _parts(self) -> Iterator[Tensor]:
        for start in range(0, len(self), AT_ONCE):
            yield self[slice(start, start + AT_ONCE)]


def clip_means(
    extractor: Extractor,
    recordings: Sequence[Clip],
    cutting: Cutting,
    folder: str | Path,
    batch_size: int = 8,
    name: str = "means",
    progress: bool = False,
) -> tuple[Means, np.ndarray]:
    """Means of all clips, and whose they are: the place of the recording, of each row.

    A recording that cannot be read has no rows, and the log says why.
    """
    about = {
        "format": FORMAT,
        "extractor": [type(extractor).__name__, extractor.fingerprint],
        "cutting": list(cutting),
    }
    place = Path(folder) / f"means-{digest(about)}"
    place.mkdir(parents=True, exist_ok=True)
    stamps = [[*file_stamp(one.wav), one.duration] for one in recordings]
    keys = [json.dumps(stamp) for stamp in stamps]
    with locked(place, say=logger.info):
        known = _known(place)
        wanted = dict(zip(keys, recordings, strict=True))
        missing = {key: one for key, one in wanted.items() if key not in known}
        todo = list(missing.items())
        with tqdm(total=len(todo), desc=name, disable=not (progress and todo)) as bar:
            for start in range(0, len(todo), CHUNK):
                some = dict(todo[start : start + CHUNK])
                _add(place, some, extractor, cutting, batch_size, known)
                bar.update(len(some))
    shape = next((found["shape"] for found in known.values() if found["rows"]), None)
    found = [known.get(key, {"rows": 0, "first": 0}) for key in keys]
    if shape is None or not any(one["rows"] for one in found):
        raise ProbeError(
            f"None of the {len(recordings)} recordings could be read; see the log."
        )
    values = np.memmap(place / VALUES, np.float16, mode="r")
    values = values[: len(values) // np.prod(shape) * np.prod(shape)].reshape(
        -1, *shape
    )
    rows = [np.arange(one["first"], one["first"] + one["rows"]) for one in found]
    whose = np.repeat(np.arange(len(found)), [len(some) for some in rows])
    return Means(values, np.concatenate(rows), digest([about, stamps])), whose


def _known(place: Path) -> dict[str, dict]:
    """What is in the file, by recording; what a power cut left half is forgotten."""
    size = (place / VALUES).stat().st_size if (place / VALUES).exists() else 0
    known = {}
    for line in read_json_lines(place / INDEX):
        end = (line["first"] + line["rows"]) * int(np.prod(line["shape"])) * 2
        if end <= size:
            known[json.dumps(line["recording"])] = line
    return known


def _add(place, recordings, extractor, cutting, batch_size, known) -> None:
    """Computes the means of some recordings, and puts them at the end of the file."""
    clips, skipped = list(recordings.values()), []
    rows: list[list[np.ndarray]] = [[] for _ in clips]
    rate = extractor.sample_rate
    batches = window_batches(
        *(clips, cutting.seconds, cutting.most, rate, batch_size, skipped),
        cut=successive_windows,
    )
    for places, wavs, lens in batches:
        if cutting.padded:
            lacking = round(cutting.seconds * rate) - wavs.shape[1]
            wavs = torch.nn.functional.pad(wavs, (0, max(0, lacking)))
            lens = torch.ones(len(wavs))
        sums, frames = moment_sums(*extractor.states(wavs, lens))
        means = sums[:, :, 0].numpy() / frames.numpy()[:, None, None]
        for at, mean in zip(places, means, strict=True):
            rows[at].append(_half(mean, clips[at].name))
    shape = next((list(some[0].shape) for some in rows if some), None)
    if shape is None:
        return  # none could be read: the next attempt may
    row = int(np.prod(shape)) * 2
    lines = []
    with open(place / VALUES, "ab") as file:
        begin = -(-file.tell() // row)
        file.truncate(begin * row)  # a row that a kill has cut is made whole
        file.seek(0, os.SEEK_END)
        for key, some in zip(recordings, rows, strict=True):
            line = {"recording": json.loads(key), "first": begin, "rows": len(some)}
            lines.append({**line, "shape": shape})
            for mean in some:
                file.write(mean.tobytes())
            begin += len(some)
        file.flush()
        os.fsync(file.fileno())
    with open_json_lines(place / INDEX) as file:
        for key, line in zip(recordings, lines, strict=True):
            if line["rows"]:
                append_json_line(file, line)
                known[key] = line


def _half(mean: np.ndarray, name: str) -> np.ndarray:
    """A mean as it is kept."""
    with np.errstate(over="ignore"):
        half = mean.astype(np.float16)
    if not np.isfinite(half).all():
        raise ProbeError(
            f"The features of {name!r} are not finite, or beyond float16 (largest: "
            f"{np.abs(mean).max():.3g}): the encoder is broken, or the recording is."
        )
    return half
