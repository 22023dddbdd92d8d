"""Folders of rendered audio: what they were made with, and what is still missing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from muq_plugins.data.audio import AudioInfo
from muq_plugins.data.corpus.pieces import SPLITS
from muq_plugins.data.corpus.soundfont import SAMPLE_RATE
from muq_plugins.data.manifest import manifest_entry
from muq_plugins.errors import UserError
from muq_plugins.files import atomic, read_json, sweep, write_json

AUDIO = "audio"
_RMS = 0.1  # -20 dBFS
_PEAK = 0.95


@dataclass(frozen=True)
class RenderedFolder:
    """A folder of audio with manifests, and a record of what they were made with."""

    record: Path  # the file that says it
    what: str  # what is in the folder, in words
    settings: dict[str, Any]  # what it is made with
    packages: Sequence[str]  # whose versions decide what is rendered
    format: int  # raised whenever a change of this package changes audio or labels
    suffixes: Sequence[str] = (".flac",)  # of the files of each clip

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return self.record.parent

    def is_complete(self) -> bool:
        """Whether everything is there; refuses what was made otherwise."""
        record = self._read()
        if record is None or not record["complete"]:
            return False
        try:
            there = {entry.name for entry in os.scandir(self.folder / AUDIO)}
            return all(
                f"{clip_id}{suffix}" in there
                for split in SPLITS
                for clip_id in read_json(self.folder / f"{split}.json")
                for suffix in self.suffixes
            )
        except FileNotFoundError:
            return False

    def begin(self) -> None:
        """Notes what is going to be made."""
        record, versions = self._read(), self._versions()
        if record is not None and record["versions"] != versions:
            raise UserError(
                f"{self.folder} holds a part of {self.what}, made with "
                f"{record['versions']}. With what is installed, {versions}, the rest "
                "would not match. Delete the folder or choose another."
            )
        try:
            self._write(complete=False)
            (self.folder / AUDIO).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.what} cannot be written to {self.folder}: {error}. Choose a "
                "folder that you may write to."
            ) from error

    def finish(self, manifests: dict[str, dict], **summary: Any) -> None:
        """Writes the manifests, and notes that everything is there."""
        sweep(self.folder / AUDIO)
        for split, manifest in manifests.items():
            write_json(self.folder / f"{split}.json", manifest)
        self._write(complete=True, **summary)

    def _write(self, **facts: Any) -> None:
        made_with = {"settings": self.settings, "versions": self._versions()}
        write_json(self.record, {"format": self.format, **made_with, **facts})

    def _read(self) -> dict[str, Any] | None:
        """What the folder says it holds, if that is what is wanted; None if fresh."""
        if not self.record.is_file():
            for name in (AUDIO, *(f"{split}.json" for split in SPLITS)):
                if (self.folder / name).exists():
                    raise UserError(
                        f"{self.folder} has {name} but no {self.record.name}: it does "
                        f"not hold {self.what}. Choose another folder."
                    )
            return None
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            there, format_ = record["settings"], record["format"]
            record["versions"], record["complete"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.record} is not the record of {self.what} ({error!r}). Delete "
                f"{self.folder} or choose another."
            ) from error
        if format_ != self.format:
            raise UserError(
                f"{self.folder} holds {self.what} as another version of this package "
                f"made it (format {format_}, now {self.format}): its audio, labels or "
                "parts differ. Delete the folder, and it is made again in minutes; or "
                "choose another, to keep what was measured on it."
            )
        if there != self.settings:
            raise UserError(
                f"{self.folder} holds {self.what} made with {there}, but wanted is "
                f"{self.settings}. Choose another folder or delete this one."
            )
        return record

    def _versions(self) -> dict[str, str]:
        return {package: version(package) for package in self.packages}


def rendered_entry(clip_id: str, samples: int, labels: dict[str, Any]) -> dict:
    """The entry of a clip in its manifest."""
    audio = AudioInfo(SAMPLE_RATE, samples, channels=1)
    return manifest_entry(f"{AUDIO}/{clip_id}.flac", audio, **labels)


def level(audio: np.ndarray) -> np.ndarray:
    """Bring audio to -20 dBFS RMS, or less where the peak would pass 0.95.

    The soundfont's instruments differ by 20 dB. A common RMS does not give them away
    by their loudness, and leaves headroom for all but the most percussive music, which
    the limit of the peak then keeps from clipping.
    """
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
    peak = float(np.abs(audio).max())
    if not (np.isfinite(peak) and peak > 0.0):
        raise UserError(f"The audio is silent or not finite: its peak is {peak}.")
    return (audio * min(_RMS / rms, _PEAK / peak)).astype(np.float32)


def write_flac(path: Path, audio: np.ndarray) -> None:
    """Write audio as 16-bit FLAC, completely or not at all."""
    # Rounded here, so that the file does not depend on how libsndfile rounds.
    samples = np.round(audio * 32767.0).astype(np.int16)
    with atomic(path) as partial:
        soundfile.write(partial, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
