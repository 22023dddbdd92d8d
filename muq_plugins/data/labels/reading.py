"""Stored labels: random access by clip and time.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from muq_plugins.data.labels.description import AudioStamp, agree
from muq_plugins.data.labels.errors import LabelError
from muq_plugins.data.labels.shards import CODES, plan_shards
from muq_plugins.data.labels.verification import VERIFIED_FILE


class LabelSet:
    """A complete set of labels, mapped into memory.

    Only what is asked for is read from the disk. The audio of a clip is compared with
    the audio that was labelled when the clip is first asked for.

    Arguments
    ---------
    folder : str or Path
        The folder of the labels.
    manifest : dict
        Clip id to entry.
    description : dict
        What the labels have to be, from `describe`.

    Raises
    ------
    LabelError
        If the labels are others, incomplete, damaged or were never verified.
    """

    def __init__(self, folder: str | Path, manifest: dict, description: dict[str, Any]):
        self.folder = Path(folder)
        self.width = description["num_codebooks"]
        agree(self.folder, description, create=False)
        self._paths = {clip: entry["wav"] for clip, entry in manifest.items()}
        self._places: dict[str, tuple[np.ndarray, int, int]] = {}
        self._stamps: dict[str, AudioStamp] = {}
        self._failures: set[str] = set()
        for shard in plan_shards(self.folder, manifest, description["shard_minutes"]):
            index = shard.load(self.width)
            # An empty file cannot be mapped.
            codes = np.zeros((0, self.width), CODES)
            if index["frames"]:
                shape = (index["frames"], self.width)
                codes = np.memmap(shard.codes, CODES, "r", shape=shape)
            for clip, row in index["clips"].items():
                self._places[clip] = (codes, row["first"], row["frames"])
                self._stamps[clip] = AudioStamp(**row["audio"])
            self._failures.update(index["failures"])
        if not (self.folder / VERIFIED_FILE).is_file():
            raise LabelError(
                f"{self.folder / VERIFIED_FILE} is missing: the labels were never "
                "verified. Run extract_labels.py again with the same settings."
            )

    def codes(self, clip_id: str, first: int, count: int) -> np.ndarray:
        """The labels of some frames.

        Arguments
        ---------
        clip_id : str
            Id in the manifest.
        first : int
            First frame.
        count : int
            How many; fewer are given where the track ends.

        Returns
        -------
        numpy.ndarray
            (frames, N) uint16; none of a track that could not be read to its end.

        Raises
        ------
        LabelError
            If the clip has no labels, or its audio has changed.
        """
        if clip_id in self._failures:
            return np.zeros((0, self.width), CODES)
        if clip_id not in self._places:
            raise LabelError(
                f"{self.folder} has no labels of {clip_id}: it is not in the manifest "
                "that they were extracted for."
            )
        stamp = self._stamps.get(clip_id)
        if stamp is not None and not stamp.matches(self._paths[clip_id]):
            raise LabelError(
                f"{self._paths[clip_id]} has changed since it was labelled in "
                f"{self.folder}: bring the file back, or extract labels into another "
                "folder."
            )
        self._stamps.pop(clip_id, None)  # once is enough
        codes, begin, frames = self._places[clip_id]
        last = min(first + count, frames)
        return codes[begin + min(first, last) : begin + last]
