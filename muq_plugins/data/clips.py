"""Clips: crops of recordings, the order they are heard in, batches, and loaders.

Nothing that is learned may depend on the number of processes or workers. So no
random state travels through the data: every draw is a hash of what it is for
(seed, visit, clip), and the order of the clips is a hash of seed and epoch.

An *epoch* visits every clip once (a long file several times, by its weight). A *visit*
counts how often a clip was visited before in the whole run: with a weight of w, epoch
e makes the visits e*w ... e*w + w-1 of that clip.

Spawned workers import this module, and whatever it imports: only what reads audio.
"""

from __future__ import annotations

import dataclasses
import hashlib
import signal
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.data.columns import Columns
from muq_plugins.data.windows import spread_on_grid
from muq_plugins.errors import UserError


@dataclasses.dataclass
class Clip:
    """One crop of one file."""

    id: str  # id in the manifest of the clip that is delivered
    key: int  # what its mask and noise are drawn from, see `clip_key`
    # shape (samples,), float32; None when the window could not be read
    wav: torch.Tensor | None
    start: float  # begin of the crop in the file, in seconds
    sample_rate: int  # in Hz
    # path and reason of every file that could not be read on the way
    failures: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ClipBatch:
    """A padded batch of clips."""

    wavs: torch.Tensor  # shape (batch, samples), float32, padded with zeros at the end
    wav_lens: torch.Tensor  # shape (batch,), float32, relative lengths 0..1
    clip_keys: torch.Tensor  # shape (batch,), int64
    ids: list  # ids in the manifest
    audio_seconds: float  # seconds of audio without the padding
    # path and reason of every file that could not be read for this batch
    failures: list
    # begin of each crop in its file, in seconds
    starts: list = dataclasses.field(default_factory=list)

    @property
    def crops(self) -> list[tuple[str, float]]:
        """Which crops these are: (id, begin in seconds) of each."""
        return list(zip(self.ids, self.starts, strict=True))

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> ClipBatch:
        """Copies the waveforms to a device.

        Lengths and keys stay on the CPU, where all that follows from them is known
        without waiting for the device.
        """
        return dataclasses.replace(self, wavs=self.wavs.to(device, non_blocking=True))

    def pin_memory(self) -> ClipBatch:
        """Copies the waveforms to page-locked memory; `DataLoader` calls this."""
        return dataclasses.replace(self, wavs=self.wavs.pin_memory())


