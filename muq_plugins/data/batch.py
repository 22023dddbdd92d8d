"""Clips, batches of clips, and the loader that makes them.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import dataclasses
import signal

import torch
from torch.utils.data import DataLoader


@dataclasses.dataclass
class Clip:
    """One crop of one file.

    Arguments
    ---------
    id : str
        Id in the manifest of the clip that is delivered.
    key : int
        What its mask and noise are drawn from, see `clip_key`.
    wav : torch.Tensor or None
        Shape (samples,), float32; None when the window could not be read.
    start : float
        Begin of the crop in the file, in seconds.
    sample_rate : int
        In Hz.
    failures : list of (str, str)
        Path and reason of every file that could not be read on the way.

    Example
    -------
    >>> Clip("song", 7, torch.zeros(24000), 0.0, 24000).failures
    []
    """

    id: str
    key: int
    wav: torch.Tensor | None
    start: float
    sample_rate: int
    failures: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class ClipBatch:
    """A padded batch of clips.

    Arguments
    ---------
    wavs : torch.Tensor
        Shape (batch, samples), float32, padded with zeros at the end.
    wav_lens : torch.Tensor
        Shape (batch,), float32, relative lengths 0..1.
    clip_keys : torch.Tensor
        Shape (batch,), int64.
    ids : list of str
        Ids in the manifest.
    audio_seconds : float
        Seconds of audio without the padding.
    failures : list of (str, str)
        Path and reason of every file that could not be read for this batch.
    starts : list of float
        Begin of each crop in its file, in seconds.

    Example
    -------
    >>> batch = collate_clips([Clip("song", 7, torch.zeros(24000), 0.0, 24000)])
    >>> batch.to("cpu").wavs.shape
    torch.Size([1, 24000])
    """

    wavs: torch.Tensor
    wav_lens: torch.Tensor
    clip_keys: torch.Tensor
    ids: list
    audio_seconds: float
    failures: list
    starts: list = dataclasses.field(default_factory=list)

    @property
    def crops(self):
        """Which crops these are: (id, begin in seconds) of each."""
        return list(zip(self.ids, self.starts, strict=True))

    def __len__(self):
        return len(self.ids)

    def to(self, device):
        """Copies the tensors to a device.

        Arguments
        ---------
        device : str or torch.device
            Where to.

        Returns
        -------
        ClipBatch
            A batch with its tensors there. From pinned memory to a GPU the copy
            does not block.
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self):
        """Copies the tensors to page-locked memory; `DataLoader` calls this.

        Returns
        -------
        ClipBatch
            The pinned batch.
        """
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function):
        return dataclasses.replace(
            self,
            wavs=function(self.wavs),
            wav_lens=function(self.wav_lens),
            clip_keys=function(self.clip_keys),
        )


def collate_clips(clips):
    """Pads clips to a batch and leaves out those without audio.

    Arguments
    ---------
    clips : list of Clip
        At least one clip. Those whose `wav` is None only add to the failures.

    Returns
    -------
    ClipBatch
        The batch; its length is 0 when no clip had audio.

    Example
    -------
    >>> clips = [
    ...     Clip("a", 1, torch.ones(24000), 0.0, 24000),
    ...     Clip("b", 2, torch.ones(12000), 0.0, 24000),
    ...     Clip("c", 3, None, 0.0, 24000, [("c.wav", "truncated")]),
    ... ]
    >>> batch = collate_clips(clips)
    >>> batch.wavs.shape, batch.wav_lens.tolist(), batch.audio_seconds
    (torch.Size([2, 24000]), [1.0, 0.5], 1.5)
    >>> batch.failures
    [('c.wav', 'truncated')]
    """
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


def make_loader(dataset, batch_sampler, num_workers=0, pin_memory=False):
    """The `DataLoader` of clips, for training and validation alike.

    Workers are spawned: forking a process that runs CUDA, NCCL or gloo threads can
    deadlock, and the workers of a forkserver outlive a killed trainer. They stay
    alive between iterations, so the start (a few seconds) is paid once.

    Arguments
    ---------
    dataset : ClipDataset
        The clips.
    batch_sampler : iterable
        Lists of dataset items: a `ClipSampler` for training; for validation the
        share of this rank in fixed order, for example
        `BatchSampler(range(rank, len(dataset), world_size), batch_size, False)`.
    num_workers : int
        Worker processes; 0 reads in this process.
    pin_memory : bool
        True when the batches go to a GPU.

    Returns
    -------
    torch.utils.data.DataLoader
        Yields `ClipBatch`.

    Example
    -------
    >>> clips = {i: Clip(str(i), i, torch.ones(10), 0.0, 24000) for i in range(3)}
    >>> [batch.ids for batch in make_loader(clips, [[0, 2], [1]])]
    [['0', '2'], ['1']]
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


def _start_worker(worker_id):
    """Leaves Ctrl-C to the main process, which ends its workers itself."""
    # torch already limits a worker to one thread.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
