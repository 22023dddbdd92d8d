"""Clips of a manifest as a dataset: crops for training, windows for validation.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import numpy as np
from torch.utils.data import Dataset

from muq_plugins.data.audio import AudioError, read_audio
from muq_plugins.data.batch import Clip
from muq_plugins.data.sampling import clip_key, keyed_integer


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

    Arguments
    ---------
    manifest : dict
        Clip id to entry with "wav" and "duration", from `load_manifest`.
    clip_seconds : float
        Length of a crop.
    sample_rate : int
        In Hz.
    seed : int
        Seed of the experiment.
    fixed : bool
        True for validation.
    max_attempts : int
        Files tried for one training clip before giving up.
    grid : int
        Crops start at multiples of this many samples. The default is one frame
        (40 ms) at 24 kHz.
    windows_per_clip : int
        Windows of one file at most, with `fixed=True`.

    Raises
    ------
    ValueError
        If the manifest is empty or an argument is out of range.
    RuntimeError
        When an item is read: if `max_attempts` files in a row cannot be read.

    Example
    -------
    >>> import soundfile
    >>> path = str(getfixture("tmpdir") / "a.wav")
    >>> soundfile.write(path, np.zeros(3 * 24000), 24000)
    >>> manifest = {"a": {"wav": path, "duration": 3.0}}
    >>> train = ClipDataset(manifest, clip_seconds=1.0)
    >>> train[(0, 0, 0)].wav.shape
    torch.Size([24000])
    >>> valid = ClipDataset(manifest, clip_seconds=1.0, fixed=True, windows_per_clip=8)
    >>> [valid[i].start for i in range(len(valid))]
    [0.0, 1.0, 2.0]
    """

    def __init__(
        self,
        manifest,
        clip_seconds,
        sample_rate=24000,
        seed=1234,
        fixed=False,
        max_attempts=8,
        grid=960,
        windows_per_clip=1,
    ):
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
        # Only what reading needs: workers get a copy of this, and a corpus of a
        # million clips has a lot of labels.
        self.ids = list(manifest)
        self.paths = [entry["wav"] for entry in manifest.values()]
        durations = np.array([entry["duration"] for entry in manifest.values()])
        self._samples = np.round(durations * sample_rate).astype(np.int64)
        self._windows = self._spread_windows(windows_per_clip) if fixed else None

    def __len__(self):
        """Clips in training, windows in validation."""
        return len(self._windows) if self.fixed else len(self.ids)

    def __getitem__(self, item):
        if self.fixed:
            return self._window(item)
        _, visit, index = item
        return self._crop(visit, index)

    def crops_per_clip(self):
        """How many crops fit side by side in each file.

        Returns
        -------
        list of int
            At least 1 each; the `weights` of a `ClipSampler` under which every
            second of the corpus is heard about equally often.

        Example
        -------
        >>> manifest = {
        ...     "short": {"wav": "a.wav", "duration": 2.0},
        ...     "long": {"wav": "b.wav", "duration": 95.0},
        ... }
        >>> ClipDataset(manifest, clip_seconds=30.0).crops_per_clip()
        [1, 3]
        """
        return np.maximum(1, self._samples // self.clip_samples).tolist()

    def _crop(self, visit, index):
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
        raise RuntimeError(
            f"{self.max_attempts} files in a row could not be read:\n{listed}\n"
            "Check that the data folder is still there, then scan it again."
        )

    def _window(self, number):
        """The validation clip of one fixed window."""
        index, window, start = (int(value) for value in self._windows[number])
        return self._read(index, start, clip_key(self.seed, window, self.ids[index]))

    def _read(self, index, start, key):
        """Reads a crop that begins at sample `start`; failures are noted."""
        seconds = start / self.sample_rate
        clip = Clip(self.ids[index], key, None, seconds, self.sample_rate)
        try:
            clip.wav = read_audio(
                self.paths[index],
                seconds,
                self.clip_samples / self.sample_rate,
                self.sample_rate,
            )
        except AudioError as error:
            clip.failures.append((error.path, error.reason))
        return clip

    def _spread_windows(self, windows_per_clip):
        """Rows of (clip index, number of the window, start in samples)."""
        # Windows begin on the grid, so they are that far apart.
        spacing = -(-self.clip_samples // self.grid) * self.grid
        rows = []
        for index, samples in enumerate(self._samples):
            fitting = max(0, samples - self.clip_samples) // spacing + 1
            count = min(fitting, windows_per_clip)
            for window in range(count):
                slot = (2 * window + 1) * fitting // (2 * count)
                rows.append((index, window, slot * spacing))
        return np.array(rows, dtype=np.int64)