class ClipDataset(Dataset):
    """Reads crops of the files of a manifest.

    Training (`fixed=False`): an item is (epoch, visit, clip index) as
    `ClipSampler` yields it. The key is `clip_key(seed, visit, clip id)`, where the
    visit counts the hearings of this clip in the whole run, so that a long file
    that is visited several times in an epoch gives another crop each time, and
    the epoch itself is not needed. The start of the crop is drawn from the key on a
    grid; a file shorter than a crop is taken whole. A file that cannot be read is
    listed in the clip's `failures` and another one, drawn from the key, takes its
    place.

    Validation (`fixed=True`): an item is an int that numbers fixed windows which do
    not overlap and are spread evenly over each file. The key is `clip_key(seed,
    number of the window in its file, clip id)`, the same in every epoch. A window
    that cannot be read gives a clip without audio, never another one's.
    """

    def __init__(
        self,
        manifest: dict,
        clip_seconds: float,
        sample_rate: int = 24000,
        seed: int = 1234,
        fixed: bool = False,
        max_attempts: int = 8,
        grid: int | None = None,
        windows_per_clip: int = 1,
    ):
        grid = round(0.04 * sample_rate) if grid is None else grid
        if not manifest:
            raise ValueError("ClipDataset: the manifest holds no clip.")
        numbers = {
            "clip_seconds": clip_seconds,
            "sample_rate": sample_rate,
            "max_attempts": max_attempts,
            "grid": grid,
            "windows_per_clip": windows_per_clip,
        }
        for name, value in numbers.items():
            if value <= 0:
                raise ValueError(f"ClipDataset: {name} must be > 0, got {value}.")
        self.sample_rate = sample_rate
        self.seed = seed
        self.fixed = fixed
        self.max_attempts = max_attempts
        self.grid = grid
        self.clip_samples = round(clip_seconds * sample_rate)
        # Only what reading needs: workers get this, and a corpus of a million clips
        # has a lot of labels.
        self.clips = Columns.of(manifest)
        self.ids = self.clips.ids
        durations = self.clips.durations
        self._samples = np.round(durations * sample_rate).astype(np.int64)
        # Rows of (clip index, number of the window in its file, begin in samples).
        self._windows = (
            spread_on_grid(self._samples, self.clip_samples, windows_per_clip, grid)
            if fixed
            else None
        )

    def __len__(self) -> int:
        """Clips in training, windows in validation."""
        return len(self._windows) if self.fixed else len(self.ids)

    def __getitem__(self, item: int | tuple[int, int, int]) -> Clip:
        if self.fixed:
            return self._window(item)
        _, visit, index = item
        return self._crop(visit, index)

    def crops_per_clip(self) -> np.ndarray:
        """How many crops fit side by side in each file."""
        return np.maximum(1, self._samples // self.clip_samples)

    def _crop(self, visit: int, index: int) -> Clip:
        """The training clip of one visit, or of a substitute for it."""
        key = clip_key(self.seed, visit, self.ids[index])
        failures = []
        for attempt in range(self.max_attempts):
            if attempt > 0:
                # The substitute has a key of its own: it may be visited itself in
                # this epoch, with another crop and another mask.
                index = keyed_integer(len(self.ids), key, "substitute", attempt)
                key = keyed_integer(1 << 62, key, "substitute's key", attempt)
            starts = max(0, self._samples[index] - self.clip_samples) // self.grid + 1
            start = keyed_integer(int(starts), key, "crop") * self.grid
            clip = self._read(index, start, key)
            failures.extend(clip.failures)
            if clip.wav is not None:
                clip.failures = failures
                return clip
        listed = "\n".join(f"  {path}: {reason}" for path, reason in failures)
        raise UserError(
            f"{self.max_attempts} files in a row could not be read:\n{listed}\n"
            "Check that the data folder is still there, then scan it again."
        )

    def _window(self, number: int) -> Clip:
        """The validation clip of one fixed window."""
        index, window, start = (int(value) for value in self._windows[number])
        return self._read(index, start, clip_key(self.seed, window, self.ids[index]))

    def _read(self, index: int, start: int, key: int) -> Clip:
        """Reads a crop that begins at sample `start`; failures are noted."""
        seconds = start / self.sample_rate
        clip = Clip(self.ids[index], key, None, seconds, self.sample_rate)
        try:
            clip.wav = read_audio(
                self.clips.wav(index),
                seconds,
                self.clip_samples / self.sample_rate,
                self.sample_rate,
            )
        except AudioError as error:
            clip.failures.append((error.path, error.reason))
        return clip


class ClipSampler(Sampler):
    """Batches of clips from an endless stream, the same for any number of ranks.

    The stream is one keyed permutation of the clips after another (epoch 0, 1,
    2, ...), cut into micro-batches; a micro-batch may straddle two epochs and
    none is dropped. Micro-batch m of the whole run belongs to rank
    m % world_size. With A micro-batches accumulated on each of W ranks, update u
    hears the micro-batches u*A*W ... (u+1)*A*W - 1, whatever A and W are.

    Iteration begins at `position` and does not change it: loaders fetch ahead, so
    only the consumer knows what was used. To resume, call `set_position` with the
    micro-batches that this rank has consumed, then iterate anew.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: Sequence[int] | None = None,
    ):
        if num_clips < 1 or batch_size < 1:
            raise ValueError(
                f"ClipSampler needs at least one clip and a batch size of at least "
                f"1, got num_clips={num_clips} and batch_size={batch_size}."
            )
        if not 0 <= rank < world_size:
            raise ValueError(
                f"ClipSampler: rank {rank} does not exist in a world of {world_size}."
            )
        if weights is None:
            weights = np.ones(num_clips, dtype=np.int64)
        weights = np.asarray(weights)
        if (
            weights.shape != (num_clips,)
            or not np.issubdtype(weights.dtype, np.integer)
            or weights.min() < 1
        ):
            raise ValueError(
                f"ClipSampler: weights must be {num_clips} integers of at least 1, "
                f"one per clip, got shape {weights.shape} of {weights.dtype} with "
                f"minimum {weights.min() if weights.size else None}."
            )
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.position = 0
        self._weights = weights
        self._ends = np.cumsum(weights)
        self._order = None
        self._order_epoch = None

    @property
    def epoch_size(self) -> int:
        """Visits in one epoch: the sum of the weights."""
        return int(self._ends[-1])

    def set_position(self, position: int) -> None:
        """Sets where the next iteration begins."""
        if position < 0:
            raise ValueError(f"A position in the data is >= 0, got {position}.")
        self.position = int(position)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        """Yields lists of (epoch, visit, clip index) without end."""
        number = self.position * self.world_size + self.rank
        while True:
            first = number * self.batch_size
            yield [self._visit(first + i) for i in range(self.batch_size)]
            number += self.world_size

    def _visit(self, place: int) -> tuple[int, int, int]:
        """The (epoch, visit, clip index) at a place of the stream."""
        epoch, place = divmod(place, self.epoch_size)
        drawn = int(self._epoch_order(epoch)[place])
        index = int(np.searchsorted(self._ends, drawn, side="right"))
        weight = int(self._weights[index])
        repeat = drawn - (int(self._ends[index]) - weight)
        return epoch, epoch * weight + repeat, index

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch; only the latest is kept."""
        if epoch != self._order_epoch:
            seed = keyed_integer(1 << 62, self.seed, "order", epoch)
            self._order = np.random.default_rng(seed).permutation(self.epoch_size)
            self._order_epoch = epoch
        return self._order


def clip_key(seed: int, epoch: int, clip_id: str) -> int:
    """The key of one hearing of one clip, for its crop, mask and noise."""
    return keyed_integer(1 << 62, seed, epoch, clip_id)


def keyed_integer(below: int, *parts: object) -> int:
    """Draws an integer that depends on nothing but its key.

    The hash is BLAKE2b, the same on every platform and in every process.
    """
    # Surrogates appear in file names that are not UTF-8.
    text = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest, "big") % below


