"""Features of whole recordings: computed once, read by every task.

They are means of successive clips, or frames. A folder for each encoder and way of
cutting holds a file for each layer, which grows, float16, and a line for each recording
that is in them: who reads one layer reads one file from its start to its end. Whoever
asks for recordings gets what is there and computes the rest: tasks and protocols on the
same audio share it, and what was stopped goes on with the next recordings. A recording
is found by its file, size, time and length: one that has changed is another one.
Several devices compute portions side by side; what is kept is in the order of one.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, NamedTuple

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor
from tqdm import tqdm

from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.data.windows import SHORTEST_SECONDS, successive_windows
from muq_plugins.evaluation.kept import digest, file_stamp
from muq_plugins.evaluation.probing.clips import Clip, ProbeError, window_batches
from muq_plugins.evaluation.probing.features import Extractor, moment_sums
from muq_plugins.files import (
    append_json_line,
    locked,
    open_json_lines,
    read_json_lines,
)
from muq_plugins.lobes.lengths import absolute_lengths

logger = get_logger(__name__)

# Raised whenever a change of the code changes what is kept.
FORMAT = 2
# Seconds of audio after which the files are on the disk: what an interruption can cost,
# and what is in memory.
AT_RISK = 300.0
INDEX = "recordings.jsonl"
# Of how many rows at a time moments are computed.
AT_ONCE = 1024


class Cutting(NamedTuple):
    """A recording becomes clips, and of each clip its mean over frames is kept."""

    seconds: float  # of a clip
    most: int = 10_000  # clips of a recording, from its start
    # the share of it from which on a last, shorter one is heard, with silence after it;
    # False: from a half on, without
    padded: float | Literal[False] = False

    def about(self) -> list:
        """What the content of a folder depends on."""
        return list(self)

    def rate(self, extractor: Extractor) -> float | None:
        """Rows in a second, where they are so many everywhere."""
        return None

    def rows(
        self, extractor: Extractor, clips: Sequence[Clip], batch_size: int
    ) -> list[list[np.ndarray]]:
        """Of each recording (rows, layers, size) in parts; none if it is unreadable."""
        rows: list[list[np.ndarray]] = [[] for _ in clips]
        rate = extractor.sample_rate
        cut = successive_windows
        if self.padded:
            cut = partial(cut, least=self.padded)
        windows = clips, self.seconds, self.most, rate, batch_size, []
        batches = window_batches(*windows, cut=cut)
        for places, wavs, lens in batches:
            if self.padded:
                lacking = round(self.seconds * rate) - wavs.shape[1]
                wavs = torch.nn.functional.pad(wavs, (0, max(0, lacking)))
                lens = torch.ones(len(wavs))
            sums, frames = moment_sums(*extractor.states(wavs, lens))
            means = sums[:, :, 0].numpy() / frames.numpy()[:, None, None]
            for at, mean in zip(places, means, strict=True):
                rows[at].append(mean[None])
        return rows


class Framing(NamedTuple):
    """A recording becomes frames, each kept once, in windows that are heard at once.

    With context, every frame but those at the ends of a recording has so much audio of
    its window on both sides, and the last window begins earlier, so that none is short.
    Without it, windows follow each other and know nothing of each other; what is left
    over at the end is heard with silence after it, or not at all if it is shorter than
    a share of a window.
    """

    seconds: float  # of a window
    context: float = 0.0  # seconds
    most_rate: float | None = None  # frames in a second; of more, so many are averaged
    least: float = 0.0  # of the last window, without context

    def about(self) -> list:
        """What the content of a folder depends on."""
        return list(self)

    def rate(self, extractor: Extractor) -> float:
        """Rows in a second."""
        return extractor.frame_rate / self._averaged(extractor)

    def rows(
        self, extractor: Extractor, clips: Sequence[Clip], batch_size: int
    ) -> list[list[np.ndarray]]:
        """Of each recording (rows, layers, size) in parts; none if it is unreadable."""
        found: list[list[np.ndarray]] = [[] for _ in clips]
        every = self._windows(extractor, clips)
        while batch := list(islice(every, batch_size)):
            places, wavs, keeps, lasts = zip(*batch, strict=True)
            padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
            lens = torch.tensor([len(wav) for wav in wavs]) / padded.shape[1]
            layers, lens = extractor.frames(padded, lens)
            size = layers[0].shape[1]
            lengths = absolute_lengths(lens, size, len(wavs))
            ends = [size] * len(wavs) if lengths is None else lengths.tolist()
            for row, (place, keep) in enumerate(zip(places, keeps, strict=True)):
                # The last frame may need more audio than is heard.
                at_end = lasts[row] or not self.context
                if keep.stop - ends[row] > at_end:
                    raise ProbeError(
                        f"{clips[place].name}: the encoder gives {ends[row]} frames "
                        f"where its frame rate of {extractor.frame_rate:g} Hz says "
                        f"{keep.stop}: its frame_rate is wrong, or the file is."
                    )
                kept = slice(keep.start, min(keep.stop, ends[row]))
                part = torch.stack([one[row, kept] for one in layers], dim=1)
                if kept.stop < keep.stop and not lasts[row]:  # what follows is in time
                    part = torch.cat([part, part[-1:]])
                found[place].append(part.float().cpu().numpy())
        group = self._averaged(extractor)
        return [self._grouped(parts, group) for parts in found]

    def _averaged(self, extractor: Extractor) -> int:
        """Frames of the encoder in each that is kept."""
        most = self.most_rate or extractor.frame_rate
        return max(1, round(extractor.frame_rate / most))

    @staticmethod
    def _grouped(parts: list[np.ndarray], group: int) -> list[np.ndarray]:
        """Means of so many frames; a rest at the end is none, unless it is all."""
        if not parts or group == 1:
            return parts
        frames = np.concatenate(parts)
        count = max(1, len(frames) // group)
        groups = np.array_split(frames[: count * group], count)
        return [np.stack([some.mean(axis=0) for some in groups])]

    def _windows(
        self, extractor: Extractor, clips: Sequence[Clip]
    ) -> Iterator[tuple[int, Tensor, slice, bool]]:
        """Whose it is, audio, which of its frames are kept, and whether it is last."""
        for place, clip in enumerate(clips):
            try:
                # Read whole or not at all: a part of a recording has no frames.
                windows = list(self._of(extractor, clip))
            except AudioError as error:
                logger.warning(f"Left out: {error}")
                continue
            for number, (wav, keep) in enumerate(windows, start=1):
                yield place, wav, keep, number == len(windows)

    def _of(self, extractor: Extractor, clip: Clip) -> Iterator[tuple[Tensor, slice]]:
        rate, sample_rate = extractor.frame_rate, extractor.sample_rate
        total = max(1, int(clip.duration * rate + 1e-6))
        heard, context = round(self.seconds * rate), round(self.context * rate)
        hop = heard if total <= heard else heard - 2 * context
        for due in range(0, total, hop):
            count = min(hop, total - due)
            begin = due
            if context:
                begin = max(0, min(due - context, total - heard))
            elif due and count < self.least * heard:
                return
            wav = read_audio(clip.wav, begin / rate, heard / rate, sample_rate)
            shortest = SHORTEST_SECONDS if context else self.seconds
            lacking = round(shortest * sample_rate) - len(wav)
            wav = torch.nn.functional.pad(wav, (0, max(0, lacking)))
            yield wav, slice(due - begin, due - begin + count)


@dataclass(frozen=True)
class Stored:
    """Rows of the files of layers: a batch is read when it is asked for."""

    layers: list[np.ndarray]  # all that there is of each (rows, size), on the disk
    rows: np.ndarray  # those that are meant, in their order
    key: str  # hash of all that these depend on
    rate: float | None = None  # rows in a second, where they are frames

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Some rows (rows, layers, size), float32."""
        # NumPy takes a tensor of one number for that number.
        places = self.rows[rows if isinstance(rows, slice) else rows.numpy()]
        found = [np.asarray(layer[places], dtype=np.float32) for layer in self.layers]
        return torch.from_numpy(np.stack(found, axis=1))

    @property
    def shape(self) -> tuple[int, int]:
        """Of a row: layers and size."""
        return len(self.layers), self.layers[0].shape[1]

    def at(self, places: np.ndarray) -> Stored:
        """Only the rows at some places."""
        return Stored(self.layers, self.rows[places], self.key, self.rate)

    def only(self, layers: Sequence[int]) -> Stored:
        """Only some layers."""
        some = [self.layers[layer] for layer in layers]
        return Stored(some, self.rows, self.key, self.rate)

    def in_memory(self) -> Stored:
        """The same, read at once."""
        layers = [np.asarray(layer[self.rows]) for layer in self.layers]
        return Stored(layers, np.arange(len(self)), self.key, self.rate)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (layers, size) over the rows."""
        mean = sum(part.double().sum(0) for part in self._parts()) / len(self)
        square = sum(((part - mean) ** 2).sum(0) for part in self._parts()) / len(self)
        std = square.sqrt().float()
        return mean.float(), torch.where(std > 1e-6, std, torch.ones_like(std))

    def _parts(self) -> Iterator[Tensor]:
        for start in range(0, len(self), AT_ONCE):
            yield self[slice(start, start + AT_ONCE)]


def stored_features(
    extractor: Extractor,
    recordings: Sequence[Clip],
    cutting: Cutting | Framing,
    folder: str | Path,
    batch_size: int = 8,
    name: str = "features",
    progress: bool = False,
) -> tuple[Stored, np.ndarray]:
    """Features of recordings, and whose they are: the place of the recording, of each.

    A recording that cannot be read has no rows, and the log says why.
    """
    kind = type(cutting).__name__.lower()
    about = {
        "format": FORMAT,
        "extractor": [type(extractor).__name__, extractor.fingerprint],
        kind: cutting.about(),
    }
    place = Path(folder) / f"{kind}-{digest(about)}"
    place.mkdir(parents=True, exist_ok=True)
    stamps = [[*file_stamp(one.wav), one.duration] for one in recordings]
    keys = [json.dumps(stamp) for stamp in stamps]
    with locked(place, say=logger.info):
        known = _known(place)
        wanted = dict(zip(keys, recordings, strict=True))
        missing = {key: one for key, one in wanted.items() if key not in known}
        with tqdm(
            total=len(missing), desc=name, disable=not (progress and missing)
        ) as bar:
            for some, rows in _computed(cutting, extractor, missing, batch_size):
                _add(place, some, rows, known)
                bar.update(len(some))
    shape = next((found["shape"] for found in known.values() if found["rows"]), None)
    found = [known.get(key, {"rows": 0, "first": 0}) for key in keys]
    if shape is None or not any(one["rows"] for one in found):
        raise ProbeError(
            f"None of the {len(recordings)} recordings could be read; see the log."
        )
    layers = [_layer(place, number, shape[1]) for number in range(shape[0])]
    rows = [np.arange(one["first"], one["first"] + one["rows"]) for one in found]
    whose = np.repeat(np.arange(len(found)), [len(some) for some in rows])
    key, rate = digest([about, stamps]), cutting.rate(extractor)
    return Stored(layers, np.concatenate(rows), key, rate), whose


def features_of_all(
    encoders: Mapping[str, Sequence[Extractor]],
    recordings: Sequence[Clip],
    cutting: Cutting | Framing,
    folder: str | Path,
    batch_size: int,
    task: str,
    progress: bool,
) -> dict[str, list[tuple[Stored, np.ndarray]]]:
    """`stored_features` of every initialisation of every encoder."""
    what = recordings, cutting, folder, batch_size
    return {
        name: [stored_features(x, *what, f"{task} {name}", progress) for x in several]
        for name, several in encoders.items()
    }


def about_encoders(
    encoders: Mapping[str, Sequence[Extractor]],
    read: Mapping[str, Sequence[tuple[Stored, np.ndarray]]],
) -> dict[str, dict[str, list]]:
    """What a result says of its encoders and of what was read."""
    return {
        "encoders": {n: [one.fingerprint for one in x] for n, x in encoders.items()},
        "heard": {
            n: [x[0].sample_rate, x[0].frame_rate, x[0].layers]
            for n, x in encoders.items()
        },
        "features": {n: [stored.key for stored, _ in x] for n, x in read.items()},
    }


def _computed(
    cutting: Cutting | Framing,
    extractor: Extractor,
    missing: dict[str, Clip],
    batch_size: int,
) -> Iterator[tuple[dict[str, Clip], list[list[np.ndarray]]]]:
    """Portions and their rows, in their order; a device that is free takes the next."""
    free: SimpleQueue[Extractor] = SimpleQueue()
    for one in (extractor, *extractor.others):
        free.put(one)

    def compute(some: dict[str, Clip]):
        mine = free.get()
        try:
            return some, cutting.rows(mine, list(some.values()), batch_size)
        finally:
            free.put(mine)

    if not extractor.others:  # nor a thread that Ctrl-C would have to wait for
        yield from map(compute, _few(missing))
        return
    count, waiting = free.qsize(), deque()
    with ThreadPoolExecutor(count) as pool:
        for some in _few(missing):
            waiting.append(pool.submit(compute, some))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _few(missing: dict[str, Clip]) -> Iterator[dict[str, Clip]]:
    """Recordings in portions of so much audio."""
    some, seconds = {}, 0.0
    for key, clip in missing.items():
        if some and seconds + clip.duration > AT_RISK:
            yield some
            some, seconds = {}, 0.0
        some[key] = clip
        seconds += clip.duration
    if some:
        yield some


def _file(place: Path, layer: int) -> Path:
    return place / f"layer{layer:02}.f16"


def _layer(place: Path, number: int, size: int) -> np.ndarray:
    values = np.memmap(_file(place, number), np.float16, mode="r")
    return values[: len(values) // size * size].reshape(-1, size)


def _known(place: Path) -> dict[str, dict]:
    """What is in the files, by recording; what a power cut left half is forgotten."""
    files = sorted(place.glob("layer*.f16"))
    least = min((file.stat().st_size for file in files), default=0)
    known = {}
    for line in read_json_lines(place / INDEX):
        layers, size = line["shape"]
        if len(files) == layers and (line["first"] + line["rows"]) * size * 2 <= least:
            known[json.dumps(line["recording"])] = line
    return known


def _add(place, recordings: dict[str, Clip], rows, known) -> None:
    """Puts the features of some recordings at the end of the files."""
    shape = next((some[0].shape[1:] for some in rows if some), None)
    if shape is None:
        return  # none could be read: the next attempt may
    halves = [
        np.concatenate([np.empty((0, *shape), np.float16), *_halves(some, clip.name)])
        for some, clip in zip(rows, recordings.values(), strict=True)
    ]
    (layers, size), every = shape, np.concatenate(halves)
    with ExitStack() as stack:
        files = [_file(place, number) for number in range(layers)]
        files = [stack.enter_context(open(path, "ab")) for path in files]
        # A kill may have left them of different lengths, with the last row cut.
        begin = max(-(-file.tell() // (size * 2)) for file in files)
        for number, file in enumerate(files):
            file.truncate(begin * size * 2)
            file.seek(0, os.SEEK_END)
            file.write(every[:, number].tobytes())
            file.flush()
            os.fsync(file.fileno())
    with open_json_lines(place / INDEX) as file:
        for key, half in zip(recordings, halves, strict=True):
            line = {"recording": json.loads(key), "first": begin, "rows": len(half)}
            line["shape"] = [layers, size]
            begin += len(half)
            if len(half):
                append_json_line(file, line)
                known[key] = line


def _halves(parts: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Features as they are kept."""
    for values in parts:
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ProbeError(
                f"The features of {name!r} are not finite, or beyond float16 (largest: "
                f"{np.abs(values).max():.3g}): the encoder is broken, or the recording "
                "is."
            )
        yield half
