"""Randomness by key, and the order in which clips are heard.

Nothing that is learned may depend on the number of processes or workers. So no
random state travels through the data: every draw is a hash of what it is for
(seed, visit, clip), and the order of the clips is a hash of seed and epoch.

The words: an *epoch* visits every clip once (a long file several times, by its
weight). A *visit* counts how often a clip was visited before in the whole run:
with a weight of w, epoch e makes the visits e*w ... e*w + w-1 of that clip. The
visit is therefore enough to draw another crop and another mask each time:
`clip_key(seed, visit, clip_id)`. Without weights visit and epoch are equal.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import hashlib

import numpy as np
from torch.utils.data import Sampler


def keyed_integer(below, *parts):
    """Draws an integer that depends on nothing but its key.

    The hash is BLAKE2b, the same on every platform and in every process.

    Arguments
    ---------
    below : int
        The result is smaller than this, at most 2**62.
    *parts : int or str
        The key. Numbers and names are told apart by their order only.

    Returns
    -------
    int
        Uniform in 0 .. below-1.

    Example
    -------
    >>> keyed_integer(10, 1234, "crop") == keyed_integer(10, 1234, "crop")
    True
    """
    # Surrogates appear in file names that are not UTF-8.
    text = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest, "big") % below


def clip_key(seed, epoch, clip_id):
    """The key of one hearing of one clip, for its crop, mask and noise.

    Arguments
    ---------
    seed : int
        Seed of the experiment.
    epoch : int
        Number that differs at each hearing of the clip. `ClipDataset` passes the
        visit in training and the number of the window in validation.
    clip_id : str
        Id in the manifest.

    Returns
    -------
    int
        In 0 .. 2**62 - 1, fits an int64 tensor.

    Example
    -------
    >>> 0 <= clip_key(1234, 0, "song") < 2**62
    True
    >>> clip_key(1234, 0, "song") == clip_key(1234, 1, "song")
    False
    """
    return keyed_integer(1 << 62, seed, epoch, clip_id)


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

    Arguments
    ---------
    num_clips : int
        Clips in the dataset.
    batch_size : int
        Clips in one micro-batch.
    seed : int
        Seed of the experiment.
    rank : int
        This process.
    world_size : int
        Number of processes.
    weights : sequence of int, optional
        Visits per epoch of each clip, at least 1; 1 each when None. A long file
        holds many crops: see `ClipDataset.crops_per_clip`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Example
    -------
    >>> sampler = ClipSampler(num_clips=3, batch_size=2, seed=1234)
    >>> batches = iter(sampler)
    >>> stream = next(batches) + next(batches) + next(batches)
    >>> [epoch for epoch, visit, index in stream]
    [0, 0, 0, 1, 1, 1]
    >>> sorted(index for epoch, visit, index in stream[:3])
    [0, 1, 2]
    """

    def __init__(self, num_clips, batch_size, seed, rank=0, world_size=1, weights=None):
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
    def epoch_size(self):
        """Visits in one epoch: the sum of the weights."""
        return int(self._ends[-1])

    def set_position(self, position):
        """Sets where the next iteration begins.

        Arguments
        ---------
        position : int
            Micro-batches of this rank that were consumed already.

        Raises
        ------
        ValueError
            If it is negative.

        Example
        -------
        >>> sampler = ClipSampler(num_clips=5, batch_size=2, seed=1234)
        >>> sampler.set_position(7)
        >>> sampler.position
        7
        """
        if position < 0:
            raise ValueError(f"A position in the data is >= 0, got {position}.")
        self.position = int(position)

    def __iter__(self):
        """Yields lists of (epoch, visit, clip index) without end."""
        number = self.position * self.world_size + self.rank
        while True:
            first = number * self.batch_size
            yield [self._visit(first + i) for i in range(self.batch_size)]
            number += self.world_size

    def _visit(self, place):
        """The (epoch, visit, clip index) at a place of the stream."""
        epoch, place = divmod(place, self.epoch_size)
        drawn = int(self._epoch_order(epoch)[place])
        index = int(np.searchsorted(self._ends, drawn, side="right"))
        weight = int(self._weights[index])
        repeat = drawn - (int(self._ends[index]) - weight)
        return epoch, epoch * weight + repeat, index

    def _epoch_order(self, epoch):
        """The permutation of one epoch; only the latest is kept."""
        if epoch != self._order_epoch:
            seed = keyed_integer(1 << 62, self.seed, "order", epoch)
            self._order = np.random.default_rng(seed).permutation(self.epoch_size)
            self._order_epoch = epoch
        return self._order
