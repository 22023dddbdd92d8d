"""What labels were made of: the hashes that keep the wrong ones from being used.

Authors
 * The MuQ for SpeechBrain team 2026
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from muq_plugins.data.jsonio import write_json
from muq_plugins.data.labels.errors import LabelError
from muq_plugins.data.labels.windows import LabelWindows, track_samples
from muq_plugins.lobes.parts import fingerprint
from muq_plugins.lobes.target import Target

DESCRIPTION_FILE = "labels.json"
FORMAT = 1
MAX_ENTRIES = 1 << 16  # codes are stored in 16 bits
READ_BYTES = 1 << 20


def describe(
    target: Target,
    windows: LabelWindows,
    manifest: dict,
    shard_minutes: float,
    latents: bool,
) -> dict[str, Any]:
    """Everything that decides what is in a set of labels.

    Arguments
    ---------
    target : Target
        Features and quantizer.
    windows : LabelWindows
        How tracks are cut.
    manifest : dict
        Clip id to entry.
    shard_minutes : float
        Audio in a shard.
    latents : bool
        Whether the features are stored as well.

    Returns
    -------
    dict
        As JSON. The tokenizer is described by a hash of its weights and settings, which
        are those of its teacher too; the manifest by a hash of ids and lengths, not of
        where the files are.

    Raises
    ------
    LabelError
        If codes of this target cannot be stored.

    Example
    -------
    >>> from muq_plugins.lobes import LogMel, ResidualVQ, StackedFrames
    >>> target = Target(StackedFrames(LogMel()), ResidualVQ(512, 8, 64))
    >>> windows = LabelWindows.in_seconds(target, 30.0, 1.0)
    >>> manifest = {"a": {"wav": "a.wav", "duration": 2.0}}
    >>> describe(target, windows, manifest, 30, False)["window_frames"]
    750
    """
    if not isinstance(target, Target):
        raise LabelError(
            f"Labels are stored of a Target, not of a {type(target).__name__}: set "
            "labels to null."
        )
    if target.codebook_size > MAX_ENTRIES:
        raise LabelError(
            f"Codebooks of {target.codebook_size} entries cannot be stored: labels "
            f"have 16 bits, which is enough for {MAX_ENTRIES}."
        )
    features = {
        "features": type(target.features).__name__,
        "features_config": target.features.config,
        "quantizer": type(target.quantizer).__name__,
        "quantizer_config": target.quantizer.config,
    }
    config = getattr(target.features, "config", {})
    return {
        "format": FORMAT,
        "tokenizer": fingerprint(target, features),
        "teacher": config.get("teacher"),
        "layer": config.get("layer"),
        "manifest": hash_manifest(manifest, target.sample_rate),
        "sample_rate": target.sample_rate,
        "frame_rate": target.frame_rate,
        "num_codebooks": target.num_codebooks,
        "codebook_size": target.codebook_size,
        "window_frames": windows.window_frames,
        "context_frames": windows.context_frames,
        "shard_minutes": shard_minutes,
        "latent_size": target.features.output_size if latents else None,
        "clips": len(manifest),
    }


def hash_manifest(manifest: dict, sample_rate: int) -> str:
    """A hash of the clips of a manifest, wherever their files are.

    Arguments
    ---------
    manifest : dict
        Clip id to entry.
    sample_rate : int
        In Hz.

    Returns
    -------
    str
        16 hexadecimal digits.

    Example
    -------
    >>> one = hash_manifest({"a": {"wav": "/x/a.wav", "duration": 2.0}}, 24000)
    >>> one == hash_manifest({"a": {"wav": "/y/a.wav", "duration": 2.0}}, 24000)
    True
    >>> one == hash_manifest({"a": {"wav": "/x/a.wav", "duration": 2.1}}, 24000)
    False
    """
    digest = hashlib.sha256()
    for clip_id in sorted(manifest):
        samples = track_samples(manifest[clip_id], sample_rate)
        line = f"{clip_id}\0{samples}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def agree(folder: Path, expected: dict[str, Any], create: bool) -> None:
    """Makes sure that a folder is for these labels and no others.

    Arguments
    ---------
    folder : Path
        The folder of the labels.
    expected : dict
        From `describe`.
    create : bool
        Whether to write the description if there is none.

    Raises
    ------
    LabelError
        If the folder holds other labels; the differences are named.
    """
    path = folder / DESCRIPTION_FILE
    if create and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, expected)
    if not path.is_file():
        raise LabelError(
            f"There are no labels in {folder}: {DESCRIPTION_FILE} is missing. Extract "
            "them with extract_labels.py, or give another folder."
        )
    found = read_object(path)
    differences = [
        f"{key} is {found.get(key)} there, {value} here"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if differences:
        raise LabelError(
            f"The labels described in {path} are not those of this experiment: "
            f"{'; '.join(differences)}. Extract labels into another folder, or give "
            "the folder of the right ones."
        )


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Arguments
    ---------
    path : Path
        The file, which exists.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    LabelError
        If it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise LabelError(
            f"{path} is damaged ({content}): delete it and extract its labels again."
        )
    return content


@dataclasses.dataclass(frozen=True)
class AudioStamp:
    """What tells that an audio file is still the one that was labelled.

    Arguments
    ---------
    size : int
        Bytes.
    mtime_ns : int
        When it was last changed.
    digest : str
        Hash of its content.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> _ = path.write_bytes(b"RIFF")
    >>> stamp = AudioStamp.of(path)
    >>> path.touch()
    >>> stamp.matches(path)
    True
    >>> _ = path.write_bytes(b"riff")
    >>> stamp.matches(path)
    False
    """

    size: int
    mtime_ns: int
    digest: str

    @classmethod
    def of(cls, path: str | Path) -> AudioStamp:
        """Reads a file.

        Arguments
        ---------
        path : str or Path
            The file.

        Returns
        -------
        AudioStamp
            Its stamp.
        """
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, _digest(path))

    def matches(self, path: str | Path) -> bool:
        """Compares a file; only one that was touched or copied is read.

        Arguments
        ---------
        path : str or Path
            The file.

        Returns
        -------
        bool
            Whether its content is the same.
        """
        found = os.stat(path)
        if found.st_size != self.size:
            return False
        return found.st_mtime_ns == self.mtime_ns or _digest(path) == self.digest


def _digest(path: str | Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