def keyed_shares(texts: Iterable[str], *parts: object) -> np.ndarray:
    """Draws a number of 0..1 for each text: `keyed_integer` below 2**53, as a share."""
    begin = "".join(f"{part}\0" for part in parts).encode()
    start = hashlib.blake2b(begin, digest_size=16)
    ends = []
    for text in texts:
        digest = start.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        ends.append(digest.digest()[8:])
    bits = 53  # of a float
    low = np.frombuffer(b"".join(ends), ">u8") & np.uint64((1 << bits) - 1)
    return low / float(1 << bits)


def training_loader(
    manifest: dict,
    clip_seconds: float,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    sample_rate: int = 24000,
) -> DataLoader:
    """An endless loader of random crops, one process's share."""
    dataset = ClipDataset(manifest, clip_seconds, sample_rate, seed)
    sampler = ClipSampler(
        len(dataset), batch_size, seed, rank, world_size, dataset.crops_per_clip()
    )
    return make_loader(dataset, sampler, num_workers, pin_memory)


def evaluation_loader(
    manifest: dict,
    clip_seconds: float,
    batch_size: int,
    windows_per_clip: int,
    max_windows: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    sample_rate: int = 24000,
) -> DataLoader:
    """A loader of fixed windows with fixed keys, one process's share.

    The windows, and what is masked in them, depend neither on the seed of the
    experiment nor on the number of processes, so that runs can be compared. One worker
    at most: many processes with many workers for each loader fill a machine.
    """
    dataset = ClipDataset(
        manifest,
        clip_seconds,
        sample_rate,
        seed=0,
        fixed=True,
        windows_per_clip=windows_per_clip,
    )
    windows = range(len(dataset))
    if max_windows is not None and len(windows) > max_windows:
        windows = [i * len(windows) // max_windows for i in range(max_windows)]
    batches = list(BatchSampler(windows, batch_size, drop_last=False))
    share = batches[rank::world_size]
    return make_loader(dataset, share, min(num_workers, 1), pin_memory)


def make_loader(
    dataset: ClipDataset,
    batch_sampler: Iterable,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """The `DataLoader` of clips, for training and validation alike.

    Workers are spawned: forking a process that runs CUDA, NCCL or gloo threads can
    deadlock, and the workers of a forkserver outlive a killed trainer. They stay
    alive between iterations, so the start (a few seconds) is paid once.
    """
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=collate_clips,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker,
        multiprocessing_context="spawn" if num_workers > 0 else None,
    )


def collate_clips(clips: list[Clip]) -> ClipBatch:
    """Pads clips to a batch and leaves out those without audio."""
    heard = [clip for clip in clips if clip.wav is not None]
    lengths = torch.tensor([len(clip.wav) for clip in heard], dtype=torch.int64)
    longest = int(lengths.max()) if heard else 0
    wavs = torch.zeros(len(heard), longest)
    for row, clip in zip(wavs, heard, strict=True):
        row[: len(clip.wav)] = clip.wav
    return ClipBatch(
        wavs=wavs,
        wav_lens=lengths / max(longest, 1),
        clip_keys=torch.tensor([clip.key for clip in heard], dtype=torch.int64),
        ids=[clip.id for clip in heard],
        audio_seconds=sum(len(clip.wav) / clip.sample_rate for clip in heard),
        failures=[failure for clip in clips for failure in clip.failures],
        starts=[clip.start for clip in heard],
    )


def _start_worker(worker_id: int) -> None:
    """Leaves it to the main process to end its workers.

    A terminal sends Ctrl-C, and that it was closed, to all processes of a command.
    """
    # torch already limits a worker to one thread.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
